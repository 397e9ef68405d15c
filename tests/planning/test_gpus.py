"""Hosts of GPUs, and the wires between them."""

from dataclasses import dataclass

import numpy as np
import pytest
from jax.sharding import Mesh

from zoo.errors import UserError
from zoo.planning.chips import Topology
from zoo.planning.gpus import CARDS, Hosts, topology


@dataclass(frozen=True)
class Place:
    """All that `Hosts` asks of a device."""

    process_index: int


def mesh_of(hosts: Hosts, **axes: int) -> Mesh:
    places = np.empty(hosts.size, object)
    places[:] = [Place(i // hosts.gpus) for i in range(hosts.size)]
    return Mesh(places.reshape(tuple(axes.values())), tuple(axes))


@pytest.mark.parametrize("text, size", [("h100:1", 1), ("a100:8", 8), ("h200:4x8", 32)])
def test_hosts_are_read_as_they_are_written(text, size):
    assert (topology(text).size, str(topology(text))) == (size, text)
    assert isinstance(topology("v5e:4x4"), Topology)


@pytest.mark.parametrize("text, named", [("h100:9", "8 at most"), ("h100:4x", "h100:4x8"), ("h300:8", "h100")])
def test_what_nobody_has_is_one_line(text, named):
    with pytest.raises(UserError, match=named):
        topology(text)
    with pytest.raises(UserError, match="h100:2x8"):
        topology("h100:8", slices=2)


def test_a_ring_within_a_host_has_nvlink_and_one_between_hosts_their_adapters():
    hosts, chip = topology("h100:4x8"), CARDS["h100"].chip
    mesh = mesh_of(hosts, data=4, fsdp=8)
    assert hosts.bandwidth(mesh, ["fsdp"]) == chip.link
    assert hosts.bandwidth(mesh, ["data"]) == chip.network
    assert hosts.bandwidth(mesh, ["data", "fsdp"]) == 8 * chip.network


def test_jax_has_a_part_of_a_card(monkeypatch):
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    whole = CARDS["h100"].chip.memory
    assert topology("h100:8").chip.memory == 0.75 * whole
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")
    assert topology("h100:8").chip.memory == pytest.approx(0.9 * whole)


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
def test_nothing_reaches_more_than_the_data_sheet(card):
    assert card.chip.reached.flops < card.chip.flops
    assert card.chip.reached.bandwidth < card.chip.bandwidth
    assert f'device_description_str: "{card.name}"' in card.target()
