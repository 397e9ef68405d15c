"""Arranged parameters: a search finds the same with them, and slices no layer out of a stack."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from zoo.data.batches.base import Seq2SeqBatch
from zoo.data.specials import EOS
from zoo.decoding.arranged import arranged
from zoo.decoding.beam import BeamConfig, Request, beam_search
from zoo.decoding.ensemble import Ensemble
from zoo.models import build
from zoo.nn.quantization import quantized

SIZES = {"source_vocabulary": 20, "target_vocabulary": 20, "layers": 2, "width": 16, "ffn": 32, "heads": 2}
SOURCE = np.array([[5, 6, 7, EOS], [9, EOS, 0, 0]], np.int32)
REQUEST = Request(SOURCE, np.array([5, 3], np.int32), 6)


def scanned(dtype: str):
    model = build("transformer", "base", **SIZES, dtype=dtype)
    return model, nn.unbox(model.init(jax.random.key(0), Seq2SeqBatch(SOURCE, SOURCE, SOURCE)))["params"]


@pytest.mark.parametrize("dtype, quantize", [("float32", True), ("bfloat16", False)])
def test_a_search_finds_the_same_with_arranged_parameters(dtype, quantize):
    model, params = scanned(dtype)
    params = quantized(params) if quantize else params
    plain, fast = (
        beam_search(model, tree, REQUEST, BeamConfig(beam_size=2)) for tree in (params, arranged(model, params))
    )
    assert (plain.tokens == fast.tokens).all()
    np.testing.assert_allclose(plain.scores, fast.scores, rtol=1e-5)


def test_layers_are_taken_apart_and_kernels_converted_once_for_every_member_of_an_ensemble():
    model, params = scanned("bfloat16")
    model, params = Ensemble.of([model, model], [params, params])
    own = arranged(model, params)["members_1"]
    kernel = own["decoder"]["layers"]["1"]["feed_forward"]["expand"]["kernel"]
    assert kernel.shape == (16, 32) and kernel.dtype == "bfloat16"
    assert own["decoder"]["layers"]["1"]["feed_forward_residual"]["norm"]["scale"].dtype == "float32"
    assert arranged(model, arranged(model, params))["members_1"]["decoder"]["layers"].keys() == {"0", "1"}
