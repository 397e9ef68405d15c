"""The command line: what it prints where, and how it answers mistakes."""

import errno
import io
import json
import shutil
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import pytest

import zoo.cli
from zoo.cli import main
from zoo.cli.arguments import split_changes
from zoo.errors import UserError
from zoo.runs import _draw_attention


@pytest.fixture
def feed(workdir, monkeypatch, capfdbinary):
    """`feed(command, input, *options)`: the exit code, the lines of standard output, and standard error."""

    def run(command: str, given: bytes, *options: str, terminal: bool = False) -> tuple[int, list[str], str]:
        stdin = SimpleNamespace(buffer=io.BytesIO(given), isatty=lambda: terminal)
        monkeypatch.setattr(sys, "stdin", stdin)
        capfdbinary.readouterr()
        code = main([command, str(workdir), *options])
        out, err = capfdbinary.readouterr()
        return code, out.decode().split("\n")[:-1], err.decode()

    return run


@pytest.fixture
def translate(feed):
    return partial(feed, "translate")


@pytest.fixture
def score(feed):
    return partial(feed, "score")


def error_of(capsys, *argv: str) -> str:
    """The one line that answers a mistake."""
    capsys.readouterr()
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("zoo: error: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    "code", ["import zoo", "import zoo.cli", "import sys, zoo.cli; zoo.cli.main(['models', '-x'])"]
)
def test_what_needs_no_arrays_imports_no_jax(code):
    check = f"{code}\nimport sys; assert not {{'jax', 'numpy', 'matplotlib'}} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", check], check=True, stderr=subprocess.DEVNULL)


def test_changes_of_the_config_may_stand_anywhere_and_in_both_forms():
    words, changes = split_changes(["train", "--config.a.b=1", "--workdir=w", "--config.c", "-2", "--config=f.py:x"])
    assert words == ["train", "--workdir=w", "--config=f.py:x"]
    assert changes == [("a.b", "1"), ("c", "-2")]


@pytest.mark.parametrize("rest", [[], ["--workdir=w"]])
def test_a_change_without_a_value_is_reported(rest):
    with pytest.raises(UserError, match=r"--config\.a\.b has no value"):
        split_changes(["--config.a.b", *rest])


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["transalte"], "did you mean 'translate'?"),
        ([], "no command given"),
        (["translate", "w", "--bema-size=3"], "did you mean '--beam-size'?"),
        (["translate", "nowhere"], "nowhere is not a working directory"),
        (["translate"], "WORKDIR"),
        (["eval"], "--workdir=DIR"),
        (["eval", "--workdir=w", "--config.seed=1"], "only train"),
        (["average", "w", "--last=0"], "'0' is not a whole number of at least 1"),
        (["train", "--config=phrasse"], "no config file 'phrasse'"),
        (["train", "--config.train.stesp=3"], "config.train.stesp is not a key: did you mean 'steps'?"),
    ],
)
def test_a_mistake_is_one_line_with_its_remedy(capsys, argv, told):
    assert told in error_of(capsys, *argv)


def test_a_full_disk_is_one_line_that_names_the_file(capsys, monkeypatch):
    def full(args):
        raise OSError(errno.ENOSPC, "No space left on device", "/full/picture.png")

    monkeypatch.setattr(zoo.cli.models, "run", full)
    assert "/full/picture.png: No space left on device" in error_of(capsys, "models")


def test_a_defect_keeps_its_traceback(monkeypatch):
    def broken(args):
        raise FileNotFoundError(errno.ENOENT, "no such file", "x")

    monkeypatch.setattr(zoo.cli.models, "run", broken)
    with pytest.raises(FileNotFoundError):
        main(["models"])


def test_ctrl_c_ends_with_130_and_says_how_to_continue(capsys, monkeypatch):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(zoo.cli.train, "run", interrupted)
    assert main(["train"]) == 130
    assert "the same command resumes" in capsys.readouterr().err


