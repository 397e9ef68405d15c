"""A model and a task from outside the package: one file and one line each, and every command works with them."""

import json
import shutil
import sys
from pathlib import Path

import pytest

import zoo
from zoo.cli import main
from zoo.errors import UserError
from zoo.guards import differences
from zoo.models import registry
from zoo.tasks import registry as tasks

OUTSIDE = Path(__file__).parent / "outside"
FILES = ("window_model", "backward_task")


def forget():
    """As if this process had only begun: no module of the outside was imported, and nothing is registered."""
    for name in (*FILES, "zoo_config_backward", "alone", "zoo_config_alone"):
        sys.modules.pop(name, None)
    for name in ("window", "alone"):
        registry.FAMILIES.pop(name, None)
    tasks.TASKS.pop("backward", None)


@pytest.fixture
def fresh():
    forget()
    yield forget
    forget()


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """A folder with the two files and a config, a text, and a working directory that `train` has made of them."""
    folder = tmp_path_factory.mktemp("outside")
    for path in OUTSIDE.glob("*.py"):
        shutil.copy(path, folder)
    (folder / "text.txt").write_text("the cat sat on the mat\n" * 30)
    splits = [f"--config.data.{split}={folder / 'text.txt'}" for split in ("train", "valid", "test")]
    run = folder / "runs" / "backward"
    assert main(["train", f"--config={folder / 'backward.py'}", f"--workdir={run}", *splits]) == 0
    forget()
    return folder, run


def test_every_command_works_with_a_model_and_a_task_from_outside(outside, fresh, capsys):
    _, run = outside
    assert main(["eval", str(run), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["perplexity"] < 100 and "window" in registry.FAMILIES
    fresh()
    assert main(["generate", str(run), "--prompt", "TAM EHT "]) == 0
    assert len(capsys.readouterr().out) > len("TAM EHT ")
    fresh()
    assert main(["plot", str(run)]) == 0 and (run / "curves.png").exists()
    fresh()
    settings = json.loads((run / "config.json").read_text())
    assert differences(settings, settings | {"plugins": {"window_model": "elsewhere"}}) == []
    assert differences(settings, {key: settings[key] for key in settings if key != "plugins"}) == []
    assert main(["train", f"--workdir={run}", "--config.train.steps=21"]) == 0
    assert zoo.load(run).step in (20, 21)  # the best of the two
    assert {"model": "window", "size": "wide", "paper": "Bengio et al. 2003"}.items() <= zoo.catalog()[-1].items()


def test_a_model_from_outside_keeps_the_contract(outside, fresh):
    import jax
    import numpy as np

    model, ids = zoo.load(outside[1]).model, np.array([[5, 6, 7, 8, 9]])
    params = zoo.load(outside[1]).params
    batch = type(registry.example_batch(model.config))(ids, ids)
    full = model.apply({"params": params}, batch).logits
    cache = model.apply({"params": params}, ids[:, :3], 2, method="prefill")
    for place in (3, 4):
        cache, logits, _ = model.apply({"params": params}, cache, ids[:, [place]], method="decode_step")
        assert np.allclose(logits[:, 0], full[:, place], atol=1e-5)
    assert jax.tree.leaves(params)


def test_a_module_that_was_moved_is_found_by_pythonpath_or_named(outside, fresh, tmp_path, monkeypatch):
    folder, _ = outside
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    settings = json.loads((moved / "runs" / "backward" / "config.json").read_text())
    assert settings["plugins"] == {name: str(folder) for name in FILES}
    settings["plugins"] = {name: str(tmp_path / "gone") for name in FILES}
    (moved / "runs" / "backward" / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=r"needs the module window_model, which was in .*gone.*PYTHONPATH=") as told:
        zoo.load(moved / "runs" / "backward")
    assert "\n" not in str(told.value)
    monkeypatch.syspath_prepend(str(moved))
    assert zoo.load(moved / "runs" / "backward").step
    assert Path(sys.modules["window_model"].__file__).parent == moved


def test_code_inside_a_working_directory_is_never_run(outside, fresh, tmp_path):
    _, run = outside
    given = tmp_path / "given"
    shutil.copytree(run, given)
    settings = json.loads((given / "config.json").read_text())
    settings["plugins"] = {"window_model": str(given / "code")}
    (given / "config.json").write_text(json.dumps(settings))
    (given / "code").mkdir()
    (given / "code" / "window_model.py").write_text("raise SystemExit('run')")
    with pytest.raises(UserError, match=r"asks to run its own window_model.py: if you trust it"):
        zoo.load(given)


def test_a_fault_in_a_module_is_one_line(outside, fresh, tmp_path, capsys):
    (tmp_path / "config.py").write_text("import broken\n")
    (tmp_path / "broken.py").write_text("\n1 / 0\n")
    assert main(["train", f"--config={tmp_path / 'config.py'}", f"--workdir={tmp_path / 'run'}"]) == 2
    assert "broken.py, line 2" in capsys.readouterr().err
    with pytest.raises(UserError, match="there is a model 'gpt' already"):
        registry.register("gpt", registry.FAMILIES["cho"])


def test_a_config_may_hold_the_model_itself(outside, fresh, tmp_path):
    text = (OUTSIDE / "window_model.py").read_text().replace('"window"', '"alone"')
    config = (OUTSIDE / "backward.py").read_text().replace("import window_model  # noqa: F401", "")
    config = config.replace('"window"', '"alone"').replace("import backward_task  # noqa: F401", "")
    config = config.replace('"backward"', '"language_modeling"').replace(', "upper": True', "")
    (tmp_path / "alone.py").write_text(text + config)
    settings = {f"data.{split}": str(outside[0] / "text.txt") for split in ("train", "valid", "test")}
    settings |= {"train.steps": 1, "train.evaluate_every": 1}
    run = zoo.train(str(tmp_path / "alone.py"), tmp_path / "run", **settings)
    fresh()
    assert len(zoo.load(run.path).generate(["the "])) == 1
