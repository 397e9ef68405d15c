"""An experiment: a config file and the changes from the command line, resolved once into frozen dataclasses.

A file gives what differs from the defaults, which the dataclasses hold; so every key that exists can be set, and a key
that doesn't is an error before anything is loaded.
"""

import dataclasses
import importlib.util
import json
import shlex
import sys
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo import interop, plugins, typed
from zoo.errors import UserError, nearest
from zoo.models import registry
from zoo.parallel.devices import compute_dtype
from zoo.parallel.mesh import MeshConfig
from zoo.storage import AnyPath, expanded
from zoo.tasks import registry as tasks
from zoo.tasks.base import Task
from zoo.training.config import TrainConfig
from zoo.training.lora import LoRAConfig
from zoo.training.optimizers import OptimizerConfig

CONFIGS = Path(__file__).parent / "configs"
OURS = (Path(), Path("zoo/configs"))  # where users may write that they are
# A change of one key sets to 0 another that would decide the same thing.
INSTEAD_OF = {"train.evaluate_every": "train.evaluate_epochs", "optimizer.warmup": "optimizer.warmup_share"}


Change = tuple[str, Any]
"""A key of a config by its dotted path, and its value: as text, or as Python has it."""


@dataclass(frozen=True)
class ModelChoice:
    """A published size of a model, with some fields of its config changed."""

    name: str = "transformer"
    size: str = "base"
    changes: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> "ModelChoice":
        """The fields of the model's own config stand beside `name` and `size`."""
        name = str(tree.get("name", cls.name))
        types = typing.get_type_hints(registry.family(name).config)
        values = typed.values(tree, {**types, "name": str, "size": str}, "model.", name)
        return cls(name, values.pop("size", cls.size), {key: values[key] for key in values if key != "name"})

    def config(self, **decided: Any) -> Any:
        """The model's config; `decided` are the fields that data and training settle."""
        return registry.config(self.name, self.size, **(dict(self.changes) | decided))


