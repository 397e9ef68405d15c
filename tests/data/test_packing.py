"""The laws of rows: every token once, behind its own past; an order of seed and epoch alone, and an exact position."""

from itertools import chain, islice, pairwise

import numpy as np
import pytest

from zoo.data.batches.base import Share
from zoo.data.batches.packing import HeldTokens, Rows, evaluation_rows, training_rows
from zoo.data.specials import NOTHING
from zoo.data.tokenizers import BOS, EOS
from zoo.errors import UserError

LENGTH = 7
SIZES = (3, 1, 20, 0, 6, 5)


def documents():
    """Ids that tell their document and their place: 100 · document + place."""
    return [100 * (n + 1) + np.arange(size) for n, size in enumerate(SIZES)]


@pytest.fixture(scope="module", params=Rows.PACKINGS)
def rows(request):
    return Rows(HeldTokens(documents()), LENGTH, request.param)


def whole(packing):
    before = [BOS] if packing == "segments" else []
    return [[*before, *ids.tolist(), EOS] for ids in documents()]


def test_a_stream_predicts_each_token_but_the_first_from_the_one_before():
    batch = Rows(HeldTokens(documents()), LENGTH, "stream").take(range(6))
    flat = list(chain(*whole("stream")))
    real = batch.labels != NOTHING
    assert real.sum() == len(flat) - 1
    assert batch.labels[real].tolist() == flat[1:]
    assert batch.inputs[real].tolist() == flat[:-1]


def test_each_segment_predicts_its_document_alone_and_positions_start_anew():
    rows = Rows(HeldTokens(documents()), LENGTH, "segments")
    batch = rows.take(range(len(rows)))
    pairs = [pair for ids in whole("segments") for pair in pairwise(ids)]
    real = batch.labels != NOTHING
    assert list(zip(batch.inputs[real].tolist(), batch.labels[real].tolist(), strict=True)) == pairs
    for inputs, segments, positions in zip(batch.inputs, batch.segments, batch.positions, strict=True):
        for segment in set(segments[segments > 0].tolist()):
            own = segments == segment
            assert positions[own].tolist() == list(range(own.sum()))
            assert len({int(i) // 100 for i in inputs[own] if i >= 100}) <= 1
        starts = inputs == BOS
        assert (positions[starts] == 0).all() and (np.diff(segments)[starts[1:]] == 1).all()


def test_evaluation_reads_every_row_once(rows):
    batches = list(evaluation_rows(rows, 4))
    assert {batch.inputs.shape for batch in batches} == {(4, LENGTH)}
    labels = np.concatenate([batch.labels for batch in batches])
    expected = rows.take(range(len(rows))).labels
    assert (labels[: len(rows)] == expected).all() and (labels[len(rows) :] == NOTHING).all()


def firsts(iterator, count):
    return [batch.inputs[:, 0].tolist() for batch in islice(iterator, count)]


def test_the_stream_continues_where_its_state_says(rows):
    stream = training_rows(rows, 2, 1, seed=3)
    firsts(stream, 5)
    state, expected = stream.get_state(), firsts(stream, 7)
    other = training_rows(rows, 2, 1, seed=3)
    other.set_state(state)
    assert firsts(other, 7) == expected


def test_an_epoch_has_every_row_once_and_the_next_another_order(rows):
    count = len(rows)
    seen = list(chain(*firsts(training_rows(rows, 1, 1, seed=0), 2 * count)))
    every = sorted(rows.take(range(count)).inputs[:, 0].tolist())
    assert sorted(seen[:count]) == sorted(seen[count:]) == every
    assert seen[:count] != seen[count:]
    assert seen != list(chain(*firsts(training_rows(rows, 1, 1, seed=1), 2 * count)))


def test_processes_share_a_batch(rows):
    together = firsts(training_rows(rows, 4, 2, seed=0), 5)
    parts = [firsts(training_rows(rows, 4, 2, 0, Share(index, 2)), 5) for index in range(2)]
    assert [one + other for one, other in zip(*parts, strict=True)] == together


def test_rows_that_no_shard_can_have_are_one_line(rows):
    with pytest.raises(UserError, match=r"data.batch_rows=3 does not divide by 2"):
        training_rows(rows, 3, 2, seed=0)
