"""Foreign folders become working directories, and working directories foreign folders, on the command line."""

import json
import re

import jax
import numpy as np
import pytest
from foreign_models import TEXT, gpt2_folder, json_file, openai_folder
from safetensors.numpy import load_file, save_file

from zoo.cli import main
from zoo.data.batches.base import LanguageBatch
from zoo.errors import UserError
from zoo.workdirs import load

IDS = np.random.default_rng(0).integers(4, 60, (2, 9)).astype(np.int32)


def logits(run):
    return np.asarray(run.model.apply({"params": run.params}, LanguageBatch(IDS, IDS)).logits)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return gpt2_folder(tmp_path_factory.mktemp("foreign") / "gpt2")


def test_a_converted_model_is_a_working_directory_and_goes_back_as_it_came(gpt2, tmp_path, capsys):
    assert main(["convert", str(gpt2), str(tmp_path / "run")]) == 0
    assert main(["generate", str(tmp_path / "run"), f"--prompt={TEXT}", "--max-new-tokens=3", "--temperature=0"]) == 0
    assert TEXT in capsys.readouterr().out
    assert np.array_equal(logits(load(tmp_path / "run")), logits(load(gpt2)))
    assert main(["convert", str(tmp_path / "run"), str(tmp_path / "back")]) == 0
    before, after = (load_file(folder / "model.safetensors") for folder in (gpt2, tmp_path / "back"))
    assert before.keys() == after.keys() and all(np.array_equal(before[name], after[name]) for name in before)
    written = json.loads((tmp_path / "back" / "tokenizer.json").read_text())
    assert written["model"]["vocab"] == json.loads((gpt2 / "vocab.json").read_text())


def test_rows_that_are_not_published_are_never_predicted(gpt2):
    run = load(gpt2)
    probabilities = np.asarray(jax.nn.softmax(logits(run)))
    assert (probabilities[..., [0, 1, 3, -1]] == 0).all() and (probabilities[..., 2] > 0).all()


