"""The bytes and products of small programs whose answers are known."""

import jax
import jax.numpy as jnp
import pytest

from zoo.planning.program import Kernel, Program

KB = 1024  # of f32[256]


def kernels(entry: str, computations: str = "") -> dict[str, Kernel]:
    """Those of a program with the arrays `x` and `y` of 256 numbers and `stack` of eight times as many."""
    text = f"""HloModule m, is_scheduled=true

{computations}

ENTRY %main (x: f32[256], y: f32[256], stack: f32[8,256], i: s32[]) -> f32[256] {{
  %x = f32[256]{{0}} parameter(0)
  %y = f32[256]{{0}} parameter(1)
  %stack = f32[8,256]{{1,0}} parameter(2)
  %i = s32[] parameter(3)
{entry}
}}
"""
    return {kernel.name: kernel for kernel in Program(text, {"data": 1}).kernels}


def fused(body: str, result: str = "f32[256]", parameters: str = "stack, i, x") -> Kernel:
    """A kernel that fuses `body`."""
    shapes = {"x": "f32[256]{0}", "y": "f32[256]{0}", "stack": "f32[8,256]{1,0}", "i": "s32[]"}
    names = parameters.split(", ")
    lines = [f"  %{name} = {shapes[name]} parameter({place})" for place, name in enumerate(names)]
    inner = "\n".join([f"%fused (p: f32[]) -> {result} {{", *lines, "  %zero = s32[] constant(0)", body, "}"])
    operands = ", ".join(f"%{name}" for name in names)
    return kernels(f"  ROOT %f = {result} fusion({operands}), kind=kLoop, calls=%fused", inner)["f"]


def test_every_operand_is_read_once_and_the_result_is_written():
    assert kernels("  ROOT %sum = f32[256]{0} add(%x, %y)")["sum"].bytes == 3 * KB
    assert kernels("  ROOT %square = f32[256]{0} multiply(%x, %x)")["square"].bytes == 2 * KB
    assert kernels("  ROOT %ones = f32[256]{0} iota(), iota_dimension=0")["ones"].bytes == KB


@pytest.mark.parametrize(
    "body",
    [
        """  %one = f32[1,256]{1,0} dynamic-slice(%stack, %i, %zero), dynamic_slice_sizes={1,256}
  %row = f32[256]{0} bitcast(%one)
  ROOT %sum = f32[256]{0} add(%row, %x)""",
        """  %half = bf16[8,256]{1,0} convert(%stack)
  %one = bf16[1,256]{1,0} dynamic-slice(%half, %i, %zero), dynamic_slice_sizes={1,256}
  %row = bf16[256]{0} bitcast(%one)
  %full = f32[256]{0} convert(%row)
  ROOT %sum = f32[256]{0} add(%full, %x)""",
    ],
)
def test_of_an_array_that_is_sliced_the_slice_is_read(body):
    assert fused(body).bytes == pytest.approx(3 * KB, abs=8)


def test_what_is_also_needed_whole_is_read_whole_and_once():
    body = """  %one = f32[1,256]{1,0} dynamic-slice(%stack, %i, %zero), dynamic_slice_sizes={1,256}
  %row = f32[256]{0} bitcast(%one)
  %total = f32[256]{0} reduce(%stack, %zero), dimensions={0}, to_apply=%sum
  ROOT %sum = f32[256]{0} add(%row, %total)"""
    assert fused(body).bytes == pytest.approx((8 + 1) * KB, abs=8)


def test_an_update_in_place_reads_and_writes_what_it_replaces():
    body = """  %row = f32[1,256]{1,0} bitcast(%x)
  ROOT %next = f32[8,256]{1,0} dynamic-update-slice(%stack, %row, %i, %zero)"""
    assert fused(body, "f32[8,256]").bytes == pytest.approx(2 * KB, abs=8)
    alone = """  %row = f32[1,256]{1,0} bitcast(%x)
  ROOT %next = f32[8,256]{1,0} dynamic-update-slice(%stack, %row, %i, %i)"""
    assert kernels(alone)["next"].bytes == 2 * KB


def test_an_update_of_what_is_made_there_writes_everything():
    body = """  %nothing = f32[] constant(0)
  %empty = f32[8,256]{1,0} broadcast(%nothing), dimensions={}
  %row = f32[1,256]{1,0} bitcast(%x)
  ROOT %next = f32[8,256]{1,0} dynamic-update-slice(%empty, %row, %i, %zero)"""
    assert fused(body, "f32[8,256]").bytes == pytest.approx((1 + 8) * KB, abs=8)


def test_all_results_of_a_kernel_are_written_each_in_its_own_way():
    body = """  %double = f32[256]{0} add(%x, %x)
  %row = f32[1,256]{1,0} bitcast(%double)
  %next = f32[8,256]{1,0} dynamic-update-slice(%stack, %row, %i, %zero)
  ROOT %both = (f32[8,256]{1,0}, f32[256]{0}) tuple(%next, %double)"""
    assert fused(body, "(f32[8,256], f32[256])").bytes == pytest.approx(3 * KB, abs=8)


