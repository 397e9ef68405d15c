"""Figure 1 (right) of Radford et al. 2018, token by token; what is too long loses text and never an added token."""

import numpy as np
import pytest

from zoo.data.ids.transformations import TRANSFORMATIONS, Layout

START, DELIMITER, EXTRACT = 100, 101, 102
ONE, OTHER, THIRD = np.array([1, 2, 3]), np.array([7, 8]), np.array([9])


def laid_out(kind, first, *seconds, length=20):
    sequences = TRANSFORMATIONS[kind](Layout(100, length), first, seconds)
    return [[row.tolist() for row in answer] for answer in sequences]


@pytest.mark.parametrize(
    ("kind", "texts", "expected"),
    [
        ("classification", [ONE], [[[START, 1, 2, 3, EXTRACT]]]),
        ("entailment", [ONE, OTHER], [[[START, 1, 2, 3, DELIMITER, 7, 8, EXTRACT]]]),
        (
            "similarity",
            [ONE, OTHER],
            [[[START, 1, 2, 3, DELIMITER, 7, 8, EXTRACT], [START, 7, 8, DELIMITER, 1, 2, 3, EXTRACT]]],
        ),
        (
            "multiple_choice",
            [ONE, OTHER, THIRD],
            [[[START, 1, 2, 3, DELIMITER, 7, 8, EXTRACT]], [[START, 1, 2, 3, DELIMITER, 9, EXTRACT]]],
        ),
    ],
)
def test_an_example_is_laid_out_as_in_the_figure(kind, texts, expected):
    assert laid_out(kind, *texts) == expected


@pytest.mark.parametrize(
    ("kind", "texts", "length", "expected"),
    [
        ("classification", [ONE], 4, [[[START, 1, 2, EXTRACT]]]),
        ("entailment", [ONE, OTHER], 7, [[[START, 1, 2, DELIMITER, 7, 8, EXTRACT]]]),
        ("entailment", [OTHER, ONE], 7, [[[START, 7, 8, DELIMITER, 1, 2, EXTRACT]]]),
        (
            "similarity",
            [ONE, ONE],
            8,
            [[[START, 1, 2, DELIMITER, 1, 2, 3, EXTRACT], [START, 1, 2, 3, DELIMITER, 1, 2, EXTRACT]]],
        ),
        # A question stands at the end of its context.
        (
            "multiple_choice",
            [ONE, OTHER, THIRD],
            6,
            [[[START, 2, 3, DELIMITER, 7, EXTRACT]], [[START, 2, 3, DELIMITER, 9, EXTRACT]]],
        ),
    ],
)
def test_the_longer_text_and_the_beginning_of_a_context_are_cut(kind, texts, length, expected):
    assert laid_out(kind, *texts, length=length) == expected


@pytest.mark.parametrize("kind", TRANSFORMATIONS)
@pytest.mark.parametrize("length", [5, 6, 11, 29])
def test_every_length_that_a_text_can_have_fits_with_the_added_tokens_whole(kind, length):
    for first in range(12):
        for second in range(12):
            texts = [np.arange(first), np.arange(second)][: 1 if kind == "classification" else 2]
            for row in (row for answer in laid_out(kind, *texts, length=length) for row in answer):
                assert (row[0], row[-1], len(row)) == (
                    *(START, EXTRACT),
                    min(length, sum(map(len, texts)) + 1 + len(texts)),
                )
                assert row.count(DELIMITER) == len(texts) - 1
