"""The batches of every task: the same on any number of devices, and never awaited in vain."""

import logging

import pytest

from zoo.decoding.beam import BeamConfig
from zoo.errors import UserError
from zoo.experiment import from_file
from zoo.tasks import translation
from zoo.tasks.translation import Translation, TranslationData

CONFIGS = ["phrases.py", "multi30k.py:en-de", "gpt.py", "gpt1_finetune.py:rte", "bahdanau2014.py"]


@pytest.mark.parametrize("config", CONFIGS)
def test_one_two_four_and_eight_devices_train_on_batches_of_the_same_shapes(config):
    data = from_file(config, [("data.batch_sentences", "80")] if config.startswith("bahdanau") else []).data
    one, *others = (data.batch_shapes(shards) for shards in (1, 2, 4, 8))
    assert all(other == one for other in others)


def test_a_mesh_that_needs_more_rows_gets_them():
    data = TranslationData(train="phrases", max_length=64, batch_tokens=4096)
    assert all(rows % 16 == 0 for rows in data.buckets(16).counts)
    assert all(rows % 24 == 0 for rows in data.buckets(3).counts)
    few = TranslationData(train="phrases", max_length=64, batch_tokens=256)  # room for four of the longest
    assert few.buckets(1).counts[-1] == few.buckets(4).counts[-1] == 4
    assert few.buckets(3).counts[-1] == 3
    with pytest.raises(UserError, match=r"data.batch_tokens=256"):
        few.buckets(8)


@pytest.fixture
def phrases(workdir):
    """The task of endless phrases with the tokenizers of a trained directory."""

    def task(**settings):
        data = TranslationData(train="phrases", batch_tokens=512, **settings)
        return Translation(data, BeamConfig(), 0.0, workdir)

    return task


def test_a_mesh_that_needs_more_rows_is_reported(phrases, caplog):
    with caplog.at_level(logging.INFO, "zoo"):
        phrases(max_length=24, pool=100).training_batches(2)
        assert "rows_multiple" not in caplog.text
        phrases(max_length=24, pool=100).training_batches(16)
    assert "multiples of 16 rows, since they are cut into 16 parts" in caplog.text


def test_endless_pairs_have_batches_without_a_pool_of_ones_own(phrases, monkeypatch):
    monkeypatch.setattr(translation, "STREAMED_POOL", 100)
    batch = next(phrases(max_length=64).training_batches(1))
    assert batch.source.any()


def test_endless_pairs_that_are_dropped_in_part_are_counted(phrases, caplog):
    with caplog.at_level(logging.INFO, "zoo"):
        next(phrases(max_length=24, pool=100).training_batches(1))
    assert "of the first 1000 pairs" in caplog.text and "more than data.max_length=24 tokens" in caplog.text


def test_endless_pairs_that_are_all_dropped_are_one_line_and_no_endless_wait(phrases):
    told = r"no sentence pairs are left of data.train='phrases': 1000 with more than data.max_length=2 tokens"
    with pytest.raises(UserError, match=told):
        phrases(max_length=2).training_batches(1)
