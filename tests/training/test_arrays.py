"""Training on arrays needs a model, an optimizer and a loss, and nothing that only data needs."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

from zoo.data.batches.base import LanguageBatch
from zoo.models import build
from zoo.training.arrays import ArrayTraining

IDS = np.random.default_rng(0).integers(4, 12, (4, 6), np.int32)
SMALL = {"layers": 1, "width": 8, "heads": 2, "ffn": 16, "dropout": 0.0}


def test_a_batch_of_arrays_is_learnt():
    model = build("gpt", "nano", vocabulary=12, attention_dropout=0.0, **SMALL)
    batch = LanguageBatch(IDS[:, :-1], IDS[:, 1:])
    training = ArrayTraining(model, optax.adam(1e-2))
    losses = [float(training.update(batch)["sums"].loss) for _ in range(20)]
    assert losses[-1] < 0.8 * losses[0]
    assert training.parameters == sum(x.size for x in jax.tree.leaves(training.state.params))
    on_device = jax.tree.map(jnp.asarray, batch)
    assert float(training.update(on_device)["sums"].tokens) == batch.labels.size


def test_several_updates_in_one_call_are_the_same_updates():
    model = build("gpt", "nano", vocabulary=12, **(SMALL | {"dropout": 0.1}))
    one, other = (ArrayTraining(model, optax.adam(1e-2)) for _ in range(2))
    batches = [LanguageBatch(ids[:, :-1], ids[:, 1:]) for ids in (IDS, IDS[::-1], IDS)]
    losses = [float(one.update(batch)["sums"].loss) for batch in batches]
    assert other.updates(batches)["sums"].loss.tolist() == losses
    jax.tree.map(np.testing.assert_array_equal, one.state.params, other.state.params)


def test_a_model_and_a_step_import_nothing_that_only_data_needs():
    code = "import sys, zoo.training.arrays; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"babel", "grain", "tensorflow_datasets", "array_record", "sacrebleu", "orbax", "matplotlib"}
    assert not (heavy | {"sentencepiece", "tokenizers", "ftfy"}) & set(loaded)
