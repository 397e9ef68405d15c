"""The law of the whole: a tiny Transformer learns to copy, to reverse and to sort, by the zoo's own step and search."""

import numpy as np
import optax
import pytest

from zoo.data.batches.buckets import padded
from zoo.decoding.beam import BeamConfig, Request, beam_search
from zoo.models.transformer import Transformer, TransformerConfig
from zoo.training.arrays import ArrayTraining

FIRST_DIGIT, LONGEST, ROWS, STEPS = 4, 6, 96, 400
MODEL = Transformer(
    TransformerConfig(14, 14, layers=1, width=64, ffn=128, heads=4, dropout=0.0, norm="pre", scan_layers=False)
)
TASKS = {"copy": lambda x: x, "reverse": lambda x: x[::-1], "sort": np.sort}


def strings(task, count, seed):
    """Random digit strings and their answers."""
    random = np.random.default_rng(seed)
    drawn = [random.integers(FIRST_DIGIT, 14, size).astype(np.int32) for size in random.integers(2, LONGEST + 1, count)]
    return [(x, TASKS[task](x)) for x in drawn]


@pytest.fixture(scope="module")
def training():
    """The one compiled step of all tasks."""
    return ArrayTraining(MODEL, optax.adam(optax.cosine_onecycle_schedule(STEPS, 5e-3)))


@pytest.mark.parametrize(
    "task", ["copy", *(pytest.param(task, marks=pytest.mark.slow) for task in ("reverse", "sort"))]
)
def test_a_tiny_transformer_learns(training, task):
    training.state = training.fresh()
    for i in range(STEPS):
        training.update(padded(strings(task, ROWS, (1, i)), ROWS, LONGEST + 1))

    seen = {x.tobytes() for i in range(STEPS) for x, _ in strings(task, ROWS, (1, i))}
    unseen = [pair for pair in strings(task, 400, 2) if pair[0].tobytes() not in seen]
    batch = padded(unseen[:200], 200, LONGEST + 1)
    request = Request(batch.source, np.full(200, LONGEST + 2), LONGEST + 3)
    found = beam_search(MODEL, training.state.params, request, BeamConfig(beam_size=4))
    exact = (np.asarray(found.tokens)[:, 0, : LONGEST + 1] == batch.labels).all(axis=1)
    assert exact.mean() >= 0.95
