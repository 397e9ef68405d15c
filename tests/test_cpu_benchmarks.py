"""The benchmarks of a CPU: what is compared does the same work. Nothing is timed."""

import argparse
import importlib

import numpy as np
import pytest

from benchmarks import gpt_training, scaling, train_gpt, translate_file
from zoo.data.batches.base import LanguageBatch
from zoo.errors import UserError
from zoo.planning.prediction import attention_flops

TINY = train_gpt.SIZES["tiny"] | {"dtype": "float32", "updates": 2}
SEARCH = {
    "size": "tiny",
    "sentences": 2,
    "source_length": 4,
    "length": 5,
    "vocabulary": 24,
    "beam": 3,
    "dtype": "float32",
}


def parsed(module, *words) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return parser.parse_args(words)


def test_the_flops_of_a_token_are_those_that_planning_counts():
    options = train_gpt.SIZES["gpt1"]
    config = argparse.Namespace(**{name: options[name] for name in ("layers", "width", "heads")})
    weights = 12 * options["layers"] * options["width"] ** 2 + options["vocabulary"] * options["width"]
    tokens = options["rows"] * options["length"]
    whole = 6 * weights * tokens + attention_flops(config, options["rows"], options["length"])
    assert train_gpt.flops_of_token(options) * tokens == pytest.approx(whole)


def test_the_zoo_stands_beside_the_faster_of_nanogpts_two_ways(monkeypatch):
    def race(contestants, rounds):
        for one, seconds in zip(contestants, (1.0, 3.0, 2.0), strict=True):
            one.seconds, one.outcome = [seconds] * rounds, 0.0

    monkeypatch.setattr(train_gpt, "race", race)
    monkeypatch.setattr(train_gpt, "matmul_ceiling", lambda dtype: 1.0)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    words = ("--peers", "--nanogpt=DIR", "--sizes", "tiny", "--dtypes", "float32")
    rows = train_gpt.run(parsed(train_gpt, *words)).rows
    assert [row["ratio"] for row in rows] == pytest.approx([2, 2 / 3, 1])
    with pytest.raises(UserError, match="--nanogpt=DIR"):
        train_gpt.run(parsed(train_gpt, "--peers", "--sizes", "tiny"))


NANOGPT = """
from dataclasses import dataclass
import torch

@dataclass
class GPTConfig:
    block_size: int
    vocab_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float

class GPT(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.table = torch.nn.Embedding(config.vocab_size, config.n_embd)

    def configure_optimizers(self, decay, rate, betas, device):
        return torch.optim.AdamW(self.parameters(), 0.1, betas, weight_decay=decay)

    def forward(self, inputs, labels):
        logits = self.table(inputs) @ self.table.weight.T
        return logits, torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
"""


def test_nanogpt_learns_the_batch_that_the_zoo_learns(tmp_path):
    pytest.importorskip("torch")
    nanogpt_training = importlib.import_module("benchmarks.nanogpt_training")
    (tmp_path / "model.py").write_text(NANOGPT)
    turn = nanogpt_training.prepare(TINY | {"nanogpt": str(tmp_path), "compiled": False})
    losses = [turn() for _ in range(5)]
    assert losses[-1] < losses[0]


def test_every_turn_but_the_first_makes_all_updates(monkeypatch):
    class Counted:
        made = 0

        def update(self, batch: LanguageBatch):
            assert np.array_equal(batch.inputs[:, 1:], batch.labels[:, :-1])
            self.made += 1
            return {"sums": argparse.Namespace(loss=1.0, tokens=1.0)}

    counted = Counted()
    monkeypatch.setattr(gpt_training, "training", lambda options: counted)
    turn, made = gpt_training.prepare(TINY), []
    for _ in range(3):
        turn()
        made.append(counted.made)
    assert made == [1, 3, 5]


@pytest.mark.slow
@pytest.mark.parametrize("peer", ["ctranslate2", "huggingface"])
def test_peers_find_the_translations_of_the_zoo_with_its_weights(peer):
    pytest.importorskip({"huggingface": "transformers"}.get(peer, peer))
    from benchmarks import decoding

    theirs = importlib.import_module(f"benchmarks.{peer}_decoding").prepare(SEARCH | {"quantize": "float32"})()
    ours = decoding.prepare(SEARCH | {"quantize": "none"})()
    assert all(one in found for one, found in zip(ours, theirs, strict=True))


def test_a_power_law_is_fitted_by_its_exponent(tmp_path, monkeypatch):
    cost = {"rows": 1.0, "width": 2.0}
    monkeypatch.setattr(
        scaling, "WORKS", {"toy": scaling.Work(lambda sizes, dtype: lambda: sizes, {"rows": 4, "width": 8})}
    )
    monkeypatch.setattr(
        scaling, "median_seconds", lambda turn, times: np.prod([turn()[k] ** e for k, e in cost.items()])
    )
    picture = tmp_path / "scaling.png"
    found = scaling.run(parsed(scaling, f"--picture={picture}", "--works", "toy"))
    assert {row["kind"]: row["exponent"] for row in found.as_dict()["rows"]} == pytest.approx({"batch": 1, "width": 2})
    assert found.growths[0].sizes == [1, 2, 4, 8, 16]
    assert picture.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="batch, width"):
        scaling.run(parsed(scaling, "--works", "toy", "--kinds", "color"))


def test_pipes_take_turns_and_their_lines_are_compared(tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.write_text("b\na\n")
    log = tmp_path / "log"

    def pipe(system, command):
        return translate_file.Pipe(system, ["sh", "-c", f"printf {system[0]} >> {log}; {command}"])

    pipes = [pipe("zoo float32", "sed s/a/c/"), pipe("CTranslate2 float32", "cat")]
    monkeypatch.setattr(translate_file, "_pipes", lambda *arguments: pipes)
    (tmp_path / "config.json").touch()
    rows = translate_file.run(parsed(translate_file, f"--workdir={tmp_path}", f"--file={source}", "--rounds=2")).rows
    assert log.read_text() == "zC" * 3
    assert rows[0]["same_as_CTranslate2_float32"] == "1 of 2 lines"
    assert rows[0]["beside"] == "CTranslate2 float32" and rows[0]["sentences_per_second"] > 0


def test_a_pipe_that_fails_or_a_model_that_is_not_there_is_one_line(tmp_path):
    (tmp_path / "source").touch()
    with pytest.raises(UserError, match=r"^broken ended with 3: no model"):
        translate_file.Pipe("broken", ["sh", "-c", "echo no model >&2; exit 3"]).run(tmp_path / "source")
    with pytest.raises(UserError, match="holds no trained model"):
        translate_file.run(parsed(translate_file, f"--workdir={tmp_path}"))
