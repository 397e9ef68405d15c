"""Laws of the checkpoints: what comes back is what was saved, whole or not at all."""

import errno
import logging
import os
import shutil
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import zoo.checkpoints.sealing
from zoo.checkpoints import Checkpoints, average_parameters, load_parameters, save_parameters
from zoo.errors import UserError


def state_at(step: int) -> dict:
    noise = np.random.default_rng(step).standard_normal((300, 400), dtype=np.float32)
    params = {"embed": {"kernel": jnp.asarray(noise)}, "norm": {"scale": jnp.full((7,), step, jnp.bfloat16)}}
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    return {"params": params, "optimizer": optimizer.init(params), "step": jnp.int32(step), "rng": jax.random.key(step)}


def shapes_and_shardings(state: dict) -> dict:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)


def examples():
    return iter(grain.MapDataset.range(1000).shuffle(seed=1).repeat().to_iter_dataset())


def same(one, other) -> bool:
    """The same structure, types and bits."""

    def bits(leaf):
        key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return (str(leaf.dtype), np.asarray(jax.random.key_data(leaf) if key else leaf).tobytes())

    return jax.tree.structure(one) == jax.tree.structure(other) and [*map(bits, jax.tree.leaves(one))] == [
        *map(bits, jax.tree.leaves(other))
    ]


@pytest.fixture
def two(tmp_path):
    """A working directory with checkpoints of steps 1 and 2."""
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, state_at(step), None, {"epoch": step})
    checkpoints.close()
    return tmp_path


@pytest.mark.smoke
def test_what_was_saved_comes_back_bit_for_bit(tmp_path):
    checkpoints, data = Checkpoints(tmp_path), examples()
    for _ in range(5):
        next(data)
    checkpoints.save(5, state_at(5), data, {"epoch": 1})
    following = [next(data) for _ in range(3)]
    checkpoints.close()

    data = examples()
    step, state, progress = Checkpoints(tmp_path).restore(shapes_and_shardings(state_at(0)), data)
    assert (step, progress) == (5, {"epoch": 1})
    assert same(state, state_at(5))
    assert [next(data) for _ in range(3)] == following


def test_training_continues_while_a_checkpoint_is_written(tmp_path):
    @jax.jit
    def decay(tree):
        return jax.tree.map(lambda leaf: leaf * 0 - 1, tree)

    update = jax.jit(decay, donate_argnums=0)
    params = {f"layer{n}": jax.random.normal(jax.random.key(n), (1000, 500)) for n in range(4)}
    before = jax.tree.map(np.array, params)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"params": params}, None, {})
    for _ in range(20):
        params = update(params)
    checkpoints.wait()
    assert same(load_parameters(tmp_path, "latest")[1], before)


def test_only_the_latest_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (10, 20, 30):
        checkpoints.save(step, state_at(step), None, {})
    checkpoints.wait()
    assert checkpoints.steps() == [20, 30]


def test_saving_a_step_twice_leaves_the_first(two):
    checkpoints = Checkpoints(two)
    checkpoints.save(2, state_at(99), None, {})
    checkpoints.wait()
    assert same(checkpoints.restore(state_at(0), None)[1], state_at(2))


def test_a_plain_orbax_reader_opens_them(two):
    save_parameters(two / "best", 2, state_at(2)["params"], {})
    with ocp.CheckpointManager(two / "checkpoints") as manager:
        assert manager.latest_step() == 2
        args = ocp.args.Composite(state=ocp.args.StandardRestore(state_at(0)), progress=ocp.args.JsonRestore())
        restored = manager.restore(2, args=args)
    assert same(restored.state, state_at(2)) and restored.progress == {"epoch": 2}
    with ocp.StandardCheckpointer() as reader:
        assert same(
            reader.restore(two / "best" / "2" / "state", {"params": state_at(0)["params"]})["params"],
            state_at(2)["params"],
        )