def test_a_line_out_for_every_line_in(translate):
    code, out, _ = translate("in 1 days\n\n  \nin\u20282\x0b days\r\nlast".encode())
    assert code == 0
    assert len(out) == 5
    assert out[1] == out[2] == ""


def test_line_numbers_are_those_of_the_whole_input(translate, monkeypatch):
    monkeypatch.setattr(zoo.cli.translate, "CHUNK", 2)
    _, out, err = translate(b"a\nb\nc\n" + b"in 3 days " * 2000 + b"\n\xff\n")
    assert len(out) == 5
    assert "line 4 has" in err
    assert "line 5 is not UTF-8" in err


def test_nothing_in_nothing_out(translate):
    assert translate(b"")[:2] == (0, [])


def test_the_best_of_n_is_the_translation(translate):
    lines = b"in 1 days\nin 2 days\n"
    _, plain, _ = translate(lines, "--beam=3")
    _, listed, _ = translate(lines, "--beam-size=3", "--nbest=2")
    _, every, _ = translate(lines, "--beam-size=3", "--nbest=3", "--all-segmentations")
    for number, best in enumerate(plain):
        texts, scores = zip(*(row.split(" ||| ")[1:] for row in listed if row.startswith(f"{number} ")), strict=True)
        assert texts[0] == best
        assert len(set(texts)) == len(texts) <= 2
        assert sorted(map(float, scores), reverse=True) == [float(score) for score in scores]
        spelled = [row.split(" ||| ")[1] for row in every if row.startswith(f"{number} ")]
        assert len(spelled) == 3 and list(dict.fromkeys(spelled))[:2] == list(texts)


def test_more_than_the_beam_holds_is_reported(translate):
    code, out, err = translate(b"a\n", "--beam=2", "--n-best=3")
    assert (code, out) == (2, [])
    assert "--beam-size=3" in err


def test_every_word_of_a_translation_is_linked_to_a_word_of_its_source(translate):
    _, out, _ = translate(b"in 1 days\n\n", "--json", "--alignment")
    first, empty = map(json.loads, out)
    assert [target for _, target in first["alignment"]] == list(range(len(first["translation"].split())))
    assert all(source in range(3) for source, _ in first["alignment"])
    assert (empty["translation"], empty["alignment"]) == ("", [])


@pytest.mark.parametrize("penalty", ["0.0", "0.3"])
def test_the_score_of_a_translation_is_the_one_that_it_was_translated_with(workdir, score, penalty):
    opened = zoo.load(workdir, changes=(("decoding.coverage_penalty", penalty),))
    lines = [f"in {n} days" for n in range(40)]
    found = [(line, t) for line, best in zip(lines, opened.translator()(lines), strict=True) for t in best]
    target = opened.task.tokenizers[1]
    # A beam may cut a text into other pieces than its tokenizer does.
    found = [(line, t) for line, t in found if target.encode([t.text])[0] == t.tokens]
    assert any(t.tokens for _, t in found)
    code, out, _ = score("".join(f"{line}\t{t.text}\n" for line, t in found).encode(), f"--coverage-penalty={penalty}")
    assert code == 0
    assert [float(line) for line in out] == pytest.approx([t.score for _, t in found], abs=2e-4)


def test_every_line_has_its_score_and_every_piece_its_part_of_it(score):
    given = b"in 1 days\tdans 1 jours\nin 2 days\t\n\nin 1 days\tdans 1 jours\ta third column\r\n"
    _, plain, _ = score(given, "--tokens", "--lenpen=0")
    _, objects, _ = score(given, "--tokens", "--lenpen=0", "--json")
    assert len(plain) == len(objects) == 4
    assert plain[0] == plain[3]
    for line, record in zip(plain, map(json.loads, objects), strict=True):
        whole, _, pieces = line.partition(" ||| ")
        assert float(whole) == pytest.approx(record["score"], abs=1e-4)
        assert record["log_probability"] == pytest.approx(sum(value for _, value in record["tokens"]), abs=1e-4)
        assert record["score"] == pytest.approx(record["log_probability"], abs=1e-6)  # alpha is 0
        assert pieces == " ".join(f"{piece}:{value:.2f}" for piece, value in record["tokens"])
        assert record["tokens"][-1][0] == "</s>"
    assert [len(json.loads(line)["tokens"]) for line in objects[1:3]] == [1, 1]


