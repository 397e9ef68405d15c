"""The command line for language models: training, scores, and text alone on standard output."""

import io
import json
import sys
from types import SimpleNamespace

import pytest

import zoo
from zoo.cli import main
from zoo.experiment import from_file
from zoo.guards import open_workdir

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


def test_a_program_that_writes_a_prompt_and_reads_a_text_is_answered(written, converse):
    answers = converse(["generate", str(written), "--json", "--max-new-tokens=4"], [b"in 1", b"in 2"])
    assert [json.loads(answer)["prompt"] for answer in answers] == ["in 1", "in 2"]


def test_on_a_terminal_a_prompt_asks_for_each_and_nothing_else_is_in_the_text(generate, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"in 1\ndays\n"), isatty=lambda: True))
    code, out, err = generate()
    assert code == 0 and err.count("> ") == 3 and "Ctrl-D" in err
    assert out.replace("\n\n", "\n") == generate("--prompt", "in 1", "--prompt", "days")[1].replace("\n\n", "\n")


def test_a_prompt_of_no_tokens_begins_a_text_and_one_beyond_the_context_is_reported(generate):
    code, out, err = generate("--prompt", "")
    assert (code, err) == (0, "") and out.endswith("\n")
    code, out, err = generate("--prompt", "in 1 days " * 5)
    assert code == 0 and out.startswith("in 1 days " * 5)
    assert err.count("\n") == 1 and "longer than 16 tokens" in err


def test_a_language_model_is_scored_by_how_it_predicts(written, capfd):
    capfd.readouterr()
    assert main(["eval", f"--workdir={written}", "--split=valid", "--json"]) == 0
    scores = json.loads(capfd.readouterr().out)
    assert {"loss", "perplexity", "bits_per_byte", "word_perplexity", "accuracy"} <= scores.keys()
    assert (scores["split"], scores["step"], scores["documents"]) == ("valid", 2, 1)
    assert main(["eval", str(written)]) == 0
    assert "1 documents" in capfd.readouterr().out


@pytest.fixture
def evaluate(written, tmp_path, capfd):
    """`evaluate(name, content, *options)`: the exit code of `eval` on such a file, standard output and error."""

    def run(name, content, *options):
        (tmp_path / name).write_text(content, encoding="utf-8")
        capfd.readouterr()
        code = main(["eval", f"--workdir={written}", f"--data={tmp_path / name}", *options])
        return code, *capfd.readouterr()

    return run


def test_text_of_any_length_is_measured_by_a_window_that_slides(evaluate):
    text = "".join(f"in {n} days\n" for n in range(8))
    tokens = len(text) + 1
    scores = json.loads(evaluate("text.txt", text, "--json")[1])
    assert (scores["format"], scores["stride"], scores["documents"], scores["tokens"]) == ("text", 8, 1, tokens)
    assert {"loss", "perplexity", "accuracy", "bits_per_byte", "word_perplexity"} <= scores.keys()
    closer = json.loads(evaluate("text.txt", text, "--json", "--stride=16")[1])
    assert closer["tokens"] == tokens and closer["loss"] != scores["loss"]
    code, out, err = evaluate("text.txt", text)
    assert (code, err) == (0, "") and f"{tokens} tokens, stride 8, step 2" in out


def test_the_format_of_rows_is_recognized_by_their_fields(evaluate):
    rows = {
        "lambada": {"text": "in 1 days in 2 days"},
        "blimp": {"sentence_good": "in 1 days", "sentence_bad": "days 1"},
        "choice": {"context": "in 1", "choices": ["days", "in"], "answer": 0},
    }
    for name, row in rows.items():
        code, out, _ = evaluate("rows.jsonl", f"{json.dumps(row)}\n", "--json")
        scores = json.loads(out)
        assert (code, scores["format"], scores["examples"], scores["step"]) == (0, name, 1, 2)
        assert 0 <= scores["accuracy"] <= 1
    code, out, err = evaluate("passages.txt", "in 1 days\nin 2 days\n", "--format=lambada")
    assert (code, err) == (0, "") and out.startswith("lambada (") and "2 examples" in out


@pytest.mark.parametrize(
    ("content", "options", "told"),
    [
        ('{"premise": "a"}\n', (), "rows.jsonl:1: its fields, premise, fit no known format"),
        ('{"text": "a b"}\n{"txt": "a"}\n', (), "rows.jsonl:2: no field 'text' for lambada; there are: txt"),
        ('{"text": "a b"}\n{"text"\n', (), "rows.jsonl:2: no JSON"),
        ("", (), "rows.jsonl is empty"),
        ("", ("--format=text",), "no text"),
        ('{"text": "a b"}\n', ("--stride=3",), "--format=text"),
        ("text", ("--format=text", "--stride=17"), "stride=17: use 1 to 16"),
        ('{"sentence_good": "in 1 days in 2 days", "sentence_bad": "a"}\n', (), ":1: 19 tokens to score"),
    ],
)
def test_rows_that_cannot_be_measured_are_reported_with_their_line(evaluate, content, options, told):
    code, out, err = evaluate("rows.jsonl", content, *options)
    assert code == 2 and out == "" and told in err and err.count("\n") == 1


def test_the_options_of_other_data_need_some(written, tmp_path, capfd):
    open_workdir(tmp_path / "run", from_file("phrases"))
    capfd.readouterr()
    assert main(["eval", str(written), "--stride=3"]) == 2
    assert main(["eval", str(tmp_path / "run"), "--format=text", "--data=x"]) == 2
    assert capfd.readouterr().err.count("applies to a language model on other data") == 2


def test_training_says_how_to_continue(written, capfd):
    capfd.readouterr()
    assert main(["train", f"--workdir={written}"]) == 0
    assert f"python -m zoo generate {written}" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--temperature", "-1"), "temperature=-1"),
        (("--top-p", "2"), "top_p=2"),
        (("--max-new-tokens", "0"), "'0' is not a whole number of at least 1"),
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
def test_a_model_of_another_task_is_reported_with_its_command(tmp_path, capfd, config, wrong, right):
    open_workdir(tmp_path / "run", from_file(config))
    assert main([wrong, str(tmp_path / "run")]) == 2
    assert f"python -m zoo {right} {tmp_path / 'run'}" in capfd.readouterr().err


@pytest.mark.parametrize("picture", ["--by-length", "--text=in"])
def test_pictures_of_translations_are_refused_to_a_model_that_makes_none(tmp_path, capfd, picture):
    open_workdir(tmp_path / "run", from_file("gpt"))
    assert main(["plot", str(tmp_path / "run"), picture]) == 2
    assert f"the model of {tmp_path / 'run'} does not translate" in capfd.readouterr().err


def test_a_working_directory_writes_in_a_notebook_too(written):
    opened = zoo.load(written, changes=(("decoding.temperature", "0"),))
    (one,), (again, other) = opened.generate(["in 1"]), opened.generate(["in 1", "days"])
    assert one == again and isinstance(other, str)
