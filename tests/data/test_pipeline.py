"""The laws of the training stream: whole epochs, an order of seed and epoch alone, an exact position, equal shares."""

from collections.abc import Sequence
from itertools import islice

import numpy as np
import pytest

from zoo.data.batches.base import Share
from zoo.data.batches.buckets import Buckets, given_batches
from zoo.data.batches.pairs import training_batches
from zoo.data.ids.pairs import Encoder, Limits, StoredPairs, StreamedPairs
from zoo.data.tokenizers import EOS, PAD, WordVocabulary
from zoo.errors import UserError

COUNT, POOL = 150, 40  # the last pool of an epoch is a part of one
BUCKETS = Buckets.up_to(20, 80, rows_multiple=4, steps=(8, 12))
SENTENCES = Buckets.of_sentences(20, 4, rows_multiple=4, steps=(8, 12))  # ten batches a pool


@pytest.fixture(scope="module")
def examples():
    """Pairs of any length; the first id of a source is its number."""
    random = np.random.default_rng(0)

    def side(first):
        return np.array([first, *random.integers(4, 30, random.integers(1, 18))], np.int32)

    return StoredPairs((side(100 + i), side(500 + i)) for i in range(COUNT))


def stream(examples, seed=0, pool=POOL, **share):
    return training_batches(examples, BUCKETS, pool, seed, Share(**share))


def take(iterator, count):
    return list(islice(iterator, count))


def numbers(batch):
    """The sources' numbers of the rows that are not empty."""
    return [int(first) - 100 for first in batch.source[:, 0] if first != PAD]


def equal(one, other):
    sides = ("source", "inputs", "labels")
    return all(np.array_equal(getattr(one, side), getattr(other, side)) for side in sides)


def epochs(examples, count, **options):
    """The numbers of whole epochs, each in its order."""
    iterator, read = stream(examples, **options), []
    while len(read) < count * COUNT:
        read += numbers(next(iterator))
    return [read[i * COUNT : (i + 1) * COUNT] for i in range(count)]


@pytest.mark.parametrize("pool", [1, 40, 75, 150, 10_000])
def test_every_pair_is_read_once_an_epoch(examples, pool):
    for epoch in epochs(examples, 3, pool=pool):
        assert sorted(epoch) == list(range(COUNT))


def test_a_single_pair_is_an_epoch():
    one = StoredPairs([(np.array([100, 5]), np.array([500]))])
    assert [numbers(batch) for batch in take(stream(one), 3)] == [[0]] * 3


def test_pools_are_drawn_anew_each_epoch(examples):
    """In a pool that is one batch, so that the order of batches within a pool has no part in it."""
    whole = Buckets.up_to(20, 20 * POOL)
    batches = take(training_batches(examples, whole, POOL, 0), 8)
    assert {len(numbers(batch)) for batch in batches} == {POOL, COUNT % POOL}
    assert set(numbers(batches[0])) != set(numbers(batches[4]))


@pytest.mark.smoke
def test_every_row_is_a_pair_as_it_was_stored(examples):
    for batch in take(stream(examples), 20):
        for source, labels in zip(batch.source, batch.labels, strict=True):
            if source[0] == PAD:
                assert (labels == PAD).all()
                continue
            [(one, other)] = examples.fetch([int(source[0]) - 100])
            assert source[source != PAD].tolist() == [*one, EOS]
            assert labels[labels != PAD].tolist() == [*other, EOS]


def test_shapes_are_those_of_the_buckets(examples):
    shapes = {batch.source.shape for batch in take(stream(examples), 60)}
    assert shapes <= {(BUCKETS.rows(b), b) for b in BUCKETS.boundaries}


def test_the_order_is_decided_by_seed_and_epoch(examples):
    first, second = epochs(examples, 2)
    assert first != second
    assert [first, second] == epochs(examples, 2)
    assert epochs(examples, 1, seed=1)[0] not in (first, second)


def test_batches_do_not_come_shortest_first(examples):
    widths = [batch.source.shape[1] for batch in take(stream(examples, pool=COUNT), 20)]
    assert widths != sorted(widths)


