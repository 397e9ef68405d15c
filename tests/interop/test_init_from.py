"""A run begins from a foreign folder as it stands, and what it makes goes back where it came from."""

import json

import jax
import numpy as np
import pytest
from conftest import TINY
from foreign_models import TEXT, gpt2_folder, marian_folder, openai_folder
from safetensors.numpy import load_file

from zoo.cli import main
from zoo.data.tokenizers import EOS, SentencePiece
from zoo.training.warm_start import Wanted, taken_over
from zoo.workdirs import load

SHORT = {"train.steps": "1", "train.evaluate_every": "1", "train.checkpoint_every": "1", "data.test": ""}


def trained(out, donor, config, changes):
    words = [f"--config.{key}={value}" for key, value in changes.items()]
    assert main(["train", f"--config={config}", f"--workdir={out}", f"--init_from={donor}", *words]) == 0


def test_a_gpt_is_fine_tuned_and_goes_back(tmp_path):
    donor = gpt2_folder(tmp_path / "gpt2")
    (tmp_path / "text").write_text(f"{TEXT}\n" * 40)
    data = {f"data.{split}": str(tmp_path / "text") for split in ("train", "valid")}
    data |= {"data.length": "16", "data.batch_rows": "4", "optimizer.peak": "1e-9", "decoding.max_new_tokens": "2"}
    trained(tmp_path / "run", donor, "gpt.py:nano", SHORT | data)
    assert main(["convert", str(tmp_path / "run"), str(tmp_path / "back")]) == 0
    before, after = (load_file(folder / "model.safetensors") for folder in (donor, tmp_path / "back"))
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_allclose(before[name], after[name], atol=1e-5)
    assert json.loads((tmp_path / "back" / "config.json").read_text())["vocab_size"] == len(
        before["transformer.wte.weight"]
    )


def test_a_part_of_a_foreign_folder_is_taken_and_the_rest_is_reported(tmp_path):
    donor = gpt2_folder(tmp_path / "gpt2")
    whole = load(donor)
    fresh = jax.tree.map(lambda leaf: np.full(leaf.shape, 9.0, leaf.dtype), whole.params)
    start = taken_over(Wanted(donor, only="embedding"), whole._on_one_device(), lambda: fresh)
    np.testing.assert_array_equal(start.params["embedding"]["table"], whole.params["embedding"]["table"])
    assert all((leaf == 9.0).all() for leaf in jax.tree.leaves(start.params["decoder"]))
    left = len(load_file(donor / "model.safetensors")) - 1
    assert start.taken == ("embedding",) and start.left[0].startswith(f"{left} weights")


@pytest.mark.slow
def test_gpt1_learns_to_end_a_text(tmp_path):
    donor = openai_folder(tmp_path / "openai", width=64, layers=1)
    (tmp_path / "text").write_text(f"{TEXT}\n" * 40)
    data = {f"data.{split}": str(tmp_path / "text") for split in ("train", "valid")}
    data |= {"data.length": "16", "data.batch_rows": "4", "decoding.max_new_tokens": "2"}
    trained(tmp_path / "run", donor, "gpt.py:nano", SHORT | data)
    assert EOS in load(donor).model.config.excluded_rows
    assert EOS not in load(tmp_path / "run").model.config.excluded_rows


@pytest.mark.slow
def test_a_marian_is_fine_tuned(pairs_in_files, tmp_path):
    lines = pairs_in_files.with_suffix(".fr").read_text().splitlines()
    tokenizer = SentencePiece.train(lines, 24, "unigram")
    donor = marian_folder(tmp_path / "m", tokenizer.model(), [tokenizer.piece(i) for i in range(4, tokenizer.size)])
    data = {f"data.{split}": str(pairs_in_files) for split in ("train", "valid")}
    changes = {key: value for key, value in TINY.items() if not key.startswith("model.") and key != "data.vocabulary"}
    trained(tmp_path / "run", donor, "translation.py:en-fr", changes | SHORT | data | {"train.average_last": "0"})
    config = load(tmp_path / "run").model.config
    assert (config.activation, config.positions, config.output_bias) == ("swish", "concatenated", True)
    assert (tmp_path / "run" / "tokenizer" / "source.marian").is_file()
