"""Pictures of what a model has learned: heads, embeddings, positions, and losses by size."""

import shutil

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest

import zoo
from zoo.cli import main
from zoo.errors import UserError
from zoo.models import registry, vectors
from zoo.nn.positions import sinusoids
from zoo.plotting.entropy import entropy
from zoo.plotting.vectors import nearest


def test_the_entropy_of_a_head_is_0_for_one_key_and_the_logarithm_of_their_number_for_all_alike():
    looks_at_one = np.eye(8)
    looks_everywhere = np.full((8, 8), 1 / 8)
    bits = entropy(np.stack([looks_at_one, looks_everywhere])[:, None])
    np.testing.assert_allclose(bits, [[0], [3]], atol=1e-12)


def test_neighbours_are_the_rows_of_the_largest_cosine_and_lengths_do_not_matter():
    table = np.array([[1.0, 0], [2, 0.2], [0, 5], [-3, 0]])
    assert [row for row, _ in nearest(table, table[0], 2, [0])] == [1, 2]
    assert [row for row, _ in nearest(10 * table, table[0] / 7, 9)] == [0, 1, 2, 3]


def test_the_vectors_of_positions_are_those_that_the_model_adds():
    transformer = registry.config("transformer", "tiny", width=8, heads=2)
    np.testing.assert_array_equal(vectors.positions(transformer, {}, 5), sinusoids(jnp.arange(5), 8))
    learned = np.arange(12.0).reshape(6, 2)
    gpt = registry.config("gpt", "nano", width=8, heads=2)
    for params in ({"positions": {"table": learned}}, {"body": {"positions": {"table": learned}}}):
        np.testing.assert_array_equal(vectors.positions(gpt, params, 5), learned[:5])


def test_a_recurrent_model_has_no_positions():
    with pytest.raises(UserError, match="no vectors for positions"):
        vectors.positions(registry.config("cho", "tiny"), {}, 5)


@pytest.mark.parametrize(
    "words",
    [["--positions"], ["--neighbours", "in", "days"], ["--text", "in 3 days", "--entropy"]],
    ids=lambda words: " ".join(words),
)
def test_plot_draws_what_a_model_has_learned(workdir, tmp_path, capsys, words):
    out = tmp_path / "picture.png"
    assert main(["plot", str(workdir), *words, f"--out={out}"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert matplotlib.image.imread(out).std() > 0


def test_models_are_drawn_by_their_size(workdir, tmp_path, monkeypatch):
    other = tmp_path / "other"
    shutil.copytree(workdir, other)
    drawn = {}
    monkeypatch.setattr("zoo.plotting.sizes.draw_by_size", lambda runs, path: drawn.update(runs))
    assert main(["plot", str(workdir), str(other), "--by-size", f"--out={tmp_path / 'a.png'}"]) == 0
    count = sum(leaf.size for leaf in jax.tree.leaves(zoo.load(workdir).params))
    assert [parameters for parameters, _ in drawn.values()] == [count, count]
    (other / "metrics.jsonl").write_text('{"step": 1, "train/loss": 3.0}\n')
    assert main(["plot", str(other), "--by-size"]) == 2


def test_a_picture_that_needs_more_says_what(workdir, capsys):
    assert main(["plot", str(workdir), "--entropy"]) == 2
    assert "add --text" in capsys.readouterr().err
    assert main(["plot", str(workdir), "--neighbours", " "]) == 2
    assert "name another word" in capsys.readouterr().err
    assert main(["plot", str(workdir), "--positions", "--layer=1"]) == 2
    assert "--layer has no effect on --positions" in capsys.readouterr().err