def test_every_one_of_the_best_is_linked_in_json(translate):
    _, out, _ = translate(b"in 1 days\n", "--json", "--alignment", "--beam=2", "--n-best=2")
    record = json.loads(out[0])
    assert record["n_best"][0] == {key: record[key] for key in ("translation", "score", "alignment")}
    for each in record["n_best"]:
        assert [target for _, target in each["alignment"]] == list(range(len(each["translation"].split())))


def test_drawing_gives_as_many_as_asked_for_and_the_same_for_the_same_seed(translate):
    lines, options = b"in 1 days\nin 2 days\n", ("--temperature=2", "--n-best=6")
    _, out, _ = translate(lines, *options)
    rows = [row.split(" ||| ") for row in out]
    assert [row[0] for row in rows] == ["0"] * 6 + ["1"] * 6
    for drawn in (rows[:6], rows[6:]):
        assert sorted((float(row[2]) for row in drawn), reverse=True) == [float(row[2]) for row in drawn]
    assert len({row[1] for row in rows}) > 2
    assert translate(lines, *options, "--seed=0")[1] == out
    assert translate(lines, *options, "--seed=1")[1] != out


def test_a_prefix_for_all_or_one_for_each_begins_the_translations(translate, tmp_path):
    (tmp_path / "prefixes").write_text("dans 1\n\n\njours\n", encoding="utf-8")
    lines = b"in 1 days\nin 2 days\n\nin 3 days\n"
    _, each, _ = translate(lines, f"--prefixes={tmp_path / 'prefixes'}")
    _, every, _ = translate(lines, "--prefix=dans 1")
    assert every[0] == each[0] and every[0].startswith("dans 1") and every[1].startswith("dans 1")
    assert each[3].startswith("jours")
    assert each[2] == every[2] == ""
    assert each[1] == translate(lines)[1][1]


@pytest.mark.parametrize("option", ["--prefix=" + "dans " * 99, "--prefixes=FILE"])
def test_prefixes_that_do_not_fit_are_reported_before_anything_is_written(translate, tmp_path, option):
    (tmp_path / "prefixes").write_text("dans\ndans\n", encoding="utf-8")
    code, out, err = translate(b"in 1 days\n", option.replace("FILE", str(tmp_path / "prefixes")))
    assert (code, out) == (2, [])
    assert "has 2 lines, the input 1" in err if "FILE" in option else "line 1: its prefix of" in err


def test_an_ensemble_of_a_directory_with_itself_translates_as_it_does(translate, workdir):
    lines = b"in 1 days\n\nin 12 days\n"
    assert translate(lines, str(workdir))[:2] == translate(lines)[:2]


def test_what_is_unknown_is_looked_up(translate, tmp_path):
    (tmp_path / "words.tsv").write_text("\u0141\tL\n\u0141\tno\n", encoding="utf-8")
    line = "\u0141\n".encode()
    options = ("--prefix=\u0141", "--max-length=2", "--alignment")  # no more than the space and the letter
    assert translate(line, *options)[1] == ["<unk> ||| 0-0"]
    assert translate(line, *options, "--replace-unk")[1] == ["\u0141 ||| 0-0"]
    assert translate(line, *options, f"--dictionary={tmp_path / 'words.tsv'}")[1] == ["L ||| 0-0"]


