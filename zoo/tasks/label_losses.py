"""The losses of labelled examples, as sums over examples: Radford et al. 2018, section 3.2."""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from zoo.data.batches.base import LabelledBatch
from zoo.data.specials import NOTHING
from zoo.models.gpt_classifier import ClassifierOutput
from zoo.tasks.losses import cross_entropy


@struct.dataclass
class LabelSums:
    """What a batch adds up to: the `objective` that is minimized; the `loss` of the labels, in nats or squared errors;
    labels said right (`None` in a regression); the cross-entropy `text_loss` of the auxiliary language model, in nats;
    the tokens that it predicts; and the examples. The first three are divided by the number of `sentences`, as the
    examples are called wherever losses are summed, and `text_loss` by that of `tokens`."""

    objective: Float[Array, ""]
    loss: Float[Array, ""]
    correct: Float[Array, ""] | None
    text_loss: Float[Array, ""]
    tokens: Float[Array, ""]
    sentences: Float[Array, ""]

    def __add__(self, other: "LabelSums") -> "LabelSums":
        return jax.tree.map(jnp.add, self, other)

    def means(self) -> dict[str, float]:
        """Loss and accuracy of an example, and the loss of a token of its text in nats."""
        examples, tokens = (max(float(count), 1.0) for count in (self.sentences, self.tokens))
        right = {} if self.correct is None else {"accuracy": float(self.correct) / examples}
        return {"loss": float(self.loss) / examples, **right, "text_loss": float(self.text_loss) / tokens}


@jax.named_scope("loss")
def fine_tuning_loss(
    output: ClassifierOutput, batch: LabelledBatch, regression: bool, smoothing: float = 0.0, auxiliary: float = 0.0
) -> LabelSums:
    """Section 3.2, eq. 5: L3 = L2 + λ L1, with λ = `auxiliary`.

    L2 is the cross-entropy of the label (eq. 4) or, in a regression, which the paper does not write down, the squared
    error. L1 is that of each token of the example's sequences, delimiter and extract among them. Eq. 1 sums it over the
    tokens; the paper's λ = 0.5 belongs to the mean over those of an example, which its authors' code takes and which is
    taken here. So either is one number an example, and sums over examples are exact however a batch is cut.
    """
    weight = jnp.asarray(batch.labelled).astype(jnp.float32)
    objective, loss, correct = (
        _squared_error(output.scores, jnp.asarray(batch.targets))
        if regression
        else _label_loss(output.scores, jnp.asarray(batch.targets), smoothing)
    )
    objective, loss = (objective * weight).sum(), (loss * weight).sum()
    labels = jnp.asarray(batch.labels)
    tokens = ((labels != NOTHING) * weight[:, None, None, None]).sum()
    right = None if correct is None else (correct * weight).sum()
    sums = LabelSums(objective, loss, right, jnp.zeros(()), tokens, weight.sum())
    if not auxiliary:
        return sums
    _, answers, orders, length = labels.shape
    rows = jnp.where(batch.labelled[:, None, None, None], labels, NOTHING).reshape(-1, length)
    of_rows = jnp.repeat(weight / (answers * orders), answers * orders) / jnp.maximum((rows != NOTHING).sum(1), 1)
    text = cross_entropy(output.readout, rows, padding=NOTHING, weights=of_rows)
    return sums.replace(objective=objective + auxiliary * text.objective, text_loss=text.loss)


Losses = tuple[Float[Array, "B"], Float[Array, "B"], Float[Array, "B"] | None]  # objective, loss, right or not


def _label_loss(scores: Float[Array, "B C"], targets: Array, smoothing: float) -> Losses:
    """Eq. 4; smoothed as `zoo.tasks.losses.cross_entropy` is."""
    logs = jax.nn.log_softmax(scores)
    loss = -jnp.take_along_axis(logs, targets[:, None], axis=1)[:, 0]
    objective = (1 - smoothing) * loss - smoothing * logs.mean(axis=1) if smoothing else loss
    return objective, loss, (scores.argmax(axis=1) == targets).astype(jnp.float32)


def _squared_error(scores: Float[Array, "B C"], targets: Array) -> Losses:
    error = (scores[:, 0] - targets) ** 2
    return error, error, None
