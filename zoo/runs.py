"""Runs: train a model from its config to its scores, and resume a run that stopped.

`python -m zoo train` is a thin layer over this module; a notebook calls `zoo.train`.
"""

import dataclasses
import json
import logging
import statistics
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any

import jax

from zoo import logs
from zoo.donors import Donor, Taking
from zoo.errors import UserError
from zoo.evaluation import score
from zoo.experiment import Change, Experiment, from_file, from_workdir
from zoo.guards import starting
from zoo.locks import alone_in
from zoo.models import registry
from zoo.parallel.heap import keep_heap
from zoo.parallel.mesh import make_mesh
from zoo.parallel.multihost import first_does, is_first
from zoo.plotting.attention import draw_attention
from zoo.storage import AnyPath, located, write_whole
from zoo.training.listeners import Listener
from zoo.training.loop import Training
from zoo.training.lora import adapted
from zoo.workdirs import Workdir, load

CONFIG = "phrases.py"

log = logging.getLogger("zoo")


def train(
    config: str | Experiment | None = None,
    workdir: str | PathLike | None = None,
    *,
    init_from: str | PathLike | None = None,
    init_checkpoint: str = "",
    init_head: bool = False,
    init_only: str = "",
    init_optimizer: bool = False,
    new_vocabulary: bool = False,
    like: str | PathLike | None = None,
    listeners: Sequence[Listener] | None = None,
    **changes: Any,
) -> Workdir:
    """Train a model, or resume a run, and open its working directory.

        run = zoo.train("phrases.py:en-fr", workdir="runs/en-fr", **{"train.steps": 300})
        run.translate(["March 3, 2022"])

    The same call again resumes where the run stopped; a finished run is opened at once.

    Args:
      config: `FILE[:ARGS]`, a config of the zoo or your own, or an `Experiment`. Without one, that of `workdir`, or
        else `phrases.py`.
      workdir: where everything is kept; `runs/NAME` of the config by default.
      init_from: a working directory whose parameters and tokenizer the run begins with: `DIR`, for the best ones,
        `DIR@STEP` or `DIR/average`.
      init_checkpoint: which of its checkpoints, where `init_from` does not say it.
      init_head: take the head of a classifier too, which otherwise begins at random.
      init_only: take only the parameters in whose path this regular expression is found, as `encoder`.
      init_optimizer: take the state of the optimizer too (of the latest checkpoint, if none is named); its schedule
        begins anew.
      new_vocabulary: with `init_from`, learn a vocabulary of the run's own text; pieces that both have keep their rows.
      like: a working directory whose tokenizer alone the run takes.
      listeners: what hears the reports, instead of the terminal's lines and progress bar (`zoo.training.listeners`).
      changes: keys of the config by their dotted path, with values as text or as Python has them.

    Raises `UserError` for a wrong config, key or value, and when the training diverges. Interrupt it (the stop button
    of a notebook, or Ctrl-C) and it saves the step that it has reached, and returns.
    """
    logs.set_up()
    keep_heap()
    taking = Taking(init_checkpoint, init_head, init_only, init_optimizer, new_vocabulary)
    donor = Donor.chosen(init_from, like, taking)
    experiment, path = described(config, None if workdir is None else located(workdir), tuple(changes.items()), donor)
    carry_out(experiment, path, donor, True, listeners)
    return load(path)


def described(
    config: str | Experiment | None, workdir: AnyPath | None, changes: Sequence[Change], donor: Donor | None
) -> tuple[Experiment, AnyPath]:
    """The experiment of these arguments, and its working directory."""
    if isinstance(config, Experiment):
        if changes:
            raise UserError(f"{changes[0][0]}: an Experiment is complete: change it, or name a config file")
        return config, workdir or Path("runs", config.name)
    if config is None and workdir is not None and (workdir / "config.json").exists():
        return from_workdir(workdir, changes), workdir
    if donor is not None:
        # Before the user's own changes, which may fit only the donor's size.
        changes = [*donor.changes(from_file(config or CONFIG), changes), *changes]
    experiment = from_file(config or CONFIG, changes)
    return experiment, workdir or Path("runs", experiment.name)


def carry_out(
    experiment: Experiment,
    workdir: AnyPath,
    donor: Donor | None = None,
    interruptible: bool = False,
    listeners: Sequence[Listener] | None = None,
) -> dict[str, Any] | None:
    """Train to the last step and score the best parameters; returns the content of `summary.json`.

    A finished run is not trained again. Returns None for a run that was asked to stop early: by SIGTERM, by a cluster's
    preemption notice, or by an interrupt if `interruptible`.
    """
    if (summary := _finished(workdir, experiment)) is not None:
        measure = "epochs" if experiment.train.epochs else "steps"
        log.info("%s is finished: train.%s=N continues it", workdir, measure)
        return summary
    try:
        # The first of several processes locks the directory for all.
        with alone_in(workdir) if is_first() else nullcontext():
            training = _prepared(experiment, workdir, donor)
            with logs.kept(workdir / "logs", f"host-{jax.process_index()}.log"):
                finished = training.run(experiment.as_dict(), interruptible, listeners)
            return _summarize(experiment, workdir, training.shapes.params) if finished else None
    except OSError as error:
        error.filename = error.filename or str(workdir)  # an error of an open file does not have its name
        raise


