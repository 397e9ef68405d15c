"""The laws of labelled batches: every example once an epoch, labels that are the next tokens."""

from itertools import combinations

import numpy as np
import pytest

from zoo.data.batches.base import Share
from zoo.data.batches.labelled import StoredExamples, evaluation_examples, fitting_lengths, training_examples
from zoo.data.examples.labelled import Example
from zoo.data.specials import NOTHING
from zoo.data.tokenizers import Bytes
from zoo.errors import UserError

TEXTS = [Example("a" * n, ("b" * (12 - n),)) for n in range(1, 12)]


def stored(kind="similarity", examples=TEXTS, length=40):
    return StoredExamples(examples, np.arange(len(examples)), kind, Bytes(), length, "data.train='x'")


def test_the_labels_are_the_next_tokens_up_to_the_extract_token():
    batch = stored().take([0, 3], 3, 24)
    for row, answer, order in np.ndindex(2, 1, 2):
        inputs, labels, end = (x[row, answer, order] for x in (batch.inputs, batch.labels, batch.ends))
        assert (inputs[0], inputs[end]) == (260, 262)
        assert (labels[:end] == inputs[1 : end + 1]).all()
        assert (labels[end:] == NOTHING).all()
    assert batch.labelled.tolist() == [True, True, False]
    assert batch.targets[:2].tolist() == [0, 3]


def test_an_epoch_has_every_example_once_and_the_next_another_order():
    batches = training_examples(stored(), 11, 1, seed=3)
    orders = [next(batches).targets.tolist() for _ in range(2)]
    assert [sorted(order) for order in orders] == [list(range(11))] * 2
    assert orders[0] != orders[1]


@pytest.mark.parametrize("count", [2, 3, 4, 12])
def test_batches_that_do_not_divide_an_epoch_continue_into_the_next(count):
    batches = training_examples(stored(), count, 1, seed=3)
    stream = np.concatenate([next(batches).targets for _ in range(11 * 3)])
    for epoch in stream[: len(stream) // 11 * 11].reshape(-1, 11):
        assert sorted(epoch.tolist()) == list(range(11))


def test_examples_of_like_length_are_in_one_batch_and_shapes_are_few():
    random = np.random.default_rng(0)
    examples = stored("classification", [Example("a" * n) for n in random.integers(1, 120, 500)], 128)
    batches = training_examples(examples, 10, 1, seed=3)
    lengths = [next(batches).inputs.shape[-1] for _ in range(50)]
    assert len(set(lengths)) <= 4
    padded = [examples.longest([i]) for i in range(500)]
    # A batch at the border of two lengths is padded to the longer: three borders, nine examples each.
    assert sum(lengths) * 10 <= sum(padded) + 27 * 128


@pytest.mark.parametrize("seed", range(5))
def test_no_other_few_lengths_pad_less(seed):
    random = np.random.default_rng(seed)
    lengths = np.minimum(random.geometric(0.05, 60), 60)

    def size(chosen):
        return sum(min(end for end in chosen if end >= length) for length in lengths)

    found = fitting_lengths(lengths, 60, shapes=3)
    last = min(-(-lengths.max() // 8) * 8, 60)
    others = ({*chosen, last} for count in range(3) for chosen in combinations(range(8, last, 8), count))
    assert len(found) <= 3 and found[-1] == last
    assert size(found) == min(map(size, others))


def test_the_processes_shares_are_the_batch_of_one():
    whole = next(training_examples(stored(), 4, 2, seed=3))
    parts = [next(training_examples(stored(), 4, 2, 3, Share(index, 2))) for index in range(2)]
    for name in ("inputs", "labels", "ends", "targets"):
        assert (np.concatenate([getattr(part, name) for part in parts]) == getattr(whole, name)).all()


def test_an_evaluation_takes_every_example_once_in_batches_of_one_size():
    seen = [(indices, batch) for indices, batch in evaluation_examples(stored(), 4)]
    assert sorted(i for indices, _ in seen for i in indices) == list(range(11))
    assert {len(batch.targets) for _, batch in seen} == {4}
    assert sum(batch.labelled.sum() for _, batch in seen) == 11


def test_wrong_examples_are_reported():
    answers = [Example("a", ("b", "c"), "1"), Example("a", ("b",), "1")]
    with pytest.raises(UserError, match="examples of 1 and 2 answers"):
        stored("multiple_choice", answers)
    with pytest.raises(UserError, match=r"data.train='x' holds no examples"):
        stored(examples=[])
    with pytest.raises(UserError, match=r"data.batch_rows=4 does not divide by 3"):
        training_examples(stored(), 4, 3, 0)