def largest_file(directory: Path) -> Path:
    return max((path for path in directory.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def truncate(step: Path):
    os.truncate(largest_file(step), largest_file(step).stat().st_size // 2)


def delete_one_file(step: Path):
    largest_file(step).unlink()


def empty(step: Path):
    shutil.rmtree(step)
    step.mkdir()


def zero(step: Path):
    path = largest_file(step)
    path.write_bytes(bytes(path.stat().st_size))


def flip_one_bit(step: Path):
    with largest_file(step).open("r+b") as file:
        file.seek(200_000)
        byte = file.read(1)[0]
        file.seek(200_000)
        file.write(bytes([byte ^ 1]))


def zero_the_seal(step: Path):
    (step / "checksums.json").write_bytes(bytes(100))


def lose_the_optimizer_and_the_seal(step: Path):
    (step / "checksums.json").unlink()
    shutil.rmtree(step / "state")


DAMAGES = [truncate, delete_one_file, empty, zero, flip_one_bit, zero_the_seal, lose_the_optimizer_and_the_seal]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_checkpoint_yields_to_the_one_before_it(two, caplog, damage):
    damage(two / "checkpoints" / "2")
    with caplog.at_level(logging.WARNING, logger="zoo"):
        assert load_parameters(two, "latest")[0] == 1
        checkpoints = Checkpoints(two)
        step, state, _ = checkpoints.restore(state_at(0), None)
    assert step == 1 and same(state, state_at(1))
    assert {record.name for record in caplog.records} == {"zoo"}
    assert str(two / "checkpoints" / "2") in caplog.messages[0] and "\n" not in caplog.messages[0]

    checkpoints.save(2, state_at(2), None, {})  # the way is free, and the damaged one is kept for the curious
    checkpoints.wait()
    assert checkpoints.steps() == [1, 2] and (two / "checkpoints" / "2.broken").exists()
    assert same(checkpoints.restore(state_at(0), None)[1], state_at(2))


def test_with_no_whole_checkpoint_the_user_learns_what_to_do(two):
    truncate(two / "checkpoints" / "1")
    empty(two / "checkpoints" / "2")
    with pytest.raises(UserError, match=r"checkpoints/2: restore a copy .* delete .* to start over"):
        Checkpoints(two).restore(state_at(0), None)
    with pytest.raises(UserError, match=r"damaged: state/.* bytes"):
        load_parameters(two, "1")


def test_an_empty_directory_has_nothing_to_restore(tmp_path):
    assert Checkpoints(tmp_path).restore(state_at(0), None) is None
    with pytest.raises(UserError, match=f"no checkpoint in {tmp_path}.*train"):
        load_parameters(tmp_path)


def test_another_shape_is_named_and_nothing_is_set_aside(two):
    other = state_at(0)
    other["params"]["embed"]["kernel"] = jnp.zeros((300, 8))
    checkpoints = Checkpoints(two)
    with pytest.raises(UserError, match=r"params/embed/kernel is \(300, 400\) there, \(300, 8\) here"):
        checkpoints.restore(other, None)
    with pytest.raises(UserError, match=r"params/embed/kernel is \(300, 400\) there, \(300, 8\) here"):
        load_parameters(two, "2", like=other["params"])
    assert checkpoints.steps() == [1, 2]


def test_a_position_in_the_data_is_never_made_up(two):
    with pytest.raises(UserError, match="no position in the data for process 0 of 1"):
        Checkpoints(two).restore(state_at(0), examples())


def fill_the_disk(monkeypatch):
    def full(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(zoo.checkpoints.sealing, "size_and_checksum", full)


def test_a_full_disk_is_one_line_and_the_last_checkpoint_stands(two, monkeypatch):
    checkpoints = Checkpoints(two, keep=1)
    with monkeypatch.context() as patch:
        fill_the_disk(patch)
        checkpoints.save(3, state_at(3), None, {})
        with pytest.raises(UserError, match=f"no space left in {two}"):
            checkpoints.wait()
    step, state, _ = Checkpoints(two).restore(state_at(0), None)
    assert step == 2 and same(state, state_at(2))
    assert not list((two / "checkpoints").glob("*tmp*"))


@pytest.mark.parametrize("step", [7, 8])
def test_the_best_stands_until_a_better_one_is_whole(tmp_path, monkeypatch, step):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_best(7, state_at(7)["params"], {"bleu": 20.0})
    with monkeypatch.context() as patch:
        fill_the_disk(patch)
        with pytest.raises(UserError, match="no space left"):
            checkpoints.save_best(step, state_at(1)["params"], {"bleu": 21.0})
    found, params = load_parameters(tmp_path, "best")
    assert found == 7 and same(params, jax.tree.map(np.asarray, state_at(7)["params"]))

    checkpoints.save_best(step, state_at(1)["params"], {"bleu": 21.0})
    found, params = load_parameters(tmp_path, "best")
    assert found == step and same(params, jax.tree.map(np.asarray, state_at(1)["params"]))
    assert [path.name for path in (tmp_path / "best").iterdir()] == [str(step)]


def test_parameters_are_found_by_name(two):
    assert load_parameters(two, "best")[0] == 2  # no best yet: the latest
    save_parameters(two / "best", 1, state_at(1)["params"], {})
    save_parameters(two / "average", 2, state_at(3)["params"], {})
    assert [load_parameters(two, which)[0] for which in ("best", "latest", "average", "2")] == [1, 2, 2, 2]
    assert same(load_parameters(two, "average", like=state_at(0)["params"])[1], state_at(3)["params"])
    with pytest.raises(UserError, match=r"no checkpoint of step 9 .* there are: 1, 2"):
        load_parameters(two, "9")
    with pytest.raises(UserError, match=r"'newest'.*best, latest, average"):
        load_parameters(two, "newest")


def test_an_average_is_the_mean(two):
    kernels = [np.asarray(state_at(step)["params"]["embed"]["kernel"], np.float64) for step in (1, 2)]
    average = average_parameters(two, [1, 2])
    assert np.array_equal(average["embed"]["kernel"], ((kernels[0] + kernels[1]) / 2).astype(np.float32))
    assert average["norm"]["scale"].dtype == jnp.bfloat16
