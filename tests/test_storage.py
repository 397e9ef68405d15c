"""Laws of working directories in an object store: all that one in a file system can do."""

import json
import os

import jax
import numpy as np
import pytest
from conftest import TINY
from noise import Noise, training
from object_store import Bucket, serving

from zoo.checkpoints import Checkpoints, load_parameters
from zoo.cli import main
from zoo.errors import UserError
from zoo.plotting.curves import read_curves
from zoo.storage import Growing, located, write_whole
from zoo.workdirs import load

pytest.importorskip("gcsfs")
RUN = "gs://bucket/runs/tiny"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The objects of `gs://bucket`, beside which there is a bucket that cannot be written to."""
    buckets = {"bucket": Bucket(), "sealed": Bucket(read_only=True)}
    with serving(buckets) as url, pytest.MonkeyPatch.context() as patch:
        for variable in ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL"):
            patch.setenv(variable, url)
        # Nobody is asked who we are.
        for variable, value in (("NO_GCE_CHECK", "true"), ("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")):
            patch.setenv(variable, value)
        patch.setenv("EPATH_USE_TF", "false")
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield buckets["bucket"].objects


def train(pairs, steps: int, workdir: str = RUN) -> int:
    config = TINY | {"data.train": str(pairs), "data.valid": str(pairs), "data.test": "", "train.evaluation_size": "4"}
    config |= {"train.steps": str(steps), "model.layers": "1"}
    return main(["train", f"--workdir={workdir}", *(f"--config.{key}={value}" for key, value in config.items())])


def steps_reported(store) -> list[int]:
    lines = store["runs/noise/metrics.jsonl"][1].decode().splitlines()
    return [record["step"] for record in map(json.loads, lines) if "train/loss" in record]


def test_a_run_that_is_killed_after_any_save_has_lost_no_report(store, monkeypatch):
    at_a_save, save = {}, Checkpoints.save

    def watched(checkpoints, step, *rest):
        at_a_save[step] = steps_reported(store)
        save(checkpoints, step, *rest)

    monkeypatch.setattr(Checkpoints, "save", watched)
    for steps in (4, 6):
        training(Noise(located("gs://bucket/runs/noise")), steps).run({})
    assert at_a_save == {step: list(range(1, step + 1)) for step in (2, 4, 6)}
    assert read_curves(located("gs://bucket/runs/noise/metrics.jsonl"))["loss"]["train"][0] == [1, 2, 3, 4, 5, 6]
    assert sum(name.startswith("runs/noise/tensorboard/events") for name in store) == 2


@pytest.mark.slow
def test_a_run_in_a_bucket_continues_and_is_opened(store, pairs_in_files, capsys):
    assert train(pairs_in_files, 2) == 0
    assert train(pairs_in_files, 3) == 0
    assert "resuming from step 2 of 3" in capsys.readouterr().err
    inside = {name.removeprefix("runs/tiny/") for name in store}
    assert {"config.json", "summary.json", "tokenizer/joint.model", "logs/host-0.log", "samples/3.txt"} <= inside
    assert main(["eval", RUN, "--split=valid", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bleu"] >= 0
    assert len(load(RUN).translate(["in 3 days"])) == 1


def state_at(step: int) -> dict:
    return {"params": {"scale": jax.numpy.full(1000, step)}}


def saved(workdir: str) -> Checkpoints:
    """With checkpoints of steps 1 and 2."""
    checkpoints = Checkpoints(workdir)
    for step in (1, 2):
        checkpoints.save(step, state_at(step), None, {})
    checkpoints.wait()
    return checkpoints


def test_a_damaged_checkpoint_in_a_bucket_yields_to_the_one_before_it(store):
    checkpoints = saved("gs://bucket/runs/damaged")
    of_the_newest = [name for name in store if name.startswith("runs/damaged/checkpoints/2/")]
    name = max(of_the_newest, key=lambda name: len(store[name][1]))
    generation, content = store[name]
    store[name] = generation, content[:-1] + bytes([content[-1] ^ 1])
    step, params = load_parameters("gs://bucket/runs/damaged", "latest")
    assert step == 1 and np.all(params["scale"] == 1)
    assert checkpoints.restore(state_at(0), None)[0] == 1
    assert checkpoints.steps() == [1]


def test_a_checkpoint_in_a_bucket_that_a_kill_cut_short_is_absent(store):
    saved("gs://bucket/runs/cut").close()
    del store["runs/cut/checkpoints/2/commit_success.txt"]
    checkpoints = Checkpoints("gs://bucket/runs/cut")
    assert checkpoints.restore(state_at(0), None)[0] == 1
    checkpoints.save(2, state_at(3), None, {})
    checkpoints.wait()
    assert np.all(load_parameters("gs://bucket/runs/cut", "latest")[1]["scale"] == 3)


def test_a_growing_file_is_published_whole_and_fetched_again(store):
    directory = located("gs://bucket/grown")
    for said in ("one\n", "two\n"):
        growing = Growing(directory)
        with growing.fetch("log").open("a") as file:
            file.write(said)
        growing.close()
        assert not growing.local.exists()
    assert store["grown/log"][1] == b"one\ntwo\n"


@pytest.mark.parametrize("bucket, reason", [("nowhere", "FileNotFoundError"), ("sealed", "no permission to write")])
def test_a_bucket_that_cannot_be_written_is_reported_in_one_line(store, pairs_in_files, capsys, bucket, reason):
    assert train(pairs_in_files, 3, f"gs://{bucket}/run") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"cannot write gs://{bucket}/run/" in line and reason in line


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write_whole(tmp_path / "new" / "file", b"old")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="full"):
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
        write_whole(tmp_path / "new" / "file", b"new")
    assert [path.read_bytes() for path in (tmp_path / "new").iterdir()] == [b"old"]


def test_other_stores_and_a_missing_client_are_reported_in_one_line(monkeypatch):
    for url in ("s3://bucket/run", "gs:///run", "https://host/run"):
        with pytest.raises(UserError, match=r"a file system or to gs://BUCKET/RUN"):
            located(url)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'seqzoo\[gcs\]'"):
        located(RUN)
