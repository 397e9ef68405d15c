"""The laws of batching: every pair once, in a bucket that holds it, within the budget."""

import numpy as np
import pytest

from zoo.data.batches.buckets import Buckets, cut, padded
from zoo.data.ids.base import length
from zoo.data.ids.pairs import Limits
from zoo.data.tokenizers import BOS, EOS, PAD
from zoo.errors import UserError


def ids(size, first=4):
    return np.arange(first, first + size, dtype=np.int32)


def pairs_of(count, longest, seed=0):
    """Pairs whose sides have 1 to `longest - 1` tokens."""
    random = np.random.default_rng(seed)
    return [(ids(a), ids(b)) for a, b in random.integers(1, longest, (count, 2))]


CUTS = [(n, Buckets.up_to(40, 160, multiple)) for n in (1, 7, 200, 1000) for multiple in (1, 2, 4)]
CUTS += [(300, Buckets.up_to(40, 40)), (300, Buckets.up_to(40, 10_000)), (300, Buckets.up_to(40, 100, steps=(5, 11)))]
BY_SENTENCES = [(n, Buckets.of_sentences(40, 20, 4)) for n in (1, 19, 20, 300)]


@pytest.mark.parametrize(("count", "buckets"), CUTS + BY_SENTENCES)
def test_every_pair_stands_in_one_batch_that_holds_it(count, buckets):
    pairs = pairs_of(count, 40)
    batches = cut(pairs, buckets)
    assert sorted(i for _, chosen in batches for i in chosen) == list(range(count))
    assert all(length(pairs[i]) <= boundary for boundary, chosen in batches for i in chosen)


@pytest.mark.parametrize(("count", "buckets"), CUTS + BY_SENTENCES)
def test_only_the_last_batch_is_partly_filled(count, buckets):
    batches = cut(pairs_of(count, 40), buckets)
    assert all(len(chosen) == buckets.rows(boundary) for boundary, chosen in batches[:-1])
    assert 0 < len(batches[-1][1]) <= buckets.rows(batches[-1][0])


@pytest.mark.parametrize("tokens", [160, 161, 10_000])
@pytest.mark.parametrize("multiple", [1, 2, 4])
def test_rows_fill_the_budget_and_are_a_multiple_of_what_is_asked(tokens, multiple):
    buckets = Buckets.up_to(40, tokens, multiple)
    for boundary in buckets.boundaries:
        rows = buckets.rows(boundary)
        assert rows > 0 and rows % multiple == 0
        assert rows * boundary <= tokens < (rows + multiple) * boundary


def test_a_pool_is_sorted_by_length_and_cut_into_batches_of_as_many_sentences():
    """Bahdanau et al. 2015, appendix B.2: 1600 pairs are fetched, sorted by length and cut into 20 batches of 80."""
    pairs, buckets = pairs_of(1600, 40), Buckets.of_sentences(40, 80, 1)
    batches = cut(pairs, buckets)
    assert [len(chosen) for _, chosen in batches] == [80] * 20
    lengths = [length(pairs[i]) for _, chosen in batches for i in chosen]
    assert lengths == sorted(lengths)
    for boundary, chosen in batches:
        assert boundary == min(b for b in buckets.boundaries if b >= max(length(pairs[i]) for i in chosen))


def test_sentences_that_cannot_be_dealt_out_evenly_are_one_line():
    with pytest.raises(UserError, match=r"data.batch_sentences=80 does not divide by 3.*accumulate.*use 81") as error:
        Buckets.of_sentences(40, 80, 3)
    assert "\n" not in str(error.value)
    assert Buckets.of_sentences(40, 81, 3).rows(40) == 81


def test_nothing_is_cut_into_nothing():
    assert cut([], Buckets.up_to(8, 64)) == []


def test_pairs_of_one_length_go_together():
    """Waiting pairs may move one bucket up, so at most one batch of a bucket holds shorter ones."""
    pairs, buckets = pairs_of(1000, 40), Buckets.up_to(40, 160)
    for boundary, lower in zip(buckets.boundaries[1:], buckets.boundaries, strict=False):
        mixed = [c for b, c in cut(pairs, buckets)[:-1] if b == boundary and min(length(pairs[i]) for i in c) <= lower]
        assert len(mixed) <= 1


@pytest.mark.parametrize("longest", [2, 8, 9, 64, 100, 500])
def test_boundaries_grow_up_to_the_longest(longest):
    boundaries = Buckets.up_to(longest, 10_000).boundaries
    assert boundaries[-1] == longest and list(boundaries) == sorted(set(boundaries))
    assert all(b % 8 == 0 for b in boundaries[:-1])
    assert len(boundaries) <= 14  # few shapes, few compilations


def test_boundaries_can_be_given():
    assert Buckets.up_to(30, 1000, steps=[20, 10, 40]).boundaries == (10, 20, 30)


@pytest.mark.parametrize(("tokens", "multiple"), [(39, 1), (79, 2), (319, 8)])
def test_a_batch_below_the_longest_sentence_is_one_line(tokens, multiple):
    with pytest.raises(
        UserError, match=f"data.batch_tokens={tokens}.*data.max_length=40.*at least {40 * multiple}"
    ) as e:
        Buckets.up_to(40, tokens, multiple)
    assert "\n" not in str(e.value)
    assert Buckets.up_to(40, tokens + 1, multiple).rows(40) == multiple


def test_padded_rows_read_back_as_the_pairs():
    pairs = [(ids(3), ids(5)), (ids(7), ids(1))]
    batch = padded(pairs, rows=4, boundary=8)
    assert batch.source.tolist()[0] == [4, 5, 6, EOS, PAD, PAD, PAD, PAD]
    assert batch.source.shape == batch.inputs.shape == batch.labels.shape == (4, 8)
    for row, (source, target) in enumerate(pairs):
        assert batch.source[row][batch.source[row] != PAD].tolist() == [*source, EOS]
        assert batch.inputs[row][batch.inputs[row] != PAD].tolist() == [BOS, *target]
        assert batch.labels[row][batch.labels[row] != PAD].tolist() == [*target, EOS]
    assert all((rows[2:] == PAD).all() for rows in (batch.source, batch.inputs, batch.labels))
    assert (batch.labels[0, :5] == batch.inputs[0, 1:6]).all()  # what is predicted is the next input


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ((3, 9), None),
        ((0, 5), "an empty side"),
        ((5, 0), "an empty side"),
        ((10, 9), "more than data.max_length=10 tokens"),
        ((9, 10), "more than data.max_length=10 tokens"),
        ((2, 7), "a length ratio above data.max_ratio=3"),
        ((7, 2), "a length ratio above data.max_ratio=3"),
        ((2, 6), None),
    ],
)
def test_a_pair_that_breaks_a_limit_is_dropped_with_its_reason(sizes, reason):
    assert Limits(max_length=10, max_ratio=3.0).broken((ids(sizes[0]), ids(sizes[1]))) == reason
    if reason and "ratio" in reason:
        assert Limits(max_length=10).broken((ids(sizes[0]), ids(sizes[1]))) is None
