"""What a compiled program does, from its text."""

import jax
import jax.numpy as jnp
import pytest

from zoo.planning.program import Collective, Program

MESH = {"data": 2, "fsdp": 4}
# Three turns of a loop in which a layer's slice of a stacked weight is gathered over fsdp while a product runs; then a
# gradient is summed over data, and, as TPU programs write it, summed and cut over fsdp.
TEXT = """HloModule jit_update, is_scheduled=true

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add = f32[] add(%a, %b)
}

%async_collective_fusion.1 (p0: bf16[3,16,64], p1: bf16[8,64]) -> (bf16[8,64], bf16[64,64]) {
  %p0 = bf16[3,16,64]{2,1,0:T(8,128)(2,1)} parameter(0)
  %p1 = bf16[8,64]{1,0:T(8,128)(2,1)} parameter(1)
  %slice = bf16[1,16,64]{2,1,0} dynamic-slice(%p0), dynamic_slice_sizes={1,16,64}
  %bitcast = bf16[16,64]{1,0} bitcast(%slice)
  %all-gather.1 = bf16[64,64]{1,0:S(1)} all-gather(%bitcast), channel_id=1, replica_groups=[2,4]<=[8]
  %convolution.1 = bf16[8,16]{1,0} convolution(%p1, %bitcast), dim_labels=bf_oi->bf
  ROOT %tuple = (bf16[8,16]{1,0}, bf16[64,64]{1,0:S(1)}) tuple(%convolution.1, %all-gather.1)
}

%all-reduce-scatter.1 (p0: f32[64,64]) -> f32[16,64] {
  %p0 = f32[64,64]{1,0} parameter(0)
  %sum.2 = f32[64,64]{1,0} all-reduce(%p0), channel_id=3, replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}
  ROOT %slice = f32[16,64]{1,0} slice(%sum.2), slice={[0:16], [0:64]}
}

%body (state: (s32[], bf16[3,16,64], bf16[8,64])) -> (s32[], bf16[3,16,64], bf16[8,64]) {
  %state = (s32[], bf16[3,16,64]{2,1,0}, bf16[8,64]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %stack = bf16[3,16,64]{2,1,0} get-tuple-element(%state), index=1
  %x = bf16[8,64]{1,0} get-tuple-element(%state), index=2
  %fusion.1 = (bf16[8,16]{1,0}, bf16[64,64]{1,0:S(1)}) fusion(%stack, %x), calls=%async_collective_fusion.1
  ROOT %next = (s32[], bf16[3,16,64]{2,1,0}, bf16[8,64]{1,0}) tuple(%i, %stack, %x)
}

%condition (state: (s32[], bf16[3,16,64], bf16[8,64])) -> pred[] {
  %state = (s32[], bf16[3,16,64]{2,1,0}, bf16[8,64]{1,0}) parameter(0)
  %bound = s32[] constant(3)
  %i = s32[] get-tuple-element(%state), index=0
  ROOT %less = pred[] compare(%i, %bound), direction=LT
}

ENTRY %main (start: (s32[], bf16[3,16,64], bf16[8,64]), g: f32[64,64]) -> f32[16,64] {
  %start = (s32[], bf16[3,16,64]{2,1,0}, bf16[8,64]{1,0}) parameter(0)
  %g = f32[64,64]{1,0} parameter(1)
  %while = (s32[], bf16[3,16,64]{2,1,0}, bf16[8,64]{1,0}) while(%start), condition=%condition, body=%body
  %all-reduce.1 = f32[64,64]{1,0} all-reduce(%g), channel_id=2, replica_groups={{0,4},{1,5},{2,6},{3,7}}, to_apply=%sum
  ROOT %scattered = f32[16,64]{1,0} fusion(%all-reduce.1), kind=kCustom, calls=%all-reduce-scatter.1
}
"""


def messages() -> dict:
    return {(m.kind, m.axes): m for m in Program(TEXT, MESH).collectives}


def test_messages_have_their_kind_axes_bytes_and_number():
    assert {key: (m.bytes, m.group, m.times, m.overlapped) for key, m in messages().items()} == {
        ("all-gather", ("fsdp",)): (64 * 64 * 2, 4, 3, True),
        ("all-reduce", ("data",)): (64 * 64 * 4, 2, 1, False),
        ("reduce-scatter", ("fsdp",)): (64 * 64 * 4, 4, 1, False),
    }


def test_a_sum_for_all_takes_twice_the_time_of_a_sum_for_one_each():
    found = messages()
    assert found["reduce-scatter", ("fsdp",)].seconds_per_bandwidth == 3 / 4 * 64 * 64 * 4
    assert found["all-reduce", ("data",)].seconds_per_bandwidth == 2 * 1 / 2 * 64 * 64 * 4


def test_a_loop_counts_as_often_as_it_turns():
    assert Program(TEXT, MESH).flops == 3 * 2 * 8 * 16 * 64


