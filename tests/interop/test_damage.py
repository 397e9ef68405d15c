"""Whatever happens to the bytes of a foreign folder, it is read as it stands or refused in one line."""

import random
import signal
import tracemalloc
from contextlib import contextmanager

import jax
import pytest
from foreign_models import gpt2_folder, marian_folder, openai_folder

from zoo.data.phrases.pairs import Phrases
from zoo.data.tokenizers import SentencePiece
from zoo.errors import UserError
from zoo.experiment import resolve
from zoo.interop import opened
from zoo.workdirs import load

CASES = {"gpt2": 170, "openai": 160, "marian": 170}  # 500
FEW = 12  # of each, in the suite
SECONDS = 10  # that one case may take, where all else on the machine stands still
ROOM = 2**21  # bytes that reading takes whatever the files hold: the parsed JSON, the library's own


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A whole folder of each format, and the shapes of its parameters."""
    root = tmp_path_factory.mktemp("whole")
    lines = [Phrases("en", "fr", "train", 0, 100)[i][0] for i in range(100)]
    tokenizer = SentencePiece.train(lines, 90, "unigram")
    pieces = [tokenizer.piece(i) for i in range(4, tokenizer.size)]
    found = {
        "gpt2": gpt2_folder(root / "gpt2"),
        "openai": openai_folder(root / "openai", width=64, layers=1),
        "marian": marian_folder(root / "marian", tokenizer.model(), pieces),
    }
    return {name: (folder, load(folder)._on_one_device()) for name, folder in found.items()}


def damaged(content: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.3:
        return content[: chance.randrange(len(content))]
    changed = bytearray(content)
    # The beginning, where headers are, is hit as often as all the rest.
    most = len(changed) if chance.random() < 0.5 else min(len(changed), 400)
    for _ in range(chance.choice((1, 1, 2, 8))):
        changed[chance.randrange(most)] ^= 1 << chance.randrange(8)
    return bytes(changed)


@contextmanager
def at_most(seconds):
    def late(*_):
        raise AssertionError(f"it takes more than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def read(folder, like):
    """Everything that opening a folder reads."""
    foreign = opened(folder)
    if foreign is None:
        raise UserError("not foreign")
    resolve(foreign.experiment)
    for tokenizer in foreign.tokenizers.values():
        tokenizer.decode(tokenizer.encode(["March 3, 2022"]))
    return foreign.parameters(like)


@pytest.mark.parametrize(
    ("name", "cases"),
    [(name, FEW) for name in CASES] + [pytest.param(*case, marks=pytest.mark.slow) for case in CASES.items()],
)
def test_damage_is_one_line_and_takes_no_memory(folders, tmp_path, name, cases):
    whole, like = folders[name]
    files = sorted(whole.iterdir())
    size = sum(path.stat().st_size for path in files)
    for path in files:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    jax.block_until_ready(read(tmp_path, like))
    refused = 0
    for seed in range(cases):
        chance = random.Random(seed)
        path = chance.choice(files)
        (tmp_path / path.name).write_bytes(damaged(path.read_bytes(), chance))
        tracemalloc.start()
        try:
            with at_most(SECONDS):
                read(tmp_path, like)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error), (seed, path.name)
        except Exception as error:
            raise AssertionError((seed, path.name, error)) from error
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 2 * size + ROOM, (seed, path.name, peak)
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert refused > cases / 4
