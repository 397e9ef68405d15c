"""LoRA: Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models".

A matrix W of the pretrained model is frozen, and the model computes with W + (α/r) A B: A maps the inputs to r numbers,
and B, initially zero, maps these to the outputs (section 4.1). Only A and B are trained, and have moments.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, PyTree

from zoo.errors import UserError

LORA = "lora"  # the subtree of the parameters that holds A and B, below the paths of their matrices
FROZEN = rf"^(?!{LORA}/|head/|markers)"  # all but the adapters, a classifier's head and the rows of its tokens


@dataclass(frozen=True)
class LoRAConfig:
    """Adapters of `rank` r (0: none) and scale `alpha` for the matrices whose path has a match of `targets`. `dropout`
    applies to the inputs of A, with the same mask for all tokens of a step, since the sum of matrices is formed before
    any input is seen."""

    rank: int = 0
    alpha: float = 16.0
    targets: str = "(query|value)/kernel"
    dropout: float = 0.0

    def __post_init__(self):
        if self.rank < 0:
            raise UserError(f"lora.rank={self.rank}: use at least 1, or 0 for none")
        if not 0 <= self.dropout < 1:
            raise UserError(f"lora.dropout={self.dropout}: a probability to drop lies in [0, 1)")
        try:
            re.compile(self.targets)
        except re.error as error:
            raise UserError(f"lora.targets={self.targets!r} is no regular expression: {error}") from error

    @property
    def multipliers(self) -> tuple[str, ...]:
        """The multipliers that freeze the pretrained parameters; they follow the user's own `optimizer.multipliers`."""
        return (f"{FROZEN}=0",) if self.rank else ()


@dataclass(frozen=True)
class Adapted:
    """A model with adapters, for training."""

    model: nn.Module
    lora: LoRAConfig

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def added_rows(self) -> Any:
        """The rows that the model adds to a table of its donor, see `zoo.training.multipliers`."""
        return getattr(self.model, "added_rows", None)

    def init(self, key: Array, *args: Any) -> PyTree:
        """The model's parameters, with the adapters under `lora`. Raises UserError if `targets` match nothing."""
        params = self.model.init(key, *args)["params"]
        return {"params": params | {LORA: adapters(params, self.lora, jax.random.fold_in(key, 1))}}

    def apply(self, variables: PyTree, *args: Any, rngs: Any = None, **options: Any) -> Any:
        key = rngs["dropout"] if rngs and self.lora.dropout else None
        return self.model.apply({"params": merged(variables["params"], self.lora, key)}, *args, rngs=rngs, **options)


def adapted(model: nn.Module, lora: LoRAConfig) -> Any:
    """The model with adapters, or unchanged for rank 0."""
    return Adapted(model, lora) if lora.rank else model


def unadapted(model: Any, params: PyTree) -> tuple[nn.Module, PyTree]:
    """A model without its adapters, and the parameters with which it is the same function."""
    return (model.model, merged(params, model.lora)) if isinstance(model, Adapted) else (model, params)


def adapters(params: PyTree, lora: LoRAConfig, key: Array) -> PyTree:
    """A ~ N(0, 1/inputs) and B = 0 for every target."""
    flat = flatten_dict(nn.unbox(params), sep="/")
    made = {}
    for i, (path, leaf) in enumerate(sorted(flat.items())):
        if re.search(lora.targets, path) and (split := _split(path, leaf.shape)):
            layers, inputs, outputs = split
            down = jax.random.normal(jax.random.fold_in(key, i), (*layers, inputs, lora.rank)) * inputs**-0.5
            made |= {f"{path}/down": down, f"{path}/up": jnp.zeros((*layers, lora.rank, outputs))}
    if not made:
        known = sorted({path.rsplit("/", 2)[-2] for path in flat if path.endswith("kernel")})
        raise UserError(f"lora.targets={lora.targets!r} is in no matrix's path: name some of {', '.join(known)}")
    return unflatten_dict(made, sep="/")


def _split(path: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int, int] | None:
    """The axis of a scanned stack, and the sizes of a kernel as a matrix, split so that both are most similar."""
    layers = shape[:1] if "/layers/" in path else ()
    own = shape[len(layers) :]
    if len(own) < 2:
        return None
    sizes = [(math.prod(own[:i]), math.prod(own[i:])) for i in range(1, len(own))]
    return layers, *min(sizes, key=lambda size: abs(math.log(size[0] / size[1])))


def merged(params: PyTree, lora: LoRAConfig, key: Array | None = None) -> PyTree:
    """The parameters of the model itself: W + (α/r) A B if there is an adapter; with a `key`, with dropout on A."""
    flat = flatten_dict(params, sep="/")
    base = {path: leaf for path, leaf in flat.items() if not path.startswith(f"{LORA}/")}
    for i, path in enumerate(sorted(base)):
        down = flat.get(f"{LORA}/{path}/down")
        if down is not None:
            if key is not None:
                kept = jax.random.bernoulli(jax.random.fold_in(key, i), 1 - lora.dropout, down.shape[:-1])
                down = down * kept[..., None] / (1 - lora.dropout)
            base[path] = base[path] + _product(down, flat[f"{LORA}/{path}/up"], lora).reshape(base[path].shape)
    return unflatten_dict(base, sep="/")


def _product(down: Float[Array, "*L I r"], up: Float[Array, "*L r O"], lora: LoRAConfig) -> Float[Array, "*L I O"]:
    return (lora.alpha / lora.rank) * jnp.matmul(down, up)
