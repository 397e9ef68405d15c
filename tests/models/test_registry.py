"""The laws of the registry: a model in one line, and a misspelt name that is put right."""

import jax
import pytest

from zoo.errors import UserError
from zoo.models import build, registry


@pytest.mark.parametrize(("name", "size"), [(name, size) for name, f in registry.FAMILIES.items() for size in f.sizes])
def test_every_published_size_is_built_in_one_line(name, size):
    model = build(name, size)
    assert model.config == registry.FAMILIES[name].sizes[size]
    assert registry.of(model.config) == model
    hash(model)  # a static argument of compiled functions


def test_fields_are_changed_in_the_same_line_and_in_no_other_model():
    model = build("transformer", "tiny", dropout=0.0, layers=2)
    assert (model.config.dropout, model.config.layers, model.config.width) == (0.0, 2, 128)
    assert build("transformer", "tiny").config.dropout == 0.3


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        (("transfromer", "base", {}), r"model.name='transfromer'.*'transformer'"),
        (("transformer", "bsae", {}), r"model.size='bsae'.*'base'"),
        (("transformer", "base", {"layer": 3}), r"model.layer .*'layers'"),
        (("transformer", "base", {"heads": 7}), r"model.heads=7"),
        (("xyzzy", "base", {}), r"known: .*transformer"),
    ],
)
def test_a_misspelt_name_is_put_right_in_one_line(wrong, remedy):
    name, size, fields = wrong
    with pytest.raises(UserError, match=remedy) as error:
        build(name, size, **fields)
    assert "\n" not in str(error.value)


def test_building_allocates_nothing():
    before = len(jax.live_arrays())
    build("transformer", "big")
    assert len(jax.live_arrays()) == before