@dataclass(frozen=True)
class Experiment:
    """Everything that decides a run. `task` decides the keys of `data` and `decoding`."""

    name: str = "experiment"
    seed: int = 0
    task: str = "translation"
    model: ModelChoice = field(default_factory=ModelChoice)
    data: Any = None
    train: TrainConfig = field(default_factory=TrainConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    lora: LoRAConfig = field(default_factory=LoRAConfig)
    decoding: Any = None
    mesh: MeshConfig = field(default_factory=MeshConfig)

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> "Experiment":
        """The keys of `data` and `decoding` are those of the task."""
        kind = tasks.kind(tree.get("task", cls.task))
        types = typing.get_type_hints(cls) | {"data": kind.data, "decoding": kind.decoding}
        return cls(**typed.values({"data": {}, "decoding": {}} | tree, types))

    def __post_init__(self):
        kind = tasks.kind(self.task)
        for key in ("data", "decoding"):
            if getattr(self, key) is None:
                object.__setattr__(self, key, getattr(kind, key)())
        self.model.config()  # report an impossible combination before any data is read
        fitting = [name for name, family in registry.FAMILIES.items() if family.batch is kind.batch]
        if self.model.name not in fitting:
            raise UserError(f"model.name={self.model.name!r} is not for task={self.task!r}: use {' or '.join(fitting)}")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed={self.seed}: use a whole number from 0 to {2**32 - 1}")
        for key in ("epochs", "evaluate_epochs"):
            if (value := getattr(self.train, key)) and not hasattr(kind.task, "epoch_steps"):
                raise UserError(f"train.{key}={value:g}: task={self.task!r} does not count epochs: set steps")
        kind.task.check(self)
        scores = kind.task.selectable(self.data)
        if self.train.select not in scores:
            remedy = nearest(self.train.select, scores)
            raise UserError(f"train.select={self.train.select!r} is not a value of an evaluation: {remedy}")

    @property
    def command(self) -> str:
        """The command that uses what was trained: translate, generate or classify."""
        return tasks.kind(self.task).command

    def make_task(self, workdir: AnyPath) -> Task:
        return tasks.kind(self.task).task(self.data, self.decoding, self.train.smoothing, workdir, self.seed)

    def rule(self) -> OptimizerConfig:
        """The optimizer, with the multipliers that freeze what adapters do not train."""
        return dataclasses.replace(self.optimizer, multipliers=(*self.optimizer.multipliers, *self.lora.multipliers))

    def train_config(self, task: Task) -> TrainConfig:
        """How to train, with `train.epochs` of the data of `task` as steps, `train.steps` at most."""
        if not self.train.epochs:
            return self.train
        steps = max(1, round(self.train.epochs * task.epoch_steps()))
        return dataclasses.replace(self.train, steps=min(steps, self.train.steps or steps))

    def model_config(self, task: Task, dtype: str) -> Any:
        """The model's config with the vocabularies that `task` has learned, to compute in `dtype` (or `auto`)."""
        return self.model.config(dtype=compute_dtype(dtype), **task.vocabularies())

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as they stand in a working directory's `config.json`."""
        plain = dataclasses.asdict(self)
        del plain["train"]["changed_data"]  # holds for one start only
        plain["model"] = {"name": self.model.name, "size": self.model.size, **self.model.changes}
        if own := plugins.origins(registry.family(self.model.name).module, tasks.kind(self.task).task):
            plain["plugins"] = own
        return json.loads(json.dumps(plain))


def from_file(spec: str, changes: Sequence[Change] = ()) -> Experiment:
    """The experiment of `FILE[:ARGS]` with `changes` such as `("train.steps", "100")`.

    A bare name, or zoo/configs/NAME.py in any directory, is looked up among the configs of the zoo. Raises `UserError`
    for a wrong file, key or value.
    """
    path, _, argument = spec.partition(":")
    path = expanded(path)
    ours = [CONFIGS / Path(path).name, CONFIGS / f"{path}.py"] if Path(path).parent in OURS else []
    file = next((p for p in (Path(path), *ours) if p.is_file()), None)
    if file is None:
        known = (p.name for p in CONFIGS.glob("*.py") if not p.name.startswith("_"))
        raise UserError(f"no config file {path!r}: {nearest(Path(path).name, known)}")
    return resolve({"name": file.stem} | _config_of(file, argument), changes)


def _config_of(file: Path, argument: str) -> dict[str, Any]:
    """The config that the user's code in `file` returns; its errors are the user's."""
    module_spec = importlib.util.spec_from_file_location(f"zoo_config_{file.stem}", file)
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = module  # dataclasses in it look their names up there
    with plugins.beside(file), plugins.blamed(file, "is no config"):
        module_spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise UserError(f"{file} is not a config: it has no function get_config(argument)")
        return (module.get_config(argument) if argument else module.get_config()).to_dict()


def from_workdir(workdir: AnyPath, changes: Sequence[Change] = ()) -> Experiment:
    """The experiment of a working directory, or of a foreign folder (`zoo.interop`)."""
    if (foreign := interop.opened(workdir)) is not None:
        return resolve(foreign.experiment, changes)
    path = workdir / "config.json"
    if not path.is_file():
        raise UserError(
            f"{workdir} is not a working directory (no config.json): make one with train.py "
            f"--workdir={shlex.quote(str(workdir))}"
        )
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(tree, dict):
            raise ValueError(f"{tree!r} has no keys")
    except ValueError as error:  # also no JSON, or not even text
        raise UserError(f"{path} is damaged ({error}): put back a copy, or train in another directory") from error
    _import_plugins(tree, workdir)
    return resolve(tree, changes)


def _import_plugins(tree: dict[str, Any], workdir: AnyPath) -> None:
    """Import the modules that register the model and the task of a `config.json`, unless both are known."""
    modules = tree.pop("plugins", {})
    model = tree.get("model", {}).get("name", ModelChoice.name)
    if model in registry.FAMILIES and tree.get("task", Experiment.task) in tasks.TASKS:
        return
    if not isinstance(modules, dict) or not all(isinstance(value, str) for value in modules.values()):
        raise UserError(f"{workdir / 'config.json'} is damaged (plugins={modules!r}): put back a copy")
    plugins.load(modules, workdir)


def resolve(tree: Mapping[str, Any], changes: Sequence[Change] = ()) -> Experiment:
    """An experiment from plain values, with `changes`."""
    tree = json.loads(json.dumps(tree))
    for path, value in [*_cleared(changes), *changes]:
        *parents, key = path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise UserError(f"config.{path}: {parent} has no keys of its own")
        node[key] = typed.Text(value) if isinstance(value, str) else list(value) if isinstance(value, tuple) else value
    return typed.build(Experiment, tree)


def _cleared(changes: Sequence[Change]) -> list[Change]:
    """The keys that the `changes` replace by others, set to 0. Raises `UserError` if both are given."""
    given = dict(changes)
    for key, other in INSTEAD_OF.items():
        if key in given and str(given.get(other, 0)) not in ("0", "0.0"):
            raise UserError(f"{key}={given[key]} and {other}={given[other]} exclude each other: leave one out")
    return [(other, 0) for key, other in INSTEAD_OF.items() if key in given]
