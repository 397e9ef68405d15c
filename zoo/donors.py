"""Donors: the working directories that other runs begin from, and what a run takes of them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from os import PathLike
from typing import Any

from zoo import interop
from zoo.data.examples import labels
from zoo.data.specials import EOS, SPECIALS
from zoo.errors import UserError
from zoo.experiment import Change, Experiment, from_workdir
from zoo.models import gpt, registry
from zoo.storage import AnyPath, located, write_whole
from zoo.tasks.base import Task
from zoo.training.lora import LoRAConfig
from zoo.training.vocabulary import Transfer

# Fields of a model's config that do not describe its parameters, or that the data decides.
_NOT_SIZES = ("dtype", "remat", "attention_backend", "vocabulary", "source_vocabulary", "target_vocabulary", "outputs")
_TOKENIZER = ("tokenizer", "vocabulary", "target_vocabulary", "joint")  # keys of `data`


@dataclass(frozen=True)
class Donor:
    """A working directory that a run begins from: it takes the tokenizer and, if `parameters`, those of `checkpoint`
    (best, latest, average or the number of a step). A classifier's head is taken only if `head`. Without `vocabulary`,
    the run learns its own, and parameters are taken piece by piece."""

    path: AnyPath
    parameters: bool = True
    checkpoint: str = "best"
    head: bool = False
    vocabulary: bool = True

    @classmethod
    def of(
        cls,
        spec: str | PathLike,
        parameters: bool = True,
        checkpoint: str = "",
        head: bool = False,
        vocabulary: bool = True,
    ) -> "Donor":
        """The donor that `spec` names: `DIR`, `DIR@STEP` (or `DIR@average`), `DIR/average`, `DIR/best/STEP`, ...

        Raises `UserError` for two checkpoints at once, and for a head or a checkpoint without parameters.
        """
        path, named = _split(located(spec))
        if named and checkpoint and named != checkpoint:
            raise UserError(f"--init_checkpoint={checkpoint} and {spec} name two checkpoints: leave one out")
        if not parameters and (head or checkpoint or named):
            what = "--init_head" if head else f"the checkpoint {checkpoint or named}"
            raise UserError(f"{what} goes with --init_from: --like={spec} takes no parameters")
        if not vocabulary and (head or not parameters):
            raise UserError("--new_vocabulary goes with --init_from, and without --init_head")
        return cls(path, parameters, checkpoint or named or "best", head, vocabulary)

    @classmethod
    def chosen(
        cls,
        init_from: str | PathLike | None,
        like: str | PathLike | None,
        checkpoint: str = "",
        head: bool = False,
        new_vocabulary: bool = False,
    ) -> "Donor | None":
        """The donor of a run, if it has one.

        Raises `UserError` for two of them, and for words on what to take of one where there is none.
        """
        if init_from is not None and like is not None:
            raise UserError("init_from and like exclude each other: init_from takes the tokenizer too")
        spec = like if init_from is None else init_from
        if spec is not None:
            return cls.of(spec, init_from is not None, checkpoint, head, not new_vocabulary)
        if head or checkpoint or new_vocabulary:
            raise UserError(
                "--init_head, --init_checkpoint and --new_vocabulary say what to take of a donor: name one by "
                "--init_from=DIR"
            )
        return None

    def changes(self, experiment: Experiment, given: Sequence[Change]) -> list[Change]:
        """The changes by which `experiment` has the donor's sizes and tokenizer, before the user's own, `given`.

        Raises `UserError` where those ask for another tokenizer.
        """
        donor = from_workdir(self.path)
        if not self.vocabulary:
            return [(key, _of_any_vocabulary(key, value)) for key, value in _sizes(donor, experiment)]
        tokenizer = _tokenizer(donor, experiment)
        wanted = dict(given)
        for key, value in tokenizer:
            if key in wanted and str(wanted[key]) != value:
                raise UserError(
                    f"{key}={wanted[key]}: the run takes the tokenizer of {self.path}, which has {key}={value}: leave "
                    "the key out"
                )
        return [*_sizes(donor, experiment), *tokenizer]

    @property
    def lora(self) -> LoRAConfig:
        """How its adapters were made."""
        return from_workdir(self.path).lora

    def transfer(self, task: Task, config: Any) -> Transfer | None:
        """How parameters come to the vocabulary of `task`, whose model has `config`; None where that is the donor's."""
        if self.vocabulary:
            return None
        foreign = interop.opened(self.path)
        donor = from_workdir(self.path).make_task(self.path)
        old = donor.named_tokenizers() if foreign is None else foreign.tokenizers
        return Transfer.of(old, task.named_tokenizers(), registry.boxed_shapes(config))

    def check_head(self, known: Sequence[str]) -> None:
        """Raises `UserError` where the head is to be taken and its outputs are other labels than the `known`."""
        there = labels.saved(self.path)
        if self.head and there is not None and there != list(known):
            raise UserError(
                f"--init_head: the outputs of {self.path} are {', '.join(there)}, and this run has "
                f"{', '.join(known)}: leave --init_head out"
            )

    def give_tokenizer(self, workdir: AnyPath) -> None:
        """Copy the tokenizer into `workdir`: parameters mean something only with the one they were trained on."""
        from_workdir(self.path)  # or it is no working directory
        if (foreign := interop.opened(self.path)) is not None:
            for name, tokenizer in {} if (workdir / "tokenizer").exists() else foreign.tokenizers.items():
                tokenizer.save(workdir / "tokenizer", name)
            return
        source = self.path / "tokenizer"
        if not source.is_dir():
            raise UserError(f"{self.path} has no {source}: copy it from where it was trained")
        if not (workdir / "tokenizer").exists():
            for path in source.iterdir():
                write_whole(workdir / "tokenizer" / path.name, path.read_bytes())


