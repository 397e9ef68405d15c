"""The laws of multipliers: a pattern means the same layers in either layout of a stack; new rows are on their own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from zoo.errors import UserError
from zoo.training.multipliers import Factors, Multiplier, multiplied

LAYERS = 4
SCANNED = {
    "body/embedding/table": (9, 2),
    "body/positions/table": (5, 2),
    "body/decoder/layers/attention/kernel": (4, 2, 2),
    "body/decoder/layers/norm/scale": (4, 2),
    "body/decoder_norm/scale": (2,),
    "head/kernel": (2, 3),
}
ADDED = {"body/embedding/table": 3}


def unrolled(shapes):
    found = {}
    for path, shape in shapes.items():
        if "/layers/" not in path:
            found[path] = shape
            continue
        found |= {path.replace("layers", f"layers_{i}"): shape[1:] for i in range(LAYERS)}
    return found


def factors(*texts, shapes=SCANNED, **how):
    return Factors([Multiplier.of(text) for text in texts], **how).of(shapes)


@pytest.mark.parametrize(
    ("text", "of_layers"),
    [
        ("layers=0.5", [0.5] * 4),
        ("body/layers[0:2]=0", [0, 0, 1, 1]),
        ("body/decoder/layers[2:]=0.5", [1, 1, 0.5, 0.5]),
        ("layers[-1]=0", [1, 1, 1, 0]),
        ("layers[1]=0", [1, 0, 1, 1]),
        ("layers_2=0", [1, 1, 0, 1]),
        ("body/decoder/layers_(0|3)/=0", [0, 1, 1, 0]),
        ("decoder/layers/attention=0.5", [0.5] * 4),
    ],
)
def test_a_pattern_means_the_same_layers_scanned_or_not(text, of_layers):
    scanned, each = factors(text), factors(text, shapes=unrolled(SCANNED))
    path = "body/decoder/layers/attention/kernel"
    found = np.broadcast_to(scanned[path], 4).tolist()
    assert found == of_layers
    assert [float(each[path.replace("layers", f"layers_{i}")]) for i in range(4)] == of_layers
    assert float(scanned["head/kernel"]) == 1


def test_a_slice_continues_with_a_path():
    found = factors("layers[:2]/attention=0")
    assert found["body/decoder/layers/attention/kernel"].tolist() == [0, 0, 1, 1]
    assert float(found["body/decoder/layers/norm/scale"]) == 1


def test_rates_fall_with_depth_from_the_head_to_the_embeddings():
    found = factors(layer_decay=0.5, added=ADDED)
    assert found["body/decoder/layers/norm/scale"].tolist() == [2**-4, 2**-3, 2**-2, 2**-1]
    assert found["body/embedding/table"].tolist() == [2**-5] * 6 + [1] * 3
    assert [float(found[path]) for path in ("body/positions/table", "body/decoder_norm/scale", "head/kernel")] == [
        *(2**-5, 1, 1)
    ]


def test_a_frozen_table_leaves_its_new_rows_to_train():
    assert factors("body/embedding=0", added=ADDED)["body/embedding/table"].tolist() == [0] * 6 + [1] * 3
    assert factors("body=0", "markers=0", added=ADDED)["body/embedding/table"] == 0


@pytest.mark.parametrize("texts", [("layers[0:2]=0",), ("layers_1=0", "layers_2=0.5"), ("body/embedding=0",)])
def test_frozen_layers_and_rows_stay_bit_by_bit_and_have_no_moments(texts):
    """The others change as they would alone."""
    shapes = {path: shape for path, shape in SCANNED.items() if path.startswith("body")}
    keys = iter(jax.random.split(jax.random.key(0), 99))
    params, slopes = (
        unflatten_dict({path: jax.random.normal(next(keys), shape) for path, shape in shapes.items()}, sep="/")
        for _ in range(2)
    )
    made = Factors([Multiplier.of(text) for text in texts], added=ADDED)
    rule, plain = multiplied(optax.adam(0.1), made), optax.adam(0.1)
    state = rule.init(params)
    changes, _ = rule.update(slopes, state, params)
    unfrozen, _ = plain.update(slopes, plain.init(params), params)
    changes, unfrozen = flatten_dict(changes, sep="/"), flatten_dict(unfrozen, sep="/")
    for path, factor in made.of(shapes).items():
        column = factor.reshape(-1, *(1,) * (len(shapes[path]) - 1)) if factor.ndim else factor
        np.testing.assert_allclose(changes[path], unfrozen[path] * column, rtol=1e-6)
    moments = sum(leaf.size for leaf in jax.tree.leaves(state) if leaf.ndim)
    kept = (np.broadcast_to(f.reshape(-1, 1) if f.ndim else f, (SCANNED[p][0], 1)) for p, f in made.of(shapes).items())
    trained = sum(int((rows > 0).sum()) * int(np.prod(shapes[p][1:])) for p, rows in zip(shapes, kept, strict=True))
    assert moments == 2 * trained


@pytest.mark.parametrize(("text", "told"), [("layers[9]=0", r"'layers\[9\]'"), ("layers[a]=0", "is not|no parameter")])
def test_missing_layers_are_reported(text, told):
    with pytest.raises(UserError, match=told):
        factors(text)


def test_the_norm_of_a_gradient_leaves_frozen_layers_out():
    rule = multiplied(optax.clip_by_global_norm(1.0), Factors([Multiplier.of("layers[0]=0")]))
    params = {"layers": {"kernel": jnp.ones((2, 3))}}
    changes, _ = rule.update(params, rule.init(params), params)
    assert float(jnp.linalg.norm(changes["layers"]["kernel"])) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (
            [
                "encoder_0/input",
                "encoder_1/input",
                "decoder_0/input",
                "decoder_1/bias",
                "source_embedding/table",
                "output",
            ],
            [0.25, 0.5, 0.25, 0.5, 0.125, 1],
        ),
        (["encoder/forward/gates", "decoder/gates", "alignment/query", "target_embedding/table"], [0.5, 0.5, 1, 0.25]),
        (["encoder/layers_0/x", "encoder/layers_1/x", "encoder/norm/scale", "embedding/table"], [0.25, 0.5, 1, 0.125]),
    ],
    ids=["layers by number", "one layer", "a stack"],
)
def test_rates_fall_with_depth_in_every_kind_of_model(paths, expected):
    factors = Factors([], layer_decay=0.5).of(dict.fromkeys(paths, (4,)))
    assert [float(factors[path]) for path in paths] == expected
