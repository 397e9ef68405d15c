"""Every task of the zoo by name. A new task is one file and one line here."""

from collections.abc import Mapping
from dataclasses import dataclass

from zoo.data.batches.base import LabelledBatch, LanguageBatch, Seq2SeqBatch
from zoo.decoding.beam import BeamConfig
from zoo.decoding.generation import GenerationConfig
from zoo.errors import UserError, nearest
from zoo.tasks.classification import Classification, ClassificationData, PredictionConfig
from zoo.tasks.language_modeling import LanguageModeling, LanguageModelingData
from zoo.tasks.translation import Translation, TranslationData


@dataclass(frozen=True)
class TaskKind:
    """A task, the dataclasses of its keys `data` and `decoding`, and the batches of the models that it trains.

    `command` uses what was trained; `example` shows how, with places for `workdir`, a `sentence` and a `split`.
    """

    task: type  # a `TaskOfExperiments`; a protocol with plain members cannot be checked
    data: type
    decoding: type
    batch: type
    command: str
    example: str


TASKS: dict[str, TaskKind] = {
    "translation": TaskKind(
        *(Translation, TranslationData, BeamConfig, Seq2SeqBatch),
        *("translate", "echo {sentence} | python -m zoo translate {workdir}"),
    ),
    "language_modeling": TaskKind(
        *(LanguageModeling, LanguageModelingData, GenerationConfig, LanguageBatch),
        *("generate", "python -m zoo generate {workdir} --prompt ..."),
    ),
    "classification": TaskKind(
        *(Classification, ClassificationData, PredictionConfig, LabelledBatch),
        *("classify", "echo {sentence} | python -m zoo classify {workdir}"),
    ),
}


def kind(name: str, tasks: Mapping[str, TaskKind] = TASKS) -> TaskKind:
    """The task of this name, or a `UserError` that names the nearest."""
    if name not in tasks:
        raise UserError(f"task={str(name)!r} is not a task of the zoo: {nearest(name, tasks)}")
    return tasks[name]
