"""Kernels are found where the model's own names put them."""

import pytest

from zoo.planning.places import OTHER, bytes_by_place, place
from zoo.planning.program import Kernel


@pytest.mark.parametrize(
    "label, where",
    [
        (
            "jit(update)/jvp(GPT)/decoder/while/body/closed_call/layers/attention_residual/attention/query/dot",
            "attention",
        ),
        ("jit(update)/transpose(jvp(GPT))/decoder/while/body/layers/self_attention/bhts,bshd->bthd/dot", "attention"),
        ("jit(update)/jvp(Transformer)/decoder/layers/cross_attention_residual/norm/mul", "norms and residuals"),
        ("jit(update)/jvp(GPT)/decoder/layers/attention_residual/attention/dropout/lt", "dropout"),
        ("jit(update)/jvp(GPT)/decoder/layers/feed_forward_residual/feed_forward/expand/dot_general", "feed-forward"),
        ("jit(update)/jvp(GPT)/decoder/while/body/jit(dynamic_update_index_in_dim)/dus", "saved activations"),
        ("jit(update)/jvp(GPT)/GPT._embed/embedding/jit(_take)/gather", "embedding"),
        ("jit(update)/transpose(jvp(loss))/while/body/dot_general", "loss"),
        ("jit(update)/optimizer/add", "optimizer"),
        ("jit(update)/add", OTHER),
    ],
)
def test_the_innermost_scope_that_is_known_decides(label, where):
    assert place(label) == where


def test_a_kernel_is_where_its_result_is_or_else_what_it_fuses():
    kernels = [
        Kernel("one", "fusion", ("jit(update)/add", "jit(update)/optimizer/mul"), (), 10, 1),
        Kernel("two", "fusion", ("jit(update)/jvp(loss)/add", "jit(update)/optimizer/mul"), (), 5, 12),
        Kernel("three", "copy", (), (), 7, 1),
    ]
    assert bytes_by_place(kernels) == {"optimizer": 10, "loss": 60, OTHER: 7}
