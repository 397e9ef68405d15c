"""A run begins with what it asks of a donor, and says what it took, what is new and what it left."""

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from conftest import TINY
from flax.traverse_util import flatten_dict

from zoo.checkpoints import load_parameters
from zoo.cli import main
from zoo.errors import UserError
from zoo.training.warm_start import Wanted, taken_over
from zoo.workdirs import load


def continued(donor, out, pairs_in_files, *flags, **changes):
    changes = TINY | {f"data.{split}": str(pairs_in_files) for split in ("train", "valid")} | changes
    changes |= {"train.steps": "1", "data.test": "", "optimizer.schedule": "constant", "optimizer.peak": "1e-12"}
    words = [f"--config.{key}={value}" for key, value in changes.items() if key != "data.vocabulary"]
    return main(["train", f"--workdir={out}", f"--init_from={donor}", *flags, *words])


def optimizer_of(directory, step):
    state = ocp.PyTreeCheckpointHandler().restore(directory / "checkpoints" / str(step) / "state")
    return ocp.tree.to_flat_dict(state["optimizer"], sep="/")


@pytest.fixture(scope="module")
def shapes(workdir):
    return load(workdir)._on_one_device()


def test_only_what_is_asked_for_is_taken(workdir, shapes):
    fresh = jax.tree.map(lambda leaf: np.full(leaf.shape, 9.0, leaf.dtype), shapes)
    start = taken_over(Wanted(workdir, only="^encoder/|cross_attention"), shapes, lambda: fresh)
    before, after = (flatten_dict(tree, sep="/") for tree in (load_parameters(workdir)[1], start.params))
    for path, leaf in after.items():
        taken = path.startswith("encoder/") or "cross_attention" in path
        np.testing.assert_array_equal(leaf, before[path] if taken else 9.0)
    assert start.taken[-1] == "encoder" and start.fresh[-1] == "target_embedding"
    assert not set(start.taken) & set(start.fresh) and start.fresh == start.left


def test_a_part_may_be_of_another_size_where_it_is_not_taken(workdir, shapes):
    larger = shapes | {"target_embedding": {"table": jax.ShapeDtypeStruct((77, 16), "float32")}}
    place = jax.tree.leaves(shapes)[0].sharding
    larger = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), larger)
    fresh = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), larger)
    assert taken_over(Wanted(workdir, only="coder"), larger, lambda: fresh).taken == ("decoder", "encoder")
    with pytest.raises(UserError, match="target_embedding"):
        taken_over(Wanted(workdir), larger, lambda: fresh)


def test_the_optimizer_continues_and_its_schedule_begins_anew(workdir, pairs_in_files, tmp_path, capsys):
    assert continued(workdir, tmp_path / "run", pairs_in_files, "--init_optimizer") == 0
    assert "taken: all parameters; fresh: nothing; left: nothing" in capsys.readouterr().err
    before, after = (optimizer_of(*at) for at in ((workdir, 3), (tmp_path / "run", 1)))
    counts = {path: int(leaf) for path, leaf in after.items() if path.endswith("count")}
    assert sorted(counts.values()) == [1, 4], counts
    for path, leaf in after.items():
        if "/nu/" in path:  # the mean of squares: 0.98 of what it was, and a square
            assert (leaf >= 0.98 * before[path] * (1 - 1e-6)).all() and before[path].any()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--init_optimizer", "--init_checkpoint=best"], "has only parameters"),
        (["--init_optimizer", "--init_only=encoder"], "--init_optimizer is for runs that take all parameters"),
        (["--init_optimizer", "--config.lora.rank=2"], "what begins at random here, adapters"),
        (["--init_optimizer", "--config.optimizer.name=adafactor"], "the state of another optimizer"),
        (["--init_only=encodr"], "'encodr' in it: did you mean 'encoder'?"),
        (["--init_only=("], "--init_only='(' is no regular expression"),
    ],
)
def test_what_cannot_be_taken_is_one_line(workdir, pairs_in_files, tmp_path, capsys, flags, message):
    assert continued(workdir, tmp_path / "run", pairs_in_files, *flags) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run").exists()
