"""Beginning with the parameters of another run."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import jax

from zoo import interop
from zoo.checkpoints import load_parameters, saved_parameters
from zoo.errors import UserError
from zoo.models.gpt_classifier import begun_with, like_pretrained
from zoo.training.lora import LORA, LoRAConfig, merged
from zoo.training.vocabulary import Transfer, replicated_like

HEAD, MARKERS = "head", "rows of the added tokens"


@dataclass(frozen=True)
class WarmStart:
    """The parameters to begin with, the `step` of the checkpoint at `source` that they come from, and in words which
    parts are `taken`, `fresh` (drawn at random) and `left` in the checkpoint."""

    params: Any
    source: str
    step: int
    taken: tuple[str, ...]
    fresh: tuple[str, ...] = ()
    left: tuple[str, ...] = ()

    def __str__(self) -> str:
        taken, fresh, left = (", ".join(parts) or "nothing" for parts in (self.taken, self.fresh, self.left))
        return f"beginning with step {self.step} of {self.source}: taken: {taken}; fresh: {fresh}; left: {left}"


def taken_over(
    workdir: str | PathLike,
    shapes: Any,
    fresh: Callable[[], Any],
    which: str = "best",
    head: bool = False,
    lora: LoRAConfig = LoRAConfig(),  # noqa: B008 (it is frozen)
    transfer: Transfer | None = None,
) -> WarmStart:
    """The parameters of the checkpoint `which` of `workdir`, with the `shapes` and shardings of those to begin with.

    A classifier takes the body of a language model, or of another classifier, then with the rows of the tokens that
    classifiers add, and with its head if `head`. `fresh` makes what is not taken: adapters among it, while those of the
    donor, made by `lora`, are merged into its matrices. With a `transfer`, rows come from those of another vocabulary.
    Raises `UserError` where names or shapes differ, and for the `head` of a donor that has none.
    """
    if LORA in shapes:
        body = {name: leaf for name, leaf in shapes.items() if name != LORA}
        start = taken_over(workdir, body, fresh, which, head, lora, transfer)
        params = _placed(start.params | {LORA: fresh()[LORA]}, shapes)
        return replace(start, params=params, fresh=(*start.fresh, "adapters"))
    source, foreign = str(workdir), interop.opened(workdir)
    saved = saved_parameters(workdir, which) if foreign is None else {}
    if head and "head" not in saved:
        raise UserError(f"--init_head: {workdir} holds no classifier, so it has no head to take: leave it out")
    if transfer is not None:
        step, params = _read(workdir, which, foreign, transfer.shapes(shapes), saved, lora)
        return WarmStart(_placed(transfer.applied(params), shapes), source, step, (f"all parameters ({transfer})",))
    if "body" not in shapes or head:
        step, params = _read(workdir, which, foreign, shapes, saved, lora)
        return WarmStart(params, source, step, ("all parameters",))
    if "body" in saved:
        step, body = load_parameters(workdir, which, {"body": shapes["body"]}, part=True)
        params = fresh() | body
        return WarmStart(_placed(params, shapes), source, step, ("body", MARKERS), (HEAD,), (HEAD,))
    step, body = _read(workdir, which, foreign, like_pretrained(shapes), saved, lora)
    params = begun_with(fresh(), body)
    return WarmStart(_placed(params, shapes), source, step, ("body",), (MARKERS, HEAD))


def _placed(params: Any, shapes: Any) -> Any:
    return jax.tree.map(lambda leaf, like: jax.device_put(leaf, like.sharding), params, shapes)


def _read(
    workdir: str | PathLike, which: str, foreign: interop.Foreign | None, like: Any, saved: Any, lora: LoRAConfig
) -> tuple[int, Any]:
    """The step and the parameters of a donor, its adapters merged."""
    if foreign is not None:
        return 0, foreign.parameters(like)
    if LORA not in saved:
        return load_parameters(workdir, which, like)
    where = replicated_like(jax.tree.leaves(like)[0].sharding)
    small = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), saved[LORA])
    step, params = load_parameters(workdir, which, like | {LORA: small})
    return step, _placed(merged(params, lora), like)