def _split(path: AnyPath) -> tuple[AnyPath, str]:
    """A working directory and the checkpoint in it that `path` names, or "" where it names none."""
    if (path / "config.json").is_file():
        return path, ""
    stem, at, which = path.name.rpartition("@")
    if at and stem:
        return path.parent / stem, which
    if path.name in ("best", "average"):
        return path.parent, path.name
    if path.name.isdecimal() and path.parent.name in ("checkpoints", "best", "average"):
        return path.parent.parent, path.name if path.parent.name == "checkpoints" else path.parent.name
    return path, ""


def _of_any_vocabulary(key: str, value: Any) -> Any:
    """Of the excluded rows, those of the specials, which every vocabulary has."""
    return tuple(row for row in value if row < len(SPECIALS)) if key == "model.excluded_rows" else value


def _sizes(donor: Experiment, experiment: Experiment) -> list[Change]:
    """What decides the shapes of the donor's parameters and what it computes with them, as changes of `experiment`.
    None where it has a model of another kind: its own config says everything then."""
    own, body = experiment.model.config(), donor.model.config()
    both_gpt = isinstance(own, gpt.GPTConfig) and isinstance(body, gpt.GPTConfig)
    if not both_gpt and donor.model.name != experiment.model.name:
        return []
    plain = asdict(body)
    if EOS in plain.get("excluded_rows", ()):  # GPT-1 was published without; a run of ours learns to end a text
        plain["excluded_rows"] = tuple(row for row in plain["excluded_rows"] if row != EOS)
    names = [f.name for f in fields(own) if f.name in plain and f.name not in _NOT_SIZES and "dropout" not in f.name]
    sizes = [(f"model.{name}", plain[name]) for name in names if plain[name] != 0 or isinstance(plain[name], bool)]
    if both_gpt:
        sizes.append(("data.length", min(experiment.data.length, body.max_length)))
    return sizes


def _tokenizer(donor: Experiment, experiment: Experiment) -> list[Change]:
    """The keys of `data` that describe the donor's tokenizer."""
    known: dict[str, Any] = {f.name: getattr(donor.data, f.name) for f in fields(donor.data)}
    own = {f.name for f in fields(experiment.data)}
    return [(f"data.{name}", str(known[name])) for name in _TOKENIZER if name in known and name in own]
