"""A run is the same on any number of devices, through the command line."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY
from eight_devices import python_on_eight
from test_generate import TINY as TINY_GPT

STEPS = 3
MOVES = (8, 1, 4)  # devices for the first, the second and the third step of one run
COMMON = {
    "train.compute_dtype": "float32",
    "train.log_every": "1",
    "train.checkpoint_every": "1",
    "train.evaluate_every": str(STEPS),
    "train.evaluation_size": "4",
    "train.select": "loss",
    "optimizer.schedule": "constant",
    "optimizer.warmup": "0",
    "data.test": "",
}
CLASSIFIER = {key: value for key, value in TINY_GPT.items() if not key.startswith("decoding.")}
CLASSIFIER |= {"optimizer.warmup_share": "0", "optimizer.peak": "0.01", "train.epochs": "0"}
TASKS = {  # the config of each, and what makes it small
    # 250 tokens hold 14 of the longest rows, which are 8 on any mesh.
    "translation": ("phrases.py", TINY | {"data.max_length": "17", "data.batch_tokens": "250"}),
    "language modeling": ("gpt.py", TINY_GPT | {"optimizer.peak": "0.01"}),
    "classification": ("gpt1_finetune.py:cola", CLASSIFIER),
}


def write_data(task: str, directory: Path) -> dict[str, str]:
    """The data of all tasks; gives the keys that name those of one."""
    words = ["one", "two", "three", "four", "five", "six", "seven"]
    lines = "".join(" ".join(words[: 1 + n % 7]) + f" {n}\n" for n in range(120))
    for suffix in ("en", "fr", "txt"):
        (directory / f"text.{suffix}").write_text(lines)
    labelled = "".join(f"x\t{n % 2}\t\tin {n} days\n" for n in range(32))
    (directory / "labelled.tsv").write_text(labelled)
    files = {"translation": "text", "language modeling": "text.txt", "classification": "labelled.tsv"}
    path = str(directory / files[task])
    return {"data.train": path, "data.valid": path}


def train_everywhere(task: str, directory: Path) -> None:
    """In a process with eight devices: one run on 1, 2, 4 and 8 each, and one that moves after each step."""
    import jax

    from zoo import runs
    from zoo.cli import main
    from zoo.parallel.mesh import make_mesh

    config, small = TASKS[task]
    settings = small | COMMON | write_data(task, directory)

    def train(name: str, devices: int, steps: int) -> None:
        runs.make_mesh = lambda config: make_mesh(config, jax.devices()[:devices])
        changes = settings | {"train.steps": str(steps), "mesh.data": str(devices)}
        words = [f"--config.{key}={value}" for key, value in changes.items()]
        assert main(["train", f"--config={config}", f"--workdir={directory / name}", *words]) == 0

    for devices in (1, 2, 4, 8):
        train(str(devices), devices, STEPS)
    for step, devices in enumerate(MOVES, 1):
        train("moved", devices, step)


def measured(workdir: Path) -> dict[str, float]:
    """By step and name; validation at the last step alone, where all runs have it."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    names = ("train/loss", "train/gradient_norm", "valid/loss")
    found = {f"{name} {line['step']}": line[name] for line in lines for name in names if name in line}
    return {key: value for key, value in found.items() if "valid" not in key or key.endswith(f" {STEPS}")}


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_any_number_of_devices_trains_as_one_does_and_a_run_may_move(task, tmp_path):
    result = python_on_eight(__file__, task, tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    alone = measured(tmp_path / "1")
    assert len(alone) == 2 * STEPS + 1
    for name in ("2", "4", "8", "moved"):
        other = measured(tmp_path / name)
        assert other.keys() == alone.keys()
        np.testing.assert_allclose(list(other.values()), list(alone.values()), rtol=1e-5, err_msg=name)


if __name__ == "__main__":
    train_everywhere(sys.argv[1], Path(sys.argv[2]))
    os._exit(0)