@pytest.mark.parametrize(("bound", "step", "turns"), [(8, 2, 4), (9, 2, 5), (8, 1, 8)])
def test_a_loop_that_counts_by_more_than_one_turns_less_often(bound, step, turns):
    text = f"""HloModule m

%body (state: (f32[16,16], u32[])) -> (f32[16,16], u32[]) {{
  %ten = u32[] constant(10)
  %step = u32[] constant({step})
  %state = (f32[16,16], u32[]) parameter(0)
  %x = f32[16,16] get-tuple-element(%state), index=0
  %i = u32[] get-tuple-element(%state), index=1
  %y = f32[16,16] dot(%x, %x), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  %unused = u32[] add(%i, %ten)
  %next = u32[] add(%i, %step)
  ROOT %both = (f32[16,16], u32[]) tuple(%y, %next)
}}

%condition (state: (f32[16,16], u32[])) -> pred[] {{
  %bound = u32[] constant({bound})
  %state = (f32[16,16], u32[]) parameter(0)
  %i = u32[] get-tuple-element(%state), index=1
  ROOT %less = pred[] compare(%i, %bound), direction=LT
}}

ENTRY %main (start: (f32[16,16], u32[])) -> (f32[16,16], u32[]) {{
  %start = (f32[16,16], u32[]) parameter(0)
  ROOT %while = (f32[16,16], u32[]) while(%start), condition=%condition, body=%body
}}
"""
    assert Program(text, MESH).flops == turns * 2 * 16**3


def test_of_a_stack_of_layers_a_turn_reads_its_slice():
    fused = next(k for k in Program(TEXT, MESH).kernels if k.name == "fusion.1")
    slice_twice, x, product = 2 * 16 * 64 * 2, 8 * 64 * 2, 8 * 16 * 2
    assert fused.times == 3
    # What lies in fast memory, S(1), is no traffic.
    assert slice_twice / 2 + x + product <= fused.bytes <= slice_twice + x + product


def test_a_convolution_counts_only_what_meets_its_input():
    text = """HloModule m

ENTRY %main (x: f32[5,1,7], k: f32[5,12,3]) -> f32[7,12,3] {
  %x = f32[5,1,7]{2,1,0} parameter(0)
  %k = f32[5,12,3]{2,1,0} parameter(1)
  ROOT %y = f32[7,12,3] convolution(%x, %k), window={size=12 pad=11_11 rhs_reversal=1}, dim_labels=f0b_i0o->b0f
}
"""
    assert Program(text, MESH).flops == 2 * 5 * 7 * 12 * 3


def test_what_goes_between_slices_is_what_their_chips_send_to_hosts():
    text = """HloModule m, is_scheduled=true

ENTRY %main (g: f32[256,64]) -> f32[256,64] {
  %g = f32[256,64]{1,0} parameter(0)
  %token = token[] after-all()
  %send = (f32[256,64]{1,0}, u32[], token[]) send(%g, %token), _xla_megascale_transfer_type="ALL_REDUCE"
  %recv = (f32[256,64]{1,0}, u32[], token[]) recv(%token), _xla_megascale_transfer_type="ALL_REDUCE"
  %sent = token[] send-done(%send)
  %received = (f32[256,64]{1,0}, token[]) recv-done(%recv)
  ROOT %sum = f32[256,64]{1,0} get-tuple-element(%received), index=0
}
"""
    (message,) = Program(text, MESH, {"dcn_data": 2}).collectives
    assert (message.kind, message.axes, message.group, message.bytes) == ("all-reduce", ("dcn_data",), 2, 256 * 64 * 4)


def permutation(between: str) -> Collective:
    text = f"""HloModule m

ENTRY %main (x: f32[8,16]) -> f32[8,16] {{
  %x = f32[8,16]{{1,0}} parameter(0)
  %start = (f32[8,16], f32[8,16], u32[], u32[]) collective-permute-start(%x), source_target_pairs={{{{0,1}},{{1,2}}}}
  %y = f32[8,16]{{1,0}} {between}(%x)
  ROOT %done = f32[8,16]{{1,0}} collective-permute-done(%start)
}}
"""
    (message,) = Program(text, MESH).collectives
    return message


def test_a_permutation_counts_its_array_and_not_its_counters():
    message = permutation("negate")
    assert (message.bytes, message.axes) == (8 * 16 * 4, ("fsdp",))


def test_a_message_is_hidden_by_the_kernels_between_its_beginning_and_its_end():
    assert permutation("negate").overlapped
    assert not permutation("bitcast").overlapped


@pytest.mark.parametrize("layers", [2, 5])
def test_a_scan_counts_as_its_steps_one_by_one(layers):
    x, weights = jax.ShapeDtypeStruct((8, 16), jnp.float32), jax.ShapeDtypeStruct((layers, 16, 16), jnp.float32)

    def scanned(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

    program = Program(jax.jit(scanned).lower(x, weights).compile().as_text(), {"data": 1})
    assert program.flops == layers * 2 * 8 * 16 * 16