def test_rows_that_are_gathered_and_scattered_count_and_not_their_table():
    gather = "  ROOT %row = f32[256]{0} gather(%stack, %i), offset_dims={0}, slice_sizes={1,256}"
    assert fused(gather, parameters="stack, i").bytes == pytest.approx(2 * KB, abs=8)
    scatter = "  ROOT %next = f32[8,256]{1,0} scatter(%stack, %i, %x), update_window_dims={0}, to_apply=%sum"
    assert fused(scatter, "f32[8,256]").bytes == pytest.approx(2 * KB, abs=8)


def test_a_kernel_counts_as_often_as_its_loop_turns():
    body = """%body (state: (s32[], f32[256])) -> (s32[], f32[256]) {
  %state = (s32[], f32[256]{0}) parameter(0)
  %n = s32[] get-tuple-element(%state), index=0
  %v = f32[256]{0} get-tuple-element(%state), index=1
  %w = f32[256]{0} negate(%v)
  ROOT %next = (s32[], f32[256]{0}) tuple(%n, %w)
}

%condition (state: (s32[], f32[256])) -> pred[] {
  %state = (s32[], f32[256]{0}) parameter(0)
  ROOT %go = pred[] constant(true)
}"""
    loop = (
        "  %start = (s32[], f32[256]{0}) tuple(%i, %x)\n"
        "  ROOT %loop = (s32[], f32[256]{0}) while(%start), condition=%condition, body=%body, "
        'backend_config={"known_trip_count":{"n":"12"}}'
    )
    kernel = kernels(loop, body)["w"]
    assert (kernel.bytes, kernel.times) == (2 * KB, 12)


@pytest.mark.parametrize(
    "entry",
    [
        """  %begun = ((f32[256]{0}), f32[256]{0}, u32[]) fusion-start(%x), kind=kLoop, calls=%fused
  %beside = f32[256]{0} negate(%y)
  ROOT %ended = f32[256]{0} fusion-done(%begun)""",
        """  %begun = ((f32[256]{0}), f32[256]{0}, u32[]) async-start(%x), calls=%wrapped
  %beside = f32[256]{0} negate(%y)
  ROOT %ended = f32[256]{0} async-done(%begun)""",
    ],
)
def test_an_asynchronous_kernel_counts_once(entry):
    computations = """%fused (p: f32[256]) -> f32[256] {
  %p = f32[256]{0} parameter(0)
  ROOT %sine = f32[256]{0} sine(%p)
}

%wrapped (p: f32[256]) -> f32[256] {
  %p = f32[256]{0} parameter(0)
  ROOT %f = f32[256]{0} fusion(%p), kind=kLoop, calls=%fused
}"""
    found = kernels(entry, computations)
    assert sum(kernel.bytes for kernel in found.values()) == 4 * KB
    assert found["begun"].bytes == 2 * KB


def test_of_the_branches_of_a_conditional_the_dearest_counts():
    branches = "".join(
        f"""%{name} (p: f32[{size}]) -> f32[{size}] {{
  %p = f32[{size}]{{0}} parameter(0)
  ROOT %{name}_kernel = f32[{size}]{{0}} negate(%p)
}}

"""
        for name, size in (("small", 8), ("large", 256))
    )
    entry = "  ROOT %c = f32[256]{0} conditional(%i, %x, %x), branch_computations={%small, %large}"
    assert set(kernels(entry, branches)) == {"large_kernel"}


def test_a_product_of_a_library_counts_its_operations_and_not_its_scratch():
    entry = (
        "  ROOT %gemm = (f32[8,8]{1,0}, s8[33554432]{0}) custom-call(%stack, %stack), "
        'custom_call_target="__cublas$lt$matmul", metadata={op_name="jit(f)/attention/dot_general"}, '
        'backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}}'
    )
    kernel = kernels(entry)["gemm"]
    assert kernel.bytes == 8 * KB + 8 * 8 * 4
    assert [(p.types, p.flops) for p in kernel.products] == [("f32 x f32 -> f32", 2 * 8 * 8 * 256)]
    assert (kernel.kind, kernel.labels) == ("__cublas$lt$matmul", ("jit(f)/attention/dot_general",) * 2)


def test_a_kernel_of_attention_says_its_operations_or_its_table():
    cudnn = (
        "  ROOT %a = (f32[2,4,8,16]{3,2,1,0}, u8[64]{0}) custom-call(%x, %y, %y), "
        'custom_call_target="__cudnn$fmhaSoftmax", backend_config={"cudnn_fmha_backend_config": '
        '{"intermediate_tensor_shape": {"dimensions": ["2", "4", "8", "6"]}}}'
    )
    kernel = kernels(cudnn)["a"]
    assert kernel.flops == 2 * 2 * (2 * 4 * 8 * 6) * 16  # two products for each element of the table
    assert kernel.bytes == 2 * KB + 4 * 2 * 4 * 8 * 16
    pallas = (
        '  ROOT %a = f32[256]{0} custom-call(%x, %y), custom_call_target="__gpu$xla.gpu.triton", '
        r'backend_config={num_warps = 4 : i32, serialized_metadata = "{\22flops\22: \22512\22}"}'
    )
    assert (kernels(pallas)["a"].flops, kernels(pallas)["a"].bytes) == (512, 3 * KB)


def test_what_xla_itself_compiles_moves_its_operands_and_results():
    x = jax.ShapeDtypeStruct((1024,), jnp.float32)
    program = Program(jax.jit(lambda x, y: jnp.sin(x) + y).lower(x, x).compile().as_text(), {"data": 1})
    assert program.bytes == 3 * 4 * KB
