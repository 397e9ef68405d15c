"""Beginning with the parameters of another run."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import PyTree

from zoo import interop
from zoo.checkpoints import load_optimizer, load_parameters, saved_parameters
from zoo.errors import UserError, nearest
from zoo.models.gpt_classifier import like_pretrained
from zoo.training.lora import LORA, LoRAConfig, merged
from zoo.training.vocabulary import Transfer, replicated_like

BODY, HEAD, MARKERS = "body/", "head/", "rows of the added tokens"
_TOLD = 12  # parts that a report names before it counts the others


@dataclass(frozen=True)
class Wanted:
    """What to take of the `checkpoint` of a working directory or a foreign folder: of a classifier the head only if
    `head`, and only the parameters in whose path `only`, a regular expression, is found.

    Adapters made by `lora` are merged into their matrices. With a `transfer`, the rows of tables come from those of
    another vocabulary. `optimizer` takes the optimizer's state too.
    """

    path: str | PathLike
    checkpoint: str = "best"
    head: bool = False
    only: str = ""
    optimizer: bool = False
    lora: LoRAConfig = field(default_factory=LoRAConfig)
    transfer: Transfer | None = None


@dataclass(frozen=True)
class WarmStart:
    """The parameters to begin with, the `step` of the checkpoint at `source` that they come from, and in words which
    parts are `taken`, `fresh` (drawn at random) and `left` in the checkpoint. `notes` say what else is to be known."""

    params: PyTree
    source: str
    step: int
    taken: tuple[str, ...]
    fresh: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        taken, fresh, left = (", ".join(parts) or "nothing" for parts in (self.taken, self.fresh, self.left))
        told = f"beginning with step {self.step} of {self.source}: taken: {taken}; fresh: {fresh}; left: {left}"
        return "; ".join((told, *self.notes))


def taken_over(wanted: Wanted, shapes: PyTree, fresh: Callable[[], PyTree]) -> WarmStart:
    """The parameters that a run begins with, with the `shapes` and shardings of its own.

    A classifier takes the body of a language model, or of another classifier, then with the rows of the tokens that
    classifiers add. `fresh` makes what is not taken: the adapters of LoRA are always new. Raises `UserError` where
    names or shapes differ from the donor's, for the head of a donor that has none, and where nothing is chosen.
    """
    donor = _Donor(wanted)
    if wanted.head and not donor.classifier:
        raise UserError(f"--init_head: {wanted.path} holds no classifier, so it has no head to take: leave it out")
    flat = flatten_dict(shapes, sep="/")
    own = {path: leaf for path, leaf in flat.items() if not path.startswith(f"{LORA}/")}
    # A language model is the body of the classifier that it becomes, without the rows of the added tokens.
    grows = "body" in shapes and not donor.classifier
    prefix = BODY if grows else ""
    body = flatten_dict({"body": like_pretrained(shapes)}, sep="/") if grows else {}

    def is_taken(path: str) -> bool:
        new = "body" in shapes and path.startswith(HEAD) and not wanted.head
        return not new and re.search(wanted.only, path) is not None

    chosen = {path: body.get(path, leaf) for path, leaf in own.items() if is_taken(path)}
    if not chosen:
        known = {"/".join(path.split("/")[:depth]) for path in own for depth in (1, 2)}
        raise UserError(f"--init_only: no parameter's path has {wanted.only!r} in it: {nearest(wanted.only, known)}")
    there = wanted.transfer.shapes(chosen) if wanted.transfer else chosen
    like = {path.removeprefix(prefix): leaf for path, leaf in there.items()}
    step, found = donor.read(like, lambda path: is_taken(prefix + path))
    found = {prefix + path: leaf for path, leaf in found.items()}
    found = wanted.transfer.applied(found) if wanted.transfer else found
    added = any(chosen[path].shape != own[path].shape for path in chosen)
    params = found if len(found) == len(flat) and not added else _completed(flatten_dict(fresh(), sep="/"), found)
    new = [*_parts(own.keys() - chosen.keys(), own), *[MARKERS] * added, *["adapters"] * (LORA in shapes)]
    return WarmStart(
        unflatten_dict({path: jax.device_put(leaf, flat[path].sharding) for path, leaf in params.items()}, sep="/"),
        str(wanted.path),
        step,
        ("all parameters",) if len(chosen) == len(own) else tuple(_parts(chosen, own)),
        tuple(new),
        tuple(donor.left(like)),
        (str(wanted.transfer),) if wanted.transfer else (),
    )


def optimizer_of(start: WarmStart, wanted: Wanted, like: PyTree) -> PyTree:
    """The state of the donor's optimizer, with the structure, shapes and shardings of `like`, where its schedule begins
    anew: moments go on, and the learning rate is that of a first step.

    Raises `UserError` where the donor has no such state, or `start` has parameters that the donor does not have.
    """
    if interop.opened(wanted.path) is not None:
        raise UserError(f"--init_optimizer: {wanted.path} holds no state of an optimizer: leave it out")
    if start.fresh:
        raise UserError(
            f"--init_optimizer: the donor's optimizer knows nothing of what begins at random here, "
            f"{', '.join(start.fresh)}: leave it out"
        )
    state = load_optimizer(wanted.path, wanted.checkpoint, like)

    def anew(part: Any) -> Any:
        return part._replace(count=jnp.zeros_like(part.count)) if _is_schedule(part) else part

    return jax.tree.map(anew, state, is_leaf=_is_schedule)


def _is_schedule(part: Any) -> bool:
    return isinstance(part, optax.ScaleByScheduleState)


class _Donor:
    """The parameters that there are to take, by their paths."""

    def __init__(self, wanted: Wanted):
        self.wanted, self.foreign = wanted, interop.opened(wanted.path)
        self.saved = {} if self.foreign else saved_parameters(wanted.path, wanted.checkpoint)
        self.classifier = "body" in self.saved

    def read(self, like: Mapping[str, Any], only: Callable[[str], bool]) -> tuple[int, dict[str, Any]]:
        """The step, and the parameters with the paths, shapes and shardings of `like`, all for whose path `only` is
        true; adapters are merged."""
        wanted, tree = self.wanted, unflatten_dict(like, sep="/")
        if self.foreign is not None:
            return 0, flatten_dict(self.foreign.parameters(tree, part=bool(wanted.only)), sep="/")
        if LORA not in self.saved:
            step, params = load_parameters(wanted.path, wanted.checkpoint, tree, only)
            return step, flatten_dict(params, sep="/")
        where = replicated_like(next(iter(like.values())).sharding)
        adapters = {
            path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)
            for path, leaf in flatten_dict({LORA: self.saved[LORA]}, sep="/").items()
            if only(_adapted(path))
        }
        tree = unflatten_dict({**like, **adapters}, sep="/")
        step, params = load_parameters(wanted.path, wanted.checkpoint, tree, lambda path: only(_adapted(path)))
        return step, flatten_dict(merged(params, wanted.lora), sep="/")

    def left(self, taken: Mapping[str, Any]) -> list[str]:
        """In words, the parts that are not among the `taken`: of a foreign folder by its own names."""
        if self.foreign is not None:
            unread = self.foreign.unread(unflatten_dict(taken, sep="/")) if self.wanted.only else []
            return [f"{len(unread)} weights ({unread[0]}, ...)"] if unread else []
        there = {path for path in flatten_dict(self.saved, sep="/") if not path.startswith(f"{LORA}/")}
        return _parts(there - taken.keys(), there)


def _adapted(path: str) -> str:
    """The path of the matrix that an adapter belongs to; any other path as it is."""
    return path.removeprefix(f"{LORA}/").rpartition("/")[0] if path.startswith(f"{LORA}/") else path


def _completed(fresh: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """The `fresh` parameters with those that were `found`, behind which a table keeps its own last rows."""

    def whole(path: str, leaf: Any) -> Any:
        added = fresh[path].shape[0] - leaf.shape[0]
        return jnp.concatenate([jnp.asarray(leaf), fresh[path][-added:]]) if added else leaf

    return {**fresh, **{path: whole(path, leaf) for path, leaf in found.items()}}


def _parts(some: Collection[str], every: Iterable[str]) -> list[str]:
    """The names of `some` paths of `every`: of each, the shortest beginning that no other path has."""
    others, found = [path for path in every if path not in some], {}
    for path in sorted(some):
        names = path.split("/")
        beginnings = ("/".join(names[:depth]) for depth in range(1, len(names) + 1))
        found[next(b for b in beginnings if not any(f"{other}/".startswith(f"{b}/") for other in others))] = None
    parts = list(found)
    return parts if len(parts) <= _TOLD else [*parts[:_TOLD], f"{len(parts) - _TOLD} more"]