def test_a_prompt_answers_line_by_line_with_all_of_it(translate, tmp_path):
    options = ("--prefix=dans", "--temperature=2", "--n-best=2", "--alignment", "--replace-unk")
    lines = b"in 1 days\n\nin 2 days\n"
    _, piped, _ = translate(lines, *options)
    code, prompted, err = translate(lines, *options, terminal=True)
    assert (code, prompted) == (0, piped)
    assert err.count("en> ") == 4
    (tmp_path / "prefixes").write_text("dans\n", encoding="utf-8")
    code, out, err = translate(lines, f"--prefixes={tmp_path / 'prefixes'}", terminal=True)
    assert (code, out) == (2, [])
    assert "--prefix" in err


def test_a_reader_that_leaves_is_not_an_error(workdir):
    command = f"yes 'in 1 days' | head -n 3000 | {sys.executable} -m zoo translate {workdir} --max-length=4 | head -n 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) in [(0, ""), (141, "")]  # 141 is that of `yes`


def test_eval_json_is_one_object_and_nothing_else(workdir, capsys):
    capsys.readouterr()
    assert main(["eval", f"--workdir={workdir}", "--split=valid", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert {"bleu", "bleu_signature", "bleu_lowercase", "chrf", "exact_match", "loss", "direction"} <= scores.keys()


def test_a_finished_run_shows_its_scores_again_and_changes_nothing(workdir, capsys):
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    capsys.readouterr()
    assert main(["train", f"--workdir={workdir}"]) == 0
    err = capsys.readouterr().err
    assert "is finished" in err
    assert json.loads((workdir / "summary.json").read_text(encoding="utf-8"))["scores"]["bleu_signature"] in err
    assert "python -m zoo translate" in err
    assert before == {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}


def test_average_writes_the_mean_of_the_last_checkpoints_and_eval_scores_it(workdir, tmp_path, capsys):
    copy = shutil.copytree(workdir, tmp_path / "copy")
    assert main(["average", str(copy), "--last=2"]) == 0
    assert "mean of steps 2, 3" in capsys.readouterr().out
    import jax
    import numpy as np

    from zoo.checkpoints import load_parameters

    step, mean = load_parameters(copy, "average")
    two, three = (load_parameters(copy, which)[1] for which in ("2", "3"))
    assert step == 3
    jax.tree.map(lambda m, a, b: np.testing.assert_allclose(m, (a + b) / 2, atol=1e-7), mean, two, three)
    assert main(["eval", f"--workdir={copy}", "--split=valid", "--checkpoint=average", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["checkpoint"] == "average"


def test_training_leaves_a_picture_and_a_record(workdir):
    assert (workdir / "attention.png").read_bytes().startswith(b"\x89PNG")
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if "train/loss" in r] == [1, 2, 3]
    assert [r["step"] for r in records if "valid/bleu" in r] == [3]


def test_models_count_parameters_exactly(capsys):
    capsys.readouterr()
    assert main(["models", "--json"]) == 0
    rows = {(row["model"], row["size"]): row for row in json.loads(capsys.readouterr().out)}
    base = rows["transformer", "base"]
    # Embedding; 18 attentions of 4 matrices, 12 feed-forwards with biases, 30 norms of gain and bias.
    assert base["parameters"] == 37_000 * 512 + 18 * 4 * 512**2 + 12 * (2 * 512 * 2048 + 2048 + 512) + 30 * 2 * 512
    assert base["paper"] == "Vaswani et al. 2017"


def test_a_run_whose_model_says_nothing_ends_without_a_picture(workdir, monkeypatch, tmp_path):
    opened = zoo.load(shutil.copytree(workdir, tmp_path / "run", ignore=shutil.ignore_patterns("*.png")))
    monkeypatch.setattr(type(opened), "translate", lambda self, lines: [" "] * len(lines))
    _draw_attention(opened, "in 1 days")
    assert not list(opened.path.glob("*.png"))


def test_the_first_update_has_its_share_of_the_peak(workdir):
    config = json.loads((workdir / "config.json").read_text(encoding="utf-8"))["optimizer"]
    lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rates = {record["step"]: record.get("train/learning_rate") for record in map(json.loads, lines)}
    assert rates[1] == pytest.approx(config["peak"] / config["warmup"])