@pytest.fixture(scope="module")
def read(examples):
    """Two epochs and more, and the state before each batch."""
    iterator, states, batches = stream(examples), [], []
    for _ in range(90):
        states.append(iterator.get_state())
        batches.append(next(iterator))
    assert sum(len(numbers(b)) for b in batches) > 2 * COUNT
    return states, batches


@pytest.mark.parametrize("position", [0, 1, 3, 17, 29, 30, 31, 32, 33, 34, 35, 36, 64, 80])
def test_a_state_restores_exactly_the_batches_that_come_next(examples, read, position):
    """At the beginning, inside a pool, around the end of an epoch; in an iterator that has read something else."""
    states, batches = read
    iterator = stream(examples)
    take(iterator, position % 5)
    iterator.set_state(states[position])
    assert all(map(equal, take(iterator, 10), batches[position : position + 10]))


def test_batches_of_as_many_sentences_lose_none_and_keep_their_place(examples):
    iterator, states, batches = training_batches(examples, SENTENCES, POOL, 0), [], []
    while sum(len(numbers(batch)) for batch in batches) < COUNT:
        states.append(iterator.get_state())
        batches.append(next(iterator))
    assert sorted(n for batch in batches for n in numbers(batch)) == list(range(COUNT))
    assert {len(batch.source) for batch in batches} == {4}
    assert sorted(len(numbers(batch)) for batch in batches) == [COUNT % 4] + [4] * (COUNT // 4)
    for position in (0, 7, 10, 33):
        again = training_batches(examples, SENTENCES, POOL, 0)
        again.set_state(states[position])
        assert all(map(equal, take(again, 4), batches[position : position + 4]))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_shares_of_all_processes_are_the_batch(examples, read, count):
    shares = [take(stream(examples, index=index, count=count), 40) for index in range(count)]
    for whole, *parts in zip(read[1], *shares, strict=False):
        together = type(whole)(*(np.concatenate(rows) for rows in zip(*map(sides, parts), strict=True)))
        assert equal(together, whole)
        assert {len(part.source) for part in parts} == {len(whole.source) // count}


def sides(batch):
    return batch.source, batch.inputs, batch.labels


@pytest.mark.parametrize("tokens", [1, 80])
def test_evaluation_reads_every_pair_once(examples, tokens):
    read = list(given_batches(examples.fetch(range(COUNT)), tokens))
    assert sorted(n for _, batch in read for n in numbers(batch)) == list(range(COUNT))


class Words(Sequence):
    """An endless source as the embedded one is: the same pair for the same number, most with one side too long."""

    def __len__(self):
        return 2**40

    def __getitem__(self, number):
        return f"w{number % 7}", " ".join(["w1"] * (number % 9))


def encoder():
    vocabulary = WordVocabulary([f"w{i}" for i in range(7)])
    return Encoder(vocabulary, vocabulary, Limits(max_length=8))


def test_an_endless_source_is_read_as_it_comes_and_never_twice():
    streamed = StreamedPairs(Words(), encoder())
    buckets = Buckets.up_to(8, 80)
    labels = [row for batch in take(training_batches(streamed, buckets, 90, 0), 12) for row in batch.labels if row[0]]
    lengths = np.bincount([(row != PAD).sum() - 1 for row in labels], minlength=9)
    assert lengths[0] == lengths[8] == 0  # the limits' work
    assert lengths[1:8].min() > 0


def test_pairs_that_break_a_limit_are_counted_by_reason():
    counting = encoder()
    kept = list(counting(Words()[i] for i in range(18)))
    assert len(kept) == 14
    assert counting.dropped == {"an empty side": 2, "more than data.max_length=8 tokens": 2}


def test_data_of_which_nothing_is_left_is_one_line_with_the_reasons():
    with pytest.raises(UserError, match=r"left of valid: 3 with an empty side") as error:
        StoredPairs.read([("w1", "")] * 3, encoder(), "valid")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"left of test: it is empty"):
        StoredPairs.read([], encoder(), "test")
