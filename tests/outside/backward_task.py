"""A fourth task, from outside the zoo: language modeling of texts whose characters come last first, as one file."""

from dataclasses import dataclass

from zoo.data.batches.base import LanguageBatch
from zoo.data.examples.documents import Documents
from zoo.decoding.generation import GenerationConfig
from zoo.tasks import registry
from zoo.tasks.language_modeling import LanguageModeling, LanguageModelingData


@dataclass(frozen=True)
class BackwardData(LanguageModelingData):
    """As in language modeling; with `upper`, in capitals."""

    upper: bool = False


@dataclass(frozen=True)
class Turned:
    """Documents with the characters of each in the other order."""

    documents: Documents
    upper: bool

    @property
    def read(self) -> float:
        return self.documents.read

    def __iter__(self):
        return ((text.upper() if self.upper else text)[::-1] for text in self.documents)

    def identity(self) -> list:
        return [*self.documents.identity(), "backward", self.upper]


class Backward(LanguageModeling):
    """Language modeling from the end of a text to its beginning."""

    def documents(self, split, location=""):
        return Turned(super().documents(split, location), self.data.upper)


KIND = registry.TaskKind(Backward, BackwardData, GenerationConfig, LanguageBatch, "generate")
registry.register("backward", KIND)
