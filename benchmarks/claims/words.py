"""How the report writes names, numbers and tables."""

from collections.abc import Iterable, Iterator, Sequence

_SHORT = {"cho": "Cho", "rnnsearch": "RNNsearch", "transformer": "Transformer"}


def short(name: str) -> str:
    """A model by its name in a table."""
    return _SHORT[name]


def millions(count: float) -> str:
    return f"{count / 1e6:.2f} million"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The lines of a table in Markdown."""
    yield f"| {' | '.join(header)} |"
    yield f"|{' --- |' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
