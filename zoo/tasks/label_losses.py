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
    """Sums over a batch: the `objective` to minimize; the `loss` of the labels, in nats or squared errors; the number
    of `correct` labels (`None` in a regression); the cross-entropy `text_loss` of the auxiliary language model, in
    nats; the number of tokens it predicts; and the number of examples, `sentences`. In the end the first three are
    divided by `sentences`, and `text_loss` by `tokens`."""

    objective: Float[Array, ""]
    loss: Float[Array, ""]
    correct: Float[Array, ""] | None
    text_loss: Float[Array, ""]
    tokens: Float[Array, ""]
    sentences: Float[Array, ""]

    def __add__(self, other: "LabelSums") -> "LabelSums":
        return jax.tree.map(jnp.add, self, other)

    def means(self) -> dict[str, float]:
        """Mean loss and accuracy per example, and the mean loss per token of the texts, in nats."""
        examples, tokens = (max(float(count), 1.0) for count in (self.sentences, self.tokens))
        right = {} if self.correct is None else {"accuracy": float(self.correct) / examples}
        return {"loss": float(self.loss) / examples, **right, "text_loss": float(self.text_loss) / tokens}


@jax.named_scope("loss")
def fine_tuning_loss(
    output: ClassifierOutput, batch: LabelledBatch, regression: bool, smoothing: float = 0.0, auxiliary: float = 0.0
) -> LabelSums:
    """Section 3.2, eq. 5: L3 = L2 + λ L1, with λ = `auxiliary`.

    L2 is the cross-entropy of the label (eq. 4); in a regression, for which the paper gives no formula, the squared
    error. L1 is the cross-entropy of the tokens of the example's sequences, with delimiter and extract. Eq. 1 sums it
    over the tokens, but the paper's λ = 0.5 belongs to the mean over an example's tokens, as in the authors' code and
    here. Both are one number per example, so sums over examples are exact however a batch is split.
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
    """Eq. 4, with label smoothing as in `zoo.tasks.losses.cross_entropy`."""
    logs = jax.nn.log_softmax(scores)
    loss = -jnp.take_along_axis(logs, targets[:, None], axis=1)[:, 0]
    objective = (1 - smoothing) * loss - smoothing * logs.mean(axis=1) if smoothing else loss
    return objective, loss, (scores.argmax(axis=1) == targets).astype(jnp.float32)


def _squared_error(scores: Float[Array, "B C"], targets: Array) -> Losses:
    error = (scores[:, 0] - targets) ** 2
    return error, error, None
