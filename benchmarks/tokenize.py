"""Tokens per second of each tokenizer's batch call on a text of your own."""

import argparse
import time
from collections.abc import Sequence
from itertools import islice
from typing import Any

from benchmarks.measuring import Result
from zoo.data import tokenizers
from zoo.data.examples.documents import documents


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, metavar="FILE", help="a text file, a folder or an archive of them")
    parser.add_argument("--characters", type=int, default=10_000_000, help="of the text, at most (default: 10,000,000)")
    parser.add_argument("--vocabulary", type=int, default=8000, help="pieces to learn (default: 8000)")
    for name in tokenizers.PUBLISHED:
        parser.add_argument(f"--{name}", metavar="DIR", help=f"the published files of {name}: measure it too")


def run(arguments: argparse.Namespace) -> Result:
    texts = _beginning(documents(arguments.data, "train"), arguments.characters)
    lines = list(islice((line for text in texts for line in text.splitlines(keepends=True)), 50_000))
    rows = []
    for kind in tokenizers.LEARNED:
        rows.append(_row(kind, tokenizers.train_lossless(kind, lines, arguments.vocabulary), texts))
    for name in tokenizers.PUBLISHED:
        if directory := getattr(arguments, name):
            rows.append(_row(name, tokenizers.published(name, directory, f"--{name}"), texts))
    return Result("tokenize", rows)


def _beginning(found: Any, most: int) -> list[str]:
    texts = []
    for text in found:
        texts.append(text[: most - sum(map(len, texts))])
        if sum(map(len, texts)) >= most:
            break
    return texts


def _row(name: str, tokenizer: tokenizers.Tokenizer, texts: Sequence[str]) -> dict[str, Any]:
    """The first call meets every word for the first time; a second one has seen them."""
    first, tokens = _seconds(tokenizer, texts)
    again, _ = _seconds(tokenizer, texts)
    return {
        "system": f"zoo {name}",
        "tokens_per_second": tokens / first,
        "tokens_per_second_again": tokens / again,
        "megabytes_per_second": sum(len(text.encode()) for text in texts) / 1e6 / first,
        "vocabulary": tokenizer.size,
    }


def _seconds(tokenizer: tokenizers.Tokenizer, texts: Sequence[str]) -> tuple[float, int]:
    start = time.perf_counter()
    ids = tokenizer.encode(list(texts))
    return time.perf_counter() - start, sum(map(len, ids))
