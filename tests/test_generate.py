"""The command line for language models: training, scores, and text alone on standard output."""

import io
import json
import sys
from types import SimpleNamespace

import pytest

import zoo
from zoo.cli import main
from zoo.experiment import from_file, open_workdir

TINY = {
    "model.width": "16",
    "model.heads": "2",
    "model.layers": "1",
    "model.ffn": "16",
    "model.max_length": "16",
    "data.tokenizer": "characters",
    "data.vocabulary": "300",
    "data.length": "16",
    "data.batch_rows": "8",
    "train.log_every": "1",
    "train.evaluate_every": "2",
    "train.checkpoint_every": "2",
    "train.evaluation_size": "4",
    "train.steps": "2",
    "decoding.max_new_tokens": "8",
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A language model that the command line has trained for 2 steps, from end to end. Not to be changed."""
    root = tmp_path_factory.mktemp("language")
    (root / "text.txt").write_text("".join(f"in {n} days\n" for n in range(40)), encoding="utf-8")
    (root / "own.py").write_text(
        "import ml_collections\n\n\ndef get_config():\n    return ml_collections.ConfigDict(\n"
        "        {'task': 'language_modeling', 'model': {'name': 'gpt', 'size': 'nano'}, 'train': {'select': 'loss'},\n"
        "         'optimizer': {'schedule': 'constant', 'peak': 1e-3}})\n",
        encoding="utf-8",
    )
    splits = {f"data.{split}": str(root / "text.txt") for split in ("train", "valid", "test")}
    changes = (f"--config.{key}={value}" for key, value in (TINY | splits).items())
    assert main(["train", f"--config={root / 'own.py'}", f"--workdir={root / 'run'}", *changes]) == 0
    return root / "run"


@pytest.fixture
def generate(written, capfdbinary):
    def run(*options):
        capfdbinary.readouterr()
        code = main(["generate", str(written), *options])
        out, err = capfdbinary.readouterr()
        return code, out.decode(), err.decode()

    return run


@pytest.mark.smoke
def test_text_alone_is_on_standard_output_and_a_seed_decides_it(generate):
    code, out, err = generate("--prompt", "in 1", "--seed", "3")
    assert (code, err) == (0, "")
    assert out.startswith("in 1") and out.endswith("\n") and 4 < len(out) <= 4 + 8 + 1
    assert generate("--prompt", "in 1", "--seed", "3") == (0, out, "")
    assert generate("--prompt", "in 1", "--seed", "4") != (0, out, "")


def test_options_decide_what_may_be_drawn(generate):
    def text(*options):
        return generate("--prompt", "in 1", "--max-new-tokens", "8", *options)[1]

    greedy = text("--temperature", "0")
    assert text("--top-k", "1") == text("--top-p", "1e-6") == text("--min-p", "1") == greedy
    assert text("--temperature", "0", "--repetition-penalty", "1e6") != greedy
    third = greedy[6]
    assert text("--temperature", "0", "--stop", third) == greedy[: greedy.index(third, 4)] + "\n"
    assert text("--temperature", "0", "--samples", "2") == f"{greedy}\n{greedy}"


def test_prompts_come_from_arguments_or_lines_and_each_is_gone_on_from(generate, monkeypatch):
    def piped(text, *options):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text.encode()), isatty=lambda: False))
        return generate(*options)

    code, out, err = generate("--prompt", "in 1", "--prompt", "days")
    assert (code, err) == (0, "")
    assert piped("in 1\ndays\n") == (0, out, "")
    first, second = (json.loads(line) for line in piped("in 1\ndays", "--json")[1].splitlines())
    assert f"{first['prompt']}{first['text']}\n\n{second['prompt']}{second['text']}\n" == out
    assert (first["prompt"], second["prompt"]) == ("in 1", "days") and first["ended"] in ("end", "length")
    assert piped("", "--json") == (0, "", "")
    monkeypatch.setattr("zoo.cli.generate.CHUNK", 1)
    assert piped("in 1\ndays\n") == (0, out, "")


def test_on_a_terminal_a_prompt_asks_for_each_and_nothing_else_is_in_the_text(generate, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"in 1\ndays\n"), isatty=lambda: True))
    code, out, err = generate()
    assert code == 0 and err.count("> ") == 3 and "Ctrl-D" in err
    assert out.replace("\n\n", "\n") == generate("--prompt", "in 1", "--prompt", "days")[1].replace("\n\n", "\n")


def test_a_prompt_of_no_tokens_begins_a_text_and_one_beyond_the_context_is_told(generate):
    code, out, err = generate("--prompt", "")
    assert (code, err) == (0, "") and out.endswith("\n")
    code, out, err = generate("--prompt", "in 1 days " * 5)
    assert code == 0 and out.startswith("in 1 days " * 5)
    assert err.count("\n") == 1 and "more than 16 tokens" in err


def test_a_language_model_is_scored_by_how_it_predicts(written, capfd):
    capfd.readouterr()
    assert main(["eval", f"--workdir={written}", "--split=valid", "--json"]) == 0
    scores = json.loads(capfd.readouterr().out)
    assert {"loss", "perplexity", "bits_per_byte", "word_perplexity", "accuracy"} <= scores.keys()
    assert (scores["split"], scores["step"], scores["documents"]) == ("valid", 2, 1)
    assert main(["eval", str(written)]) == 0
    assert "1 documents" in capfd.readouterr().out


def test_training_says_how_to_go_on(written, capfd):
    capfd.readouterr()
    assert main(["train", f"--workdir={written}"]) == 0
    assert f"python -m zoo generate {written}" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--temperature", "-1"), "temperature=-1"),
        (("--top-p", "2"), "top_p=2"),
        (("--max-new-tokens", "0"), "'0' is not a whole number from 1 on"),
        (("--tempreature", "1"), "--temperature"),
        (("--stop", ""), "--stop=''"),
    ],
)
def test_a_mistake_is_one_line_with_its_remedy(generate, options, told):
    code, out, err = generate(*options)
    assert code == 2 and out == "" and told in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("config", "wrong", "right"), [("gpt", "translate", "generate"), ("phrases", "generate", "translate")]
)
def test_a_model_of_another_task_is_told_with_its_command(tmp_path, capfd, config, wrong, right):
    open_workdir(tmp_path / "run", from_file(config))
    assert main([wrong, str(tmp_path / "run")]) == 2
    assert f"python -m zoo {right} {tmp_path / 'run'}" in capfd.readouterr().err


def test_a_working_directory_writes_in_a_notebook_too(written):
    opened = zoo.load(written, changes=(("decoding.temperature", "0"),))
    (one,), (again, other) = opened.generate(["in 1"]), opened.generate(["in 1", "days"])
    assert one == again and isinstance(other, str)
