"""The paper's pretraining as a config, and the size for a CPU."""

import pytest

from zoo.errors import UserError
from zoo.experiment import from_file
from zoo.models import registry


def test_the_config_is_the_papers():
    experiment = from_file("gpt1_books.py")
    assert (experiment.data.tokenizer, experiment.data.packing) == ("gpt1", "stream")
    assert (experiment.data.batch_rows, experiment.data.length) == (64, 512)
    optimizer = experiment.optimizer
    assert (optimizer.peak, optimizer.warmup, optimizer.schedule) == (2.5e-4, 2000, "cosine")
    assert (optimizer.clip, optimizer.decay) == (1.0, 0.01)
    assert experiment.model.config() == registry.config("gpt", "gpt1")
    tokens = experiment.train.steps * 64 * 512
    assert 95 < tokens / 26e6 < 105  # epochs


def test_the_small_size_has_the_parameters_that_its_config_says():
    experiment = from_file("gpt1_books.py:small")
    model = experiment.model.config(vocabulary=experiment.data.vocabulary)
    assert registry.parameter_count(model) == pytest.approx(2.6e6, rel=0.02)
    assert experiment.name == "gpt1_books-small"


def test_another_size_is_one_line():
    with pytest.raises(UserError, match="'smal' is no size of this config: did you mean 'small'"):
        from_file("gpt1_books.py:smal")