def test_scanned_and_unrolled_layers_and_shards_and_transposed_kernels_are_one_model(gpt2, tmp_path):
    arrays = load_file(gpt2 / "model.safetensors")
    kernels = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    nano = {f"_orig_mod.{name}": a.T.copy() if name.endswith(kernels) else a for name, a in arrays.items()}
    nano["_orig_mod.lm_head.weight"] = nano["_orig_mod.transformer.wte.weight"]
    for i, part in enumerate((sorted(nano)[:9], sorted(nano)[9:])):
        save_file({name: nano[name] for name in part}, tmp_path / f"model-{i}.safetensors")
    index = {name: f"model-{int(name in sorted(nano)[9:])}.safetensors" for name in nano}
    json_file(tmp_path / "model.safetensors.index.json", {"weight_map": index})
    for name in ("config.json", "vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((gpt2 / name).read_bytes())
    expected = logits(load(gpt2))
    assert np.array_equal(logits(load(tmp_path)), expected)
    unrolled = load(tmp_path, changes=[("model.scan_layers", "false")])
    assert "layers_0" in unrolled.params["decoder"]
    np.testing.assert_allclose(logits(unrolled), expected, atol=1e-5)


def test_openais_arrays_are_the_same_gpt1_as_hugging_faces_of_the_same_numbers(tmp_path):
    release = openai_folder(tmp_path / "openai")
    run = load(release)
    assert main(["convert", str(release), str(tmp_path / "hf"), "--to=huggingface"]) == 0
    names = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert (names["model_type"], names["n_layer"], names["n_head"]) == ("openai-gpt", 2, 2)
    flat = np.concatenate([np.load(release / f"params_{i}.npy") for i in range(3)])
    arrays = load_file(tmp_path / "hf" / "model.safetensors")
    assert np.array_equal(arrays["transformer.positions_embed.weight"].ravel(), flat[: 32 * 128])
    assert np.array_equal(arrays["transformer.h.1.ln_2.bias"], flat[-128:])
    assert np.array_equal(logits(load(tmp_path / "hf")), logits(run))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("transformer.h.1.ln_2.bias") is None, None),
        (lambda a: a.pop("transformer.h.1.mlp.c_fc.weight"), "transformer.h.1.mlp.c_fc.weight.*missing"),
        (lambda a: a.update({"transformer.h.0.extra": np.zeros(3)}), "transformer.h.0.extra.*not of this model"),
        (lambda a: a.update({"transformer.wpe.weight": np.zeros((31, 16))}), r"wpe.weight.*\(31, 16\).*\(32, 16\)"),
    ],
    ids=["a bias that nobody needs", "missing", "unknown", "misshapen"],
)
def test_a_weight_that_does_not_fit_is_named(gpt2, tmp_path, capsys, change, message):
    arrays = load_file(gpt2 / "model.safetensors")
    change(arrays)
    for name in ("config.json", "vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((gpt2 / name).read_bytes())
    save_file(arrays, tmp_path / "model.safetensors")
    code = main(["convert", str(tmp_path), str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert code == (2 if message else 0)
    if message:
        assert error.count("\n") == 1
        assert re.search(message, error), error
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"config.json": '{"model_type": "gpt2"}', "pytorch_model.bin": "x"}, "is a pickle.*save_pretrained"),
        ({"config.json": '{"model_type": "llama"}'}, "'llama'.*gpt2, openai-gpt, marian"),
        ({"config.json": '{"model_type": "gpt2", "n_layer": "two"}'}, "n_layer='two'"),
        ({"notes.txt": ""}, "holds no model"),
    ],
    ids=["pickle", "another model", "wrong config", "nothing"],
)
def test_what_cannot_be_read_is_one_line(gpt2, tmp_path, capsys, files, message):
    there = ("vocab.json", "merges.txt") + (() if "pytorch_model.bin" in files else ("model.safetensors",))
    for name in there if "config.json" in files else ():
        (tmp_path / name).write_bytes((gpt2 / name).read_bytes())
    for name, content in files.items():
        (tmp_path / name).write_text(content.replace('"gpt2"', '"gpt2", "vocab_size": 264, "n_embd": 16, "n_head": 2'))
    assert main(["convert", str(tmp_path), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(message, error), error


def test_what_is_there_is_not_written_over(gpt2, tmp_path, capsys):
    (tmp_path / "note").write_text("mine")
    assert main(["convert", str(gpt2), str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "note").read_text() == "mine"


def test_a_loaded_folder_answers_every_question(gpt2, workdir):
    run = load(gpt2)
    tokens = len(run.task.tokenizer.encode([TEXT])[0])
    assert run.logits(TEXT).shape == (tokens, run.task.tokenizer.size)
    assert run.attention(TEXT)["decoder"].shape == (2, 2, tokens, tokens)
    log_probabilities = jax.nn.log_softmax(run.logits(TEXT))
    ids = run.task.tokenizer.encode([TEXT])[0]
    expected = sum(float(log_probabilities[i, ids[i + 1]]) for i in range(len(ids) - 3, len(ids) - 1))
    begin, end = (run.task.tokenizer.decode([part])[0] for part in (ids[:-2], ids[-2:]))
    assert run.score([(begin, end)])[0] == pytest.approx(expected, abs=1e-3)
    translating = load(workdir)
    written = len(translating.task.tokenizers[1].encode(["dans 3 jours"])[0]) + 1
    assert translating.logits("in 3 days", "dans 3 jours").shape == (written, 40)
    assert translating.attention("in 3 days", "dans 3 jours")["cross"].shape[2] == written


def test_a_question_for_another_kind_of_model_names_its_own(gpt2, workdir):
    for ask in ("translate", "classify"):
        with pytest.raises(UserError, match="use python -m zoo generate"):
            getattr(load(gpt2), ask)([TEXT])
    for ask in ("generate", "classify"):
        with pytest.raises(UserError, match="use python -m zoo translate"):
            getattr(load(workdir), ask)([TEXT])
