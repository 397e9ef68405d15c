"""The laws of the mesh and of the table from logical axes to it."""

import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from zoo.errors import UserError
from zoo.parallel.mesh import MeshConfig, arranged, batch_shards, make_mesh, sizes
from zoo.parallel.rules import RULES, parameter_count, place, replicated, sharding, state_shardings

SIXTEEN = AbstractMesh((2, 4, 2, 1), ("data", "fsdp", "tensor", "sequence"))  # more devices than there are here


@pytest.mark.parametrize("devices", [1, 2, 6, 8, 256])
@pytest.mark.parametrize("axis", range(4))
def test_minus_one_is_all_that_the_others_leave(devices, axis):
    asked = [1, 1, 1, 1]
    asked[axis] = -1
    resolved = sizes(MeshConfig(*asked), devices)
    assert math.prod(resolved) == resolved[axis] == devices


@pytest.mark.parametrize("asked", [(8, 1, 1, 1), (1, 8, 1, 1), (1, 4, 2, 1), (2, 2, 2, 1), (1, 2, 2, 2)])
def test_sizes_that_multiply_up_are_taken_as_they_are(asked):
    assert sizes(MeshConfig(*asked), 8) == asked
    rest = (-1, *asked[1:])
    assert sizes(MeshConfig(*rest), 8) == asked


@pytest.mark.parametrize(
    ("asked", "devices"),
    [
        ((3, 1, 1, 1), 8),
        ((-1, 3, 1, 1), 8),
        ((-1, 16, 1, 1), 8),
        ((-1, -1, 1, 1), 8),
        ((-2, 1, 1, 1), 8),
    ],
)
def test_sizes_that_cannot_be_are_named_in_one_line(asked, devices):
    with pytest.raises(UserError) as error:
        sizes(MeshConfig(*asked), devices)
    message = str(error.value)
    assert "\n" not in message
    assert all(f"{name}={n}" in message for name, n in zip(("data", "fsdp", "tensor", "sequence"), asked, strict=True))


def test_an_error_of_numbers_says_how_many_devices_there_are():
    with pytest.raises(UserError, match=r"data=3.* 8 devices"):
        sizes(MeshConfig(3), 8)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (8, 1, 1, 1)),
        ({"preset": "fsdp"}, (1, 8, 1, 1)),
        ({"preset": "fsdp+tensor"}, (1, 4, 2, 1)),
        ({"preset": "fsdp+tensor+sequence"}, (1, 2, 2, 2)),
        ({"preset": "fsdp", "data": 2}, (2, 4, 1, 1)),
        ({"preset": "fsdp", "fsdp": 2}, (4, 2, 1, 1)),
        ({"preset": "fsdp+tensor", "tensor": 4}, (1, 2, 4, 1)),
        ({"fsdp": 4}, (2, 4, 1, 1)),
    ],
)
def test_a_preset_decides_the_sizes_that_are_left_open(changes, expected):
    assert sizes(MeshConfig(**changes), 8) == expected


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(UserError, match=r"mesh.preset='zero'.*fsdp\+tensor"):
        MeshConfig(preset="zero")


def devices_of(slices, each):
    """Devices as make_mesh sees them, two to a host."""
    return [
        SimpleNamespace(id=i, slice_index=i // each, process_index=i // 2, platform="cpu", device_kind="cpu")
        for i in range(slices * each)
    ]


@pytest.mark.parametrize("dcn", [2, -1])
def test_only_the_axes_that_are_said_to_reach_over_slices_do(dcn):
    array = arranged(MeshConfig(fsdp=-1, tensor=2, dcn_data=dcn), devices_of(slices=2, each=8))
    assert array.shape == (2, 4, 2, 1)
    for number in (0, 1):
        assert {device.slice_index for device in array[number].flat} == {number}
    assert len({device.id for device in array.flat}) == 16


def test_hosts_stand_for_slices_where_the_devices_know_of_none():
    array = arranged(MeshConfig(fsdp=2, dcn_data=4), devices_of(slices=1, each=8))
    assert array.shape == (4, 2, 1, 1)
    assert all(len({device.process_index for device in row.flat}) == 1 for row in array)


def test_slices_that_are_not_there_are_one_line_with_both_numbers():
    with pytest.raises(UserError, match=r"dcn_data=3.* the 2 slices here"):
        arranged(MeshConfig(dcn_data=3), devices_of(slices=2, each=4))


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig())


def test_the_mesh_holds_all_devices_with_automatic_axes(mesh):
    assert mesh.axis_names == ("data", "fsdp", "tensor", "sequence")
    assert mesh.size == jax.device_count() == batch_shards(mesh)
    assert set(mesh.axis_types) == {AxisType.Auto}


def test_rules_send_every_logical_axis_to_an_axis_of_the_mesh(mesh):
    named = {axis for axes in RULES.values() if axes for axis in ([axes] if isinstance(axes, str) else axes)}
    assert named == set(mesh.axis_names)


def test_a_logical_axis_that_is_in_no_rule_is_a_defect(mesh):
    with pytest.raises(KeyError):
        sharding(mesh, ("unheard_of",), (8,))


@pytest.mark.parametrize(
    ("names", "shape", "spec"),
    [
        (("embed", "mlp"), (16, 64), ("fsdp", "tensor")),
        (("layers", "embed", "heads", "kv"), (2, 16, 4, 4), (None, "fsdp", "tensor", None)),
        (("vocab", "embed"), (11, 16), (None, "fsdp")),
        (("vocab", "embed"), (12, 6), ("tensor", None)),
        (("embed", "mlp"), (6, 64), (None, ("tensor", "fsdp"))),
        (("heads", "kv", "embed"), (8, 2, 6), (("tensor", "fsdp"), None, None)),
        ((None, "embed"), (3, 8), (None, "fsdp")),
        ((), (), ()),
    ],
)
def test_an_axis_that_does_not_divide_stays_whole(names, shape, spec):
    assert sharding(SIXTEEN, names, shape).spec == PartitionSpec(*spec)


def test_every_leaf_of_a_state_has_a_sharding_and_loses_its_box(mesh):
    boxed = {
        "kernel": nn.LogicallyPartitioned(jax.ShapeDtypeStruct((16, 64), jnp.float32), ("embed", "mlp")),
        "step": jax.ShapeDtypeStruct((), jnp.int32),
    }
    shardings = state_shardings(mesh, boxed)
    assert shardings["kernel"].spec == PartitionSpec("fsdp", "tensor")
    assert shardings["step"] == replicated(mesh)


def test_placing_a_batch_keeps_every_row(mesh):
    rows = {"source": np.arange(24).reshape(8, 3), "weight": np.ones(8, np.float32)}
    placed = place(rows, mesh)
    assert all((np.asarray(placed[name]) == rows[name]).all() for name in rows)
    assert placed["source"].sharding.spec == PartitionSpec(("data", "fsdp"))


def test_parameters_are_counted_in_arrays_and_in_shapes():
    tree = {"a": np.zeros((3, 4)), "b": {"c": jax.ShapeDtypeStruct((5,), jnp.float32), "d": np.zeros(())}}
    assert parameter_count(tree) == 3 * 4 + 5 + 1
