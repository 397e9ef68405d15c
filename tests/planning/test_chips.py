"""Slices of TPU chips, and the wires between them."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from jax.sharding import Mesh

from zoo.errors import UserError
from zoo.planning.chips import CHIPS, Topology


@dataclass(frozen=True)
class Place:
    """All that `Topology` asks of a device."""

    coords: tuple[int, ...]


def mesh_of(shape: tuple[int, ...], **axes: int) -> Mesh:
    """A mesh over chips in the order of their coordinates, the last fastest."""
    places = np.empty(math.prod(shape), object)
    places[:] = [Place(coords) for coords in np.ndindex(*shape)]
    return Mesh(places.reshape(tuple(axes.values())), tuple(axes))


def test_a_slice_is_read_as_it_is_written():
    topology = Topology.parse("v5p:4x4x8")
    assert (topology.shape, topology.size, str(topology)) == ((4, 4, 8), 128, "v5p:4x4x8")
    assert str(Topology.parse("v5e:4x4", slices=2)) == "2 slices of v5e:4x4"


@pytest.mark.parametrize(
    "text, names", [("v7:4x4", "v5p"), ("v5e:3x3", "16x16"), ("v5p:4x4", "4x4x8"), ("nonsense", "v6e")]
)
def test_an_unknown_slice_lists_the_known(text, names):
    with pytest.raises(UserError, match=names) as error:
        Topology.parse(text)
    assert text in str(error.value)


def test_a_closed_ring_sends_both_ways_and_an_open_line_one():
    link = CHIPS["v5e"].link
    mesh = mesh_of((16, 16), data=16, fsdp=4, tensor=4)
    pod = Topology.parse("v5e:16x16")
    assert pod.bandwidth(mesh, ["data"]) == 2 * link
    assert pod.bandwidth(mesh, ["fsdp"]) == link  # a part of a dimension
    assert pod.bandwidth(mesh, ["fsdp", "tensor"]) == 2 * link  # together a whole one
    assert pod.bandwidth(mesh, ["data", "fsdp", "tensor"]) == 4 * link
    assert Topology.parse("v5e:4x4").bandwidth(mesh_of((4, 4), data=4, fsdp=4), ["data"]) == link


def test_v5p_closes_rings_of_four():
    mesh = mesh_of((4, 4, 8), data=16, fsdp=8)
    slice_ = Topology.parse("v5p:4x4x8")
    assert slice_.bandwidth(mesh, ["data"]) == 4 * CHIPS["v5p"].link
    assert slice_.bandwidth(mesh, ["fsdp"]) == 2 * CHIPS["v5p"].link


def test_what_is_less_than_a_cube_closes_no_ring():
    mesh = mesh_of((2, 4, 4), data=2, fsdp=16)
    assert Topology.parse("v5p:2x4x4").bandwidth(mesh, ["fsdp"]) == 2 * CHIPS["v5p"].link
