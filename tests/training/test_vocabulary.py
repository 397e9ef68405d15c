"""Rows of another vocabulary begin as what the old one had for them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY
from flax import linen as nn
from flax.traverse_util import flatten_dict

from zoo.cli import main
from zoo.data.tokenizers import Characters, WordVocabulary
from zoo.models import registry
from zoo.training.vocabulary import Transfer, matched
from zoo.workdirs import load

OLD, NEW = WordVocabulary(["cat", "dog", "and"]), WordVocabulary(["dog", "horse", "cat"])


def test_a_piece_that_both_have_keeps_its_row_and_another_is_the_mean():
    found = matched(OLD, NEW)
    table = np.arange(14.0, dtype=np.float32).reshape(7, 2)
    new = found.applied(table, 0)
    assert (found.kept, found.composed, found.mean) == (6, 0, 1)
    assert (new[:4] == table[:4]).all() and (new[4] == table[5]).all() and (new[6] == table[4]).all()
    assert (new[5] == table.mean(axis=0)).all()
    assert (found.applied(table.T, 1) == new.T).all()


def test_a_new_piece_is_composed_of_the_old_ones_that_spell_it():
    found = matched(Characters("abc"), WordVocabulary(["cab", "xyz"]))
    assert found.old[4:] == ((6, 4, 5), ()) and (found.composed, found.mean) == (1, 1)


@pytest.mark.parametrize("name", ["transformer", "rnnsearch"])
def test_every_table_of_every_model_goes_along(name):
    size = next(iter(registry.family(name).sizes))

    def boxed(tokenizer):
        sizes = {"source_vocabulary": tokenizer.size, "target_vocabulary": tokenizer.size}
        return registry.boxed_shapes(registry.config(name, size, **sizes))

    smaller = WordVocabulary(["cat"])
    transfer = Transfer.of({"joint": OLD}, {"joint": smaller}, boxed(smaller))
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])

    def shapes(tree):
        flat = flatten_dict(nn.unbox(tree), sep="/")
        return {path: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place) for path, x in flat.items()}

    old, new = shapes(boxed(OLD)), shapes(boxed(smaller))
    assert jax.tree.map(jnp.shape, transfer.shapes(new)) == jax.tree.map(jnp.shape, old)
    made = transfer.applied({path: np.zeros(leaf.shape, leaf.dtype) for path, leaf in old.items()})
    assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, new)


@pytest.mark.slow
def test_a_run_with_a_vocabulary_of_its_own_begins_with_the_rows_that_it_shares(
    workdir, pairs_in_files, tmp_path, capsys
):
    changes = TINY | {f"data.{split}": str(pairs_in_files) for split in ("train", "valid")} | {"data.test": ""}
    changes |= {"data.vocabulary": "36", "train.steps": "1", "optimizer.peak": "1e-12"}
    words = [f"--config.{key}={value}" for key, value in changes.items()]
    out = tmp_path / "run"
    assert main(["train", f"--workdir={out}", f"--init_from={workdir}", "--new_vocabulary", *words]) == 0
    assert "of 36 pieces kept" in capsys.readouterr().err
    before, after = load(workdir), load(out, "latest")
    old, new = before.task.tokenizers[0], after.task.tokenizers[0]
    assert new.size == 36 and old.size == 40
    rows = {old.piece(i): i for i in range(old.size)}
    tables = [np.asarray(run.params["target_embedding"]["table"]) for run in (before, after)]
    shared = [(rows[new.piece(i)], i) for i in range(new.size) if new.piece(i) in rows]
    assert len(shared) > 20
    for there, here in shared:
        np.testing.assert_allclose(tables[0][there], tables[1][here], atol=1e-6)
