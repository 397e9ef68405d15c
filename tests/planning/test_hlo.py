"""The forms in which HLO writes groups of devices and shapes."""

import pytest

from zoo.planning.hlo import Instruction, arrays, parsed, replica_groups
from zoo.planning.products import splash_flops


@pytest.mark.parametrize(
    "written, first",
    [
        ("replica_groups={{0,2},{1,3},{4,6},{5,7}}", [0, 2]),
        ("replica_groups=[4,2]<=[8]", [0, 1]),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", [0, 4]),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0'}", [0, 4]),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}", [0, 1, 2, 3]),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=2], device_ids=([2,4]T(1,0)) {'axis_0'}", [0, 1, 2, 3]),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=2], device_ids=([2,4]T(1,0)) {'axis_1'}", [0, 4]),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=2], device_ids=(7,6,5,4,3,2,1,0) {'axis_1'}", [7, 6]),
        ("replica_groups={}", list(range(8))),
    ],
)
def test_groups_are_read_in_every_form(written, first):
    groups = replica_groups(written + ", use_global_device_ids=true", 8)
    assert groups[0] == first
    assert sorted(device for group in groups for device in group) == list(range(8))


def test_groups_in_an_unknown_form_are_not_taken_for_all():
    with pytest.raises(ValueError, match="not known: rings"):
        replica_groups("replica_groups=rings(2)", 8)


def test_arrays_know_their_bytes_and_where_they_lie():
    one, other = arrays("(bf16[4,8]{1,0:T(8,128)(2,1)S(1)}, /*index=1*/pred[3]{0})")
    assert (one.bytes, one.in_hbm) == (64, False)
    assert (other.bytes, other.in_hbm) == (3, True)


def test_a_part_of_a_tuple_has_its_own_shape_however_it_is_named():
    older = """ENTRY %main (state: (s32[], f32[8,16])) -> f32[8,16] {
  %state = (s32[]{:T(128)S(6)}, /*index=1*/f32[8,16]{1,0:T(8,128)}) parameter(0)
  %x = f32[8,16]{1,0:T(8,128)} get-tuple-element(%state), index=1
  ROOT %y = f32[8,16]{1,0:T(8,128)} negate(%x)
}"""
    newer = "\n".join(line.replace("(%x)", "(%state#1)") for line in older.splitlines() if "%x =" not in line)
    for text, name in ((older, "x"), (newer, "state#1")):
        computations, entry = parsed(text)
        computation = computations[entry]
        assert computation["y"].operands == (name,) and list(computation)[-1] == "y"
        element = computation[name]
        assert (element.opcode, element.operands, element.hbm_bytes) == ("get-tuple-element", ("state",), 8 * 16 * 4)
        assert "index=1" in element.attributes


@pytest.mark.parametrize("shape", ["bf16[1,2,128,64]{3,2,1,0}", "bf16[2,128,64]{2,1,0}"])
def test_a_splash_kernel_of_one_row_counts_as_one_of_several(shape):
    kernel = Instruction("splash_mha_fwd.1", shape, "custom-call", (), "")
    assert splash_flops(kernel) == 2 * 2 * 2 * 128 * 128 * 64
