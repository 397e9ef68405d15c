"""LoRA trains its adapters alone, is nothing at first, and is merged into the matrices at the end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY

from zoo.checkpoints import load_parameters
from zoo.cli import main
from zoo.models import registry
from zoo.training.lora import LORA, LoRAConfig, adapters, merged
from zoo.workdirs import load


@pytest.mark.parametrize("name", ["transformer", "gpt", "rnnsearch", "seq2seq", "cho"])
def test_every_model_has_matrices_to_adapt_and_is_itself_at_first(name):
    size = next(iter(registry.family(name).sizes))
    lora = LoRAConfig(rank=2, targets="kernel|hidden|input|recurrent")
    shapes = jax.tree.map(lambda leaf: leaf, registry.boxed_shapes(registry.config(name, size)))
    made = jax.eval_shape(lambda key, p: adapters(p, lora, key), jax.random.key(0), shapes)
    assert jax.tree.leaves(made)
    base = {"a": {"kernel": jnp.ones((4, 6))}}
    params = base | {LORA: adapters(base, LoRAConfig(2, targets="kernel"), jax.random.key(0))}
    assert (merged(params, LoRAConfig(2))["a"]["kernel"] == 1).all()


def test_the_kernels_of_attention_are_cut_between_inputs_and_outputs():
    base = {"attention": {"query": {"kernel": jnp.ones((8, 2, 4))}, "output": {"kernel": jnp.ones((2, 4, 8))}}}
    made = adapters(base, LoRAConfig(3, targets="attention"), jax.random.key(0))["attention"]
    assert all(made[name]["kernel"]["down"].shape == (8, 3) for name in ("query", "output"))


@pytest.fixture(scope="module")
def tuned(workdir, pairs_in_files, tmp_path_factory):
    """The tiny model, fine-tuned for two steps with adapters."""
    directory = tmp_path_factory.mktemp("lora") / "run"
    changes = TINY | {f"data.{split}": str(pairs_in_files) for split in ("train", "valid")} | {"data.test": ""}
    for key in ("data.vocabulary",):
        changes.pop(key)
    changes |= {"train.steps": "2", "lora.rank": "2", "lora.dropout": "0.1", "optimizer.warmup": "1"}
    words = [f"--config.{key}={value}" for key, value in changes.items()]
    assert main(["train", f"--workdir={directory}", f"--init_from={workdir}", *words]) == 0
    return directory


def test_only_adapters_change_and_only_they_have_moments(workdir, tuned):
    _, before = load_parameters(workdir, "best")
    _, after = load_parameters(tuned, "latest")
    lora = after.pop(LORA)
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert any(np.abs(leaf).max() > 0 for path, leaf in jax.tree_util.tree_leaves_with_path(lora) if "up" in str(path))
    saved = sum(path.stat().st_size for path in (tuned / "checkpoints").rglob("*") if path.is_file())
    whole = sum(path.stat().st_size for path in (workdir / "checkpoints" / "3").rglob("*") if path.is_file())
    assert saved / 2 < whole  # two checkpoints, with no moments of the frozen parameters


def test_loading_and_exporting_merge_the_adapters(workdir, tuned, tmp_path):
    run = load(tuned, "latest")
    assert LORA not in run.params
    out = load(run.save(tmp_path / "merged"))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(run.params), jax.device_get(out.params))
    assert out.translate(["in 3 days"]) == run.translate(["in 3 days"])


def test_targets_that_match_nothing_are_reported(workdir, tmp_path, capsys):
    words = [f"--config.{key}={value}" for key, value in TINY.items() if key != "data.vocabulary"]
    assert (
        main(
            [
                "train",
                f"--workdir={tmp_path / 'x'}",
                f"--init_from={workdir}",
                *words,
                "--config.lora.rank=2",
                "--config.lora.targets=nothing",
            ]
        )
        == 2
    )
    assert "lora.targets='nothing'" in capsys.readouterr().err
