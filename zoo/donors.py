"""Donors: the working directories that other runs begin from, and what a run takes of them."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
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
from zoo.training.vocabulary import Transfer
from zoo.training.warm_start import Wanted

# Fields of a model's config that do not describe its parameters, or that the data decides.
_NOT_SIZES = ("dtype", "remat", "attention_backend", "vocabulary", "source_vocabulary", "target_vocabulary", "outputs")
_TOKENIZER = ("tokenizer", "vocabulary", "target_vocabulary", "joint")  # keys of `data`


@dataclass(frozen=True)
class Taking:
    """What to take of a donor, as the flags of `train` say it: which `checkpoint` (best, latest, average or the number
    of a step), a classifier's `head`, `only` parameters with this regular expression in their path, the `optimizer`'s
    state, and a `new_vocabulary` of the run's own, for which parameters are taken piece by piece."""

    checkpoint: str = ""
    head: bool = False
    only: str = ""
    optimizer: bool = False
    new_vocabulary: bool = False

    def __post_init__(self):
        try:
            re.compile(self.only)
        except re.error as error:
            raise UserError(f"--init_only={self.only!r} is no regular expression: {error}") from error
        chosen = self.named()
        for one, other in (("--new_vocabulary", "--init_head"), ("--init_only", "--init_head")):
            if one in chosen and other in chosen:
                raise UserError(f"{one} and {other} exclude each other: leave one out")
        for other in ("--new_vocabulary", "--init_only"):
            if self.optimizer and other in chosen:
                raise UserError(f"--init_optimizer is for runs that take all parameters: leave it or {other} out")

    def named(self) -> list[str]:
        """The flags that are given."""
        given = {
            "--init_head": self.head,
            "--init_checkpoint": self.checkpoint,
            "--init_only": self.only,
            "--init_optimizer": self.optimizer,
            "--new_vocabulary": self.new_vocabulary,
        }
        return [flag for flag, value in given.items() if value]


@dataclass(frozen=True)
class Donor:
    """A working directory that a run begins from: it gives its sizes, its tokenizer unless the run learns its own, and,
    if `parameters`, those that `taking` says."""

    path: AnyPath
    parameters: bool = True
    taking: Taking = Taking()

    @classmethod
    def of(cls, spec: str | PathLike, parameters: bool = True, taking: Taking = Taking()) -> "Donor":
        """The donor that `spec` names: `DIR`, `DIR@STEP` (or `DIR@average`), `DIR/average`, `DIR/best/STEP`, ...

        Raises `UserError` for two checkpoints at once, and for words on parameters where none are taken.
        """
        path, named = _split(located(spec))
        if named and taking.checkpoint and named != taking.checkpoint:
            raise UserError(f"--init_checkpoint={taking.checkpoint} and {spec} name two checkpoints: leave one out")
        if not parameters and (named or taking.named()):
            what = f"the checkpoint {named}" if named else taking.named()[0]
            raise UserError(f"{what} goes with --init_from: --like={spec} takes no parameters")
        return cls(path, parameters, replace(taking, checkpoint=taking.checkpoint or named))

    @classmethod
    def chosen(
        cls,
        init_from: str | PathLike | None,
        like: str | PathLike | None,
        taking: Taking = Taking(),
    ) -> "Donor | None":
        """The donor of a run, if it has one.

        Raises `UserError` for two of them, and for words on what to take of one where there is none.
        """
        if init_from is not None and like is not None:
            raise UserError("init_from and like exclude each other: init_from takes the tokenizer too")
        spec = like if init_from is None else init_from
        if spec is not None:
            return cls.of(spec, init_from is not None, taking)
        if flags := taking.named():
            raise UserError(f"{flags[0]} says what to take of a donor: name one by --init_from=DIR")
        return None

    @property
    def gives_vocabulary(self) -> bool:
        return not self.taking.new_vocabulary

    @property
    def checkpoint(self) -> str:
        """Which of its checkpoints. The optimizer's state is in those of training alone."""
        return self.taking.checkpoint or ("latest" if self.taking.optimizer else "best")

    def wanted(self, task: Task, config: Any) -> Wanted:
        """What of its parameters a run of `task` takes, whose model has `config`."""
        taking = self.taking
        lora = from_workdir(self.path).lora
        transfer = None if self.gives_vocabulary else self._transfer(task, config)
        return Wanted(self.path, self.checkpoint, taking.head, taking.only, taking.optimizer, lora, transfer)

    def changes(self, experiment: Experiment, given: Sequence[Change]) -> list[Change]:
        """The changes by which `experiment` has the donor's sizes and tokenizer, before the user's own, `given`.

        Raises `UserError` where those ask for another tokenizer.
        """
        donor = from_workdir(self.path)
        if not self.gives_vocabulary:
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

    def _transfer(self, task: Task, config: Any) -> Transfer:
        """How parameters come to the vocabulary of `task`, whose model has `config`."""
        foreign = interop.opened(self.path)
        donor = from_workdir(self.path).make_task(self.path)
        old = donor.named_tokenizers() if foreign is None else foreign.tokenizers
        return Transfer.of(old, task.named_tokenizers(), registry.boxed_shapes(config))

    def check_head(self, known: Sequence[str]) -> None:
        """Raises `UserError` where the head is to be taken and its outputs are other labels than the `known`."""
        there = labels.saved(self.path)
        if self.taking.head and there is not None and there != list(known):
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
