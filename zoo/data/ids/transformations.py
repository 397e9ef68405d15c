"""The input transformations of Radford et al. 2018, section 3.3 and Figure 1 (right): any example as plain sequences.

Each gives lists `[K][N]` of sequences of ids: `K` answers to compare, in `N` orders whose final states are added.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from zoo.data.ids.base import Ids

Sequences = list[list[Ids]]


@dataclass(frozen=True)
class Layout:
    """The three tokens that follow the tokenizer's `size` ids, and the maximal `length` of a sequence.

    The three tokens are never cut. Of two texts, the longer loses its end; a context loses its beginning, since the
    question is at its end.
    """

    size: int
    length: int

    ADDED = 3

    @property
    def start(self) -> int:
        return self.size

    @property
    def delimiter(self) -> int:
        return self.size + 1

    @property
    def extract(self) -> int:
        return self.size + 2

    def one(self, text: Ids) -> Ids:
        """`[start] text [extract]`."""
        return np.array([self.start, *text[: self.length - 2], self.extract], np.int32)

    def two(self, before: Ids, behind: Ids) -> Ids:
        """`[start] before [delimiter] behind [extract]`, without any cutting."""
        return np.array([self.start, *before, self.delimiter, *behind, self.extract], np.int32)

    @property
    def room(self) -> int:
        """For two texts."""
        return self.length - 3


def classification(layout: Layout, text: Ids, others: Sequence[Ids]) -> Sequences:
    """`[start] text [extract]`."""
    return [[layout.one(text)]]


def entailment(layout: Layout, premise: Ids, hypotheses: Sequence[Ids]) -> Sequences:
    """`[start] premise [delimiter] hypothesis [extract]`."""
    return [[layout.two(*_shortened(premise, hypotheses[0], layout.room))]]


def similarity(layout: Layout, text: Ids, others: Sequence[Ids]) -> Sequences:
    """Two texts in both orders, since neither comes first."""
    one, other = _shortened(text, others[0], layout.room)
    return [[layout.two(one, other), layout.two(other, one)]]


def multiple_choice(layout: Layout, context: Ids, answers: Sequence[Ids]) -> Sequences:
    """`[start] context [delimiter] answer [extract]` for each answer; no answer takes more than half of the length."""
    answers = [answer[: max(layout.room // 2, layout.room - len(context))] for answer in answers]
    return [[layout.two(context[max(len(context) + len(a) - layout.room, 0) :], a)] for a in answers]


TRANSFORMATIONS: dict[str, Callable[[Layout, Ids, Sequence[Ids]], Sequences]] = {
    f.__name__: f for f in (classification, entailment, similarity, multiple_choice)
}


def _shortened(one: Ids, other: Ids, room: int) -> tuple[Ids, Ids]:
    """Both texts, with tokens dropped from the end of the longer one until they fit."""
    short = min(len(one), len(other), room // 2)
    kept = room - short
    return (one[:kept], other[:short]) if len(one) > len(other) else (one[:short], other[:kept])