def over_seeds(
    experiment: Experiment, workdir: AnyPath, count: int, donor: Donor | None = None
) -> dict[str, Any] | None:
    """Train the same experiment with `count` seeds, starting at its own, each in a directory `seed-N` of `workdir`.

    Returns the content of `seeds.json`, `{score: {"mean", "deviation", "each"}}`, with the sample standard deviation;
    or None if a run was asked to stop. The same call resumes with the seeds that are not trained yet.
    """
    if (workdir / "config.json").exists():
        raise UserError(f"{workdir} holds one run: choose another --workdir for those of several seeds")
    found: dict[str, list[float]] = {}
    for seed in range(experiment.seed, experiment.seed + count):
        summary = carry_out(dataclasses.replace(experiment, seed=seed), workdir / f"seed-{seed}", donor)
        if summary is None:
            return None
        for name, value in summary["scores"].items():
            if isinstance(value, float):
                found.setdefault(name, []).append(value)
    spread = {
        name: {"mean": statistics.mean(each), "deviation": statistics.stdev(each) if count > 1 else 0.0, "each": each}
        for name, each in found.items()
    }
    if is_first():
        write_whole(workdir / "seeds.json", (json.dumps(spread, indent=2) + "\n").encode())
    return spread


def _prepared(experiment: Experiment, workdir: AnyPath, donor: Donor | None) -> Training:
    """Everything before the first step; if it fails, a new working directory is removed again."""
    mesh = make_mesh(experiment.mesh)
    with starting(workdir, experiment) if is_first() else nullcontext():
        device = jax.devices()[0].device_kind
        log.info("%s: %d %s device(s), working directory %s", experiment.name, jax.device_count(), device, workdir)
        task = experiment.make_task(workdir)

        def prepare():
            if donor is not None and donor.gives_vocabulary:
                donor.give_tokenizer(workdir)
            task.prepare()

        first_does(prepare)
        model = registry.of(experiment.model_config(task, experiment.train.compute_dtype))
        config = experiment.train_config(task)
        model, rule = adapted(model, experiment.lora), experiment.rule()
        training = Training(task, model, config, rule, mesh, experiment.seed)
        if donor is not None and donor.parameters and not training.checkpoints.steps():
            donor.check_head(getattr(task, "labels", ()))
            log.info("%s", training.begin_with(donor.wanted(task, experiment.model_config(task, "float32"))))
    return training


def _finished(workdir: AnyPath, experiment: Experiment) -> dict[str, Any] | None:
    """The summary of the same experiment, if its training was finished and its checkpoint still exists."""
    path = workdir / "summary.json"
    if not path.exists():
        return None
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # cut short by a kill: make it again
        return None
    same = isinstance(summary, dict) and summary.get("config") == experiment.as_dict()
    return summary if same and (workdir / summary["checkpoint"]).is_dir() else None


def _summarize(experiment: Experiment, workdir: AnyPath, shapes: Any) -> dict[str, Any]:
    """Score the best parameters on the test split, if there is one, and draw the attention of a translation."""
    # On the same mesh, so that nothing is compiled again if training and decoding compute in one dtype. Each of several
    # processes does it all, on its own device.
    opened = Workdir(workdir, experiment, shapes=shapes if jax.process_count() == 1 else None)
    kept = "best" if (workdir / "best" / str(opened.step)).is_dir() else "checkpoints"  # no best: the latest was read
    summary = {"config": experiment.as_dict(), "checkpoint": f"{kept}/{opened.step}", "scores": {}}
    split = opened.task.SUMMARY
    if getattr(experiment.data, split):
        log.info("scoring the %s split", split)
        summary["scores"] = score(opened, split)
        if experiment.command == "translate":
            summary["sentence"] = _sentence(opened.task.pairs("test"))
            if is_first():
                _draw_attention(opened, summary["sentence"])
    if is_first():
        text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
        write_whole(workdir / "summary.json", text.encode())
    return summary


def _draw_attention(opened: Workdir, sentence: str) -> None:
    attention = opened.cross_attention(sentence)
    if attention is not None and attention.text.strip():  # a model that was hardly trained may produce nothing
        title, path = f"{sentence} → {attention.text}", opened.path / "attention.png"
        draw_attention(attention.alignment()[None, None], attention.source, attention.target, title, path)


def _sentence(pairs: Iterable[tuple[str, str]]) -> str:
    """The first source that is short enough for a picture, or else the shortest, among 100 that are not blank."""
    sources = list(islice((source for source, _ in pairs if source.strip()), 100))
    return next((source for source in sources if 4 <= len(source.split()) <= 12), min(sources, key=len))
