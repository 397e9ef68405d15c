"""Optimizers and schedules by name, from optax, with the papers' settings."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import jax.numpy as jnp
import optax

from zoo.errors import UserError, check_choice, nearest
from zoo.training.matrices import by_matrix, matrices
from zoo.training.multipliers import Factors, Multiplier, multiplied


@dataclass(frozen=True)
class OptimizerConfig:
    """`clip` bounds the global norm of the gradient (0: no bound); `decay` is decoupled and for matrices only.

    `per` says of what the gradient is a mean before it is clipped: of the objective of each `token`, or, as in the
    papers of 2014, of that of each `sentence`, summed over its tokens.

    `warmup` counts steps; with `warmup_share` it is that share of all steps instead, 0.002 of them say.

    `multipliers` such as `body/embedding=0` change the learning rate of parameters by their path: the first pattern (a
    regular expression) that is found in a path holds, and at 0 a parameter stays as it is and has no optimizer state.
    `body/layers[0:6]=0` means these layers of a stack, and `markers` the rows that a classifier adds to its embedding.
    `layer_decay` lets the rates of layers fall with depth: times it once for the highest, once more for each below.

    `peak` is the highest learning rate. `noam` ignores it unless it is set: its own peak is `(E · warmup)^-½`.
    """

    name: str = "adam"
    peak: float = 0.0
    schedule: str = "noam"
    warmup: int = 4000
    warmup_share: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-9
    decay: float = 0.0
    momentum: float = 0.0
    rho: float = 0.95
    clip: float = 0.0
    per: str = "token"
    halve_after: int = 0
    halve_every: int = 0
    ema: float = 0.0
    multipliers: tuple[str, ...] = ()
    layer_decay: float = 1.0

    def __post_init__(self):
        for key, known in (("name", OPTIMIZERS), ("schedule", SCHEDULES)):
            value = getattr(self, key)
            if value not in known:
                raise UserError(f"optimizer.{key}={value!r} is unknown: {nearest(value, known)}")
        check_choice("optimizer.per", self.per, COUNTS)
        if self.schedule != "noam" and self.peak <= 0:
            raise UserError(
                f"optimizer.peak={self.peak:g}: the schedule {self.schedule!r} needs a learning rate above 0"
            )
        for key in ("peak", "warmup", "decay", "momentum", "clip", "halve_after", "halve_every"):
            if getattr(self, key) < 0:
                raise UserError(f"optimizer.{key}={getattr(self, key):g} is below 0")
        for key, reader in (("decay", "adam"), ("momentum", "sgd")):
            if getattr(self, key) and self.name != reader:
                value = getattr(self, key)
                raise UserError(f"optimizer.{key}={value:g} is only for {reader!r}: leave it at 0 for {self.name!r}")
        for key in ("halve_after", "halve_every"):
            if getattr(self, key) and self.schedule != "halving":
                raise UserError(
                    f"optimizer.{key}={getattr(self, key)} is read by the schedule 'halving' alone: leave it at 0 for "
                    f"{self.schedule!r}"
                )
        if self.schedule == "halving" and self.halve_every < 1:
            raise UserError("optimizer.halve_every=0: the schedule 'halving' needs the steps between two halvings")
        if not 0 <= self.warmup_share < 1:
            raise UserError(f"optimizer.warmup_share={self.warmup_share:g}: a share of the steps lies in [0, 1)")
        for text in self.multipliers:
            Multiplier.of(text)
        if not 0 < self.layer_decay <= 1:
            raise UserError(f"optimizer.layer_decay={self.layer_decay:g}: a factor lies in (0, 1]")
        if not 0 <= self.ema < 1:
            raise UserError(f"optimizer.ema={self.ema:g}: the decay of the moving average lies in [0, 1)")


def noam(c: OptimizerConfig, width: int, steps: int) -> optax.Schedule:
    """Vaswani et al. 2017, eq. 3: `E^-½ · min(s^-½, s · warmup^-3/2)`, or scaled to reach `peak` where one is given.

    Linear over `warmup` steps, then with the inverse square root; the first update has `s = 1`.
    """
    warmup = max(c.warmup, 1)
    peak = c.peak or (width * warmup) ** -0.5

    def rate(count):
        s = (count + 1.0) / warmup
        return peak * jnp.minimum(s**-0.5, s)

    return rate


def _rise(c: OptimizerConfig, count: Any) -> Any:
    """The share of the peak during the linear warm-up. The first update has `1 / warmup`, since a rate of 0 would waste
    it."""
    return jnp.minimum((count + 1.0) / max(c.warmup, 1), 1.0)


def _decayed(c: OptimizerConfig, count: Any, steps: int) -> Any:
    """The share of the steps after the warm-up that are done."""
    return jnp.clip((count - c.warmup) / max(steps - c.warmup, 1), 0.0, 1.0)


def constant(c: OptimizerConfig, width: int, steps: int) -> optax.Schedule:
    """Linear to `peak`, then `peak`."""
    return lambda count: c.peak * _rise(c, count)


def cosine(c: OptimizerConfig, width: int, steps: int) -> optax.Schedule:
    """Linear to `peak`, then a half cosine to 0 at the last step (Radford et al. 2018, section 4.1)."""
    return lambda count: c.peak * _rise(c, count) * 0.5 * (1 + jnp.cos(jnp.pi * _decayed(c, count, steps)))


def linear(c: OptimizerConfig, width: int, steps: int) -> optax.Schedule:
    """Linear to `peak`, then linear to 0 at the last step (Radford et al. 2018, section 4.1, fine-tuning)."""
    return lambda count: c.peak * _rise(c, count) * (1 - _decayed(c, count, steps))


def halving(c: OptimizerConfig, width: int, steps: int) -> optax.Schedule:
    """`peak`, halved after `halve_after` steps and each `halve_every` from then on (Sutskever et al. 2014, 3.4).

    The paper has no warm-up. With `warmup`, the first steps rise linearly to `peak`.
    """
    return lambda count: c.peak * _rise(c, count) * 0.5 ** _halvings(c, count)


def _halvings(c: OptimizerConfig, count: Any) -> Any:
    return jnp.maximum(0, (count - c.halve_after) // c.halve_every + 1)


COUNTS = {"token": attrgetter("tokens"), "sentence": attrgetter("sentences")}  # of the sums of a batch
SCHEDULES = {f.__name__: f for f in (noam, constant, cosine, linear, halving)}


OPTIMIZERS = {
    "adam": lambda c, rate: optax.chain(
        optax.scale_by_adam(c.beta1, c.beta2, c.epsilon),
        optax.add_decayed_weights(c.decay, matrices) if c.decay else optax.identity(),
        optax.scale_by_learning_rate(rate),
    ),
    "sgd": lambda c, rate: optax.sgd(rate, c.momentum or None),
    "adadelta": lambda c, rate: optax.adadelta(rate, c.rho, c.epsilon),
    "adafactor": lambda c, rate: by_matrix(optax.adafactor(rate)),
}


def schedule(c: OptimizerConfig, width: int, steps: int) -> optax.Schedule:
    """The learning rate of the update after `count` others. `width` is the model's E, `steps` the length of the run."""
    if c.warmup_share:
        c = replace(c, warmup=math.ceil(c.warmup_share * steps), warmup_share=0.0)
    return SCHEDULES[c.schedule](c, width, steps)


def optimizer(
    c: OptimizerConfig, width: int, steps: int, added: Mapping[str, int] | None = None
) -> optax.GradientTransformation:
    """The whole update: clip, then the rule of `c.name` at the rate of `c.schedule`, times the `c.multipliers`, which
    see the `added` rows of a table on their own (`zoo.training.multipliers`).

    Its `init` raises `UserError` for a multiplier that no parameter is changed by.
    """
    clip = optax.clip_by_global_norm(c.clip) if c.clip else optax.identity()
    rule = optax.chain(clip, OPTIMIZERS[c.name](c, schedule(c, width, steps)))
    if not c.multipliers and c.layer_decay == 1:
        return rule
    return multiplied(rule, Factors([Multiplier.of(text) for text in c.multipliers], c.layer_decay, added))


def trained_paths(
    c: OptimizerConfig, shapes: Mapping[str, tuple[int, ...]], added: Mapping[str, int] | None = None
) -> frozenset[str]:
    """The paths of the parameters, among these `shapes`, that change at all: the others need no gradient."""
    factors = Factors([Multiplier.of(text) for text in c.multipliers], c.layer_decay, added).of(shapes)
    return frozenset(path for path, factor in factors.items() if factor.any())
