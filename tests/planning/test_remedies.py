"""What is tried when a step does not fit, and which meshes a sweep tries."""

from experiments import experiment

from zoo.parallel.mesh import MeshConfig
from zoo.planning.chips import CHIPS, Topology
from zoo.planning.remedies import mesh_text, meshes, neighbours, remedies

POD = Topology.parse("v5e:4x4")


def test_a_sweep_tries_meshes_that_fill_the_slice_and_divide_the_model():
    found = meshes(experiment(), POD)
    assert {mesh.data * mesh.fsdp * mesh.tensor for mesh in found} == {POD.size}
    assert {mesh.tensor for mesh in found} == {1, 2, 4}  # of 12 heads
    assert any(mesh.fsdp == POD.size for mesh in found) and any(mesh.data == POD.size for mesh in found)


def test_a_sweep_leaves_out_meshes_that_cannot_hold_the_state_or_cut_the_batch():
    large = meshes(experiment(model__size="gpt3_13b", data__batch_rows="16"), POD)
    assert all(12 * 13e9 / (mesh.fsdp * mesh.tensor) < CHIPS["v5e"].memory for mesh in large)
    assert all(mesh.data * mesh.fsdp <= 4 for mesh in meshes(experiment(data__batch_rows="4"), POD))


def test_neighbours_cut_the_state_half_as_often_and_twice():
    copies, pairs, quarters = (MeshConfig(16 // n, n, 1, 1) for n in (1, 2, 4))
    assert neighbours(experiment(), POD, pairs) == [copies, quarters]
    assert neighbours(experiment(), POD, copies) == [pairs]
    assert neighbours(experiment(), POD, MeshConfig(5, 3, 1, 1)) == []


def test_positions_are_cut_where_there_are_fewer_rows_than_chips():
    few = meshes(experiment(data__batch_rows="4"), POD)
    assert all(mesh.data * mesh.fsdp * mesh.tensor * mesh.sequence == POD.size for mesh in few)
    assert {mesh.sequence for mesh in few} == {1, 2, 4}
    assert {mesh.sequence for mesh in meshes(experiment(), POD)} == {1}


def test_several_slices_hold_the_same_and_share_the_rows():
    two = Topology.parse("v5e:4x4", slices=2)
    assert {mesh.dcn_data for mesh in meshes(experiment(), two)} == {2}
    assert all(mesh.data * mesh.fsdp <= 8 for mesh in meshes(experiment(data__batch_rows="16"), two))
    assert mesh_text(meshes(experiment(), two)[0]) == "data=16,dcn_data=2"


def test_remedies_come_mildest_first():
    found = [text for text, _ in remedies(experiment(), POD)]
    assert found[:3] == ["--config.model.remat=true", "--config.data.batch_rows=32", "--config.data.batch_rows=16"]
    assert found[3].startswith("--mesh=")
    assert all(changed.model.config().remat for _, changed in remedies(experiment(), POD))
