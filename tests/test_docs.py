"""Every command and every snippet in README.md and docs/ is one that the zoo takes, and those that can be run here are
run, from the text itself."""

import importlib
import subprocess
import sys

import documents
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from documents import PAGES, ROOT, commands, fences, ours

import zoo
from zoo.cli import COMMANDS
from zoo.cli.arguments import parse
from zoo.data.batches.base import Seq2SeqBatch
from zoo.errors import UserError
from zoo.experiment import from_file
from zoo.models import registry
from zoo.models.base import Decodable

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
WRITTEN = {fence.file for page in PAGES for fence in fences(page)} - {""}  # configs that a page has its reader write
PLACEHOLDERS = {"MODEL": "rnnsearch"}  # names that a reader replaces, in the arguments of configs


@every_page
def test_every_command_on_a_page_is_one_that_the_zoo_takes(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for fence in fences(page):
        if fence.language == "bash":
            checked = subprocess.run(["bash", "-n"], input=fence.code, capture_output=True, text=True)
            assert not checked.stderr, f"{fence}: {checked.stderr}"
            for words in commands(fence.code):
                if (argv := ours(words)) is not None:
                    _check(argv, str(fence))
        elif fence.language == "python":
            compile(fence.code, str(fence), "exec")


def _check(argv: list[str], where: str) -> None:
    """A misspelt option is a `UserError`, and so is a misspelt key of a config."""
    try:
        args = parse(argv, COMMANDS)
        spec = getattr(args, "config", None) or "phrases.py"
        if args.command in ("train", "plan") and spec.partition(":")[0] not in WRITTEN:
            for name, value in PLACEHOLDERS.items():
                spec = spec.replace(name, value)
            from_file(spec, args.changes)
    except UserError as error:
        pytest.fail(f"{where}: {error}")


def test_a_misspelt_option_or_key_is_found():
    for argv in (["translate", "DIR", "--beam-syze=4"], ["train", "--config.train.stepz=3"]):
        with pytest.raises(pytest.fail.Exception, match=r"a page: .*(syze|stepz)"):
            _check(argv, "a page")


def test_code_that_is_not_run_says_why_and_marks_are_known():
    for page in PAGES:
        for fence in fences(page):
            known = fence.mark in ("", "small") or fence.mark.startswith(("not run: ", "file: "))
            assert known, f"{fence}: {fence.mark}"
            assert fence.language in ("bash", "python"), str(fence)


def test_a_script_is_cut_into_its_commands():
    script = """A=1 python -m zoo translate DIR --json < in > out | head && (python x.py; echo 'a | b')  # why
python - <<'END'
import json | nothing
END
"""
    assert list(commands(script)) == [
        ["python", "-m", "zoo", "translate", "DIR", "--json"],
        ["head"],
        ["python", "x.py"],
        ["echo", "a | b"],
        ["python", "-"],
    ]
    assert ours(["python", "train.py", "--workdir=a"]) == ["train", "--workdir=a"]
    assert ours(["python", "x.py"]) is None


def test_the_model_of_the_worked_example_decodes_as_it_is_trained(tmp_path, monkeypatch):
    """The file as the page has it, before any training."""
    monkeypatch.setattr(registry, "FAMILIES", dict(registry.FAMILIES))
    (page,) = (page for page in PAGES if page.name == "add-a-model.md")
    (file,) = (fence for fence in fences(page) if fence.file == "average.py")
    (tmp_path / file.file).write_text(file.code)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("average")
    sys.modules.pop("average")
    model = zoo.build("average", "tiny", source_vocabulary=20, target_vocabulary=20)
    assert isinstance(model, Decodable)
    source, inputs = np.array([[5, 6, 7, 2]]), np.array([[1, 8, 9]])
    batch = Seq2SeqBatch(source, inputs, inputs)
    variables = nn.unbox(model.init(jax.random.key(0), batch))
    whole = model.apply(variables, batch).logits
    cache = model.apply(variables, source, 3, 2, method="prefill")
    for place in range(3):
        cache = model.apply(variables, cache, jnp.array([[1, 0]]), method="reorder")
        both = np.repeat(inputs[:, [place]], 2, axis=1)
        cache, logits, looked = model.apply(variables, cache, both, method="decode_step")
        np.testing.assert_allclose(logits[0], np.repeat(whole[0, [place]], 2, axis=0), atol=1e-5)
        np.testing.assert_allclose(looked.sum(-1), 1, atol=1e-6)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    """Where the README's code has run, whose models the other pages use."""
    from sandbox import Sandbox

    with pytest.MonkeyPatch.context() as patch, Sandbox(tmp_path_factory.mktemp("docs"), patch) as opened:
        opened.run_page(PAGES[0])
        yield opened


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.stem)
def test_the_code_on_a_page_runs(sandbox, page):
    sandbox.run_page(page)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=documents.quiet_environment(),
    )
    assert built.returncode == 0, built.stdout + built.stderr
    for page in PAGES[1:]:
        assert (tmp_path / "site" / ("index.html" if page.stem == "index" else f"{page.stem}/index.html")).exists()
    assert "load" in (tmp_path / "site" / "api" / "index.html").read_text()
