"""Every task by name. A new one is one file and one line here, or `register` from anywhere."""

from collections.abc import Mapping
from dataclasses import dataclass

from zoo.data.batches.base import LabelledBatch, LanguageBatch, Seq2SeqBatch
from zoo.decoding.beam import BeamConfig
from zoo.decoding.generation import GenerationConfig
from zoo.errors import UserError, check_choice, nearest
from zoo.plugins import alike
from zoo.tasks.classification import Classification, ClassificationData, PredictionConfig
from zoo.tasks.language_modeling import LanguageModeling, LanguageModelingData
from zoo.tasks.translation import Translation, TranslationData


@dataclass(frozen=True)
class TaskKind:
    """A task, the dataclasses of its keys `data` and `decoding`, and the batches of the models that it trains.

    `command` is the command that uses a trained model. Beside `TaskOfExperiments`, the task needs what that command
    calls: what `Translation` has for `translate`, `LanguageModeling` for `generate`, `Classification` for `classify`.
    """

    task: type  # a `TaskOfExperiments`; a protocol with plain members cannot be checked
    data: type
    decoding: type
    batch: type
    command: str

    def __post_init__(self):
        check_choice("command", self.command, EXAMPLES)

    @property
    def example(self) -> str:
        """How to use what was trained, with places for `workdir`, a `sentence` and a `split`."""
        return EXAMPLES[self.command]


EXAMPLES = {
    "translate": "echo {sentence} | python -m zoo translate {workdir}",
    "generate": "python -m zoo generate {workdir} --prompt ...",
    "classify": "echo {sentence} | python -m zoo classify {workdir}",
}


TASKS: dict[str, TaskKind] = {
    "translation": TaskKind(Translation, TranslationData, BeamConfig, Seq2SeqBatch, "translate"),
    "language_modeling": TaskKind(LanguageModeling, LanguageModelingData, GenerationConfig, LanguageBatch, "generate"),
    "classification": TaskKind(Classification, ClassificationData, PredictionConfig, LabelledBatch, "classify"),
}


def register(name: str, kind: TaskKind) -> None:
    """Add a task of your own, from any file (see `zoo.plugins`).

        register("denoising", TaskKind(Denoising, DenoisingData, BeamConfig, Seq2SeqBatch, "translate"))

    Raises `UserError` if another task has this name.
    """
    known = TASKS.get(name, kind)
    if not alike(known.task, kind.task):
        raise UserError(f"there is a task {name!r} already, {known.task.__module__}: choose another name")
    TASKS[name] = kind


def kind(name: str, tasks: Mapping[str, TaskKind] = TASKS) -> TaskKind:
    """The task of this name, or a `UserError` that names the nearest."""
    if name not in tasks:
        raise UserError(f"task={str(name)!r} is not a task of the zoo: {nearest(name, tasks)}")
    return tasks[name]
