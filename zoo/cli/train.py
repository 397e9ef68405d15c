"""`train`: make a working directory, or go on with one."""

import argparse
import json
import logging
import shlex
from collections.abc import Iterable
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli import console
from zoo.cli.arguments import directory, natural, positive
from zoo.errors import UserError

if TYPE_CHECKING:
    from zoo.experiment import Experiment
    from zoo.storage import AnyPath
    from zoo.workdirs import Workdir

HELP = "train a model, or go on with the one in a working directory"
EXAMPLE = "python train.py --config=zoo/configs/phrases.py:en-de --workdir=runs/en-de --config.train.steps=500"
CONFIG = "phrases.py"

log = logging.getLogger("zoo")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", metavar="FILE[:ARGS]", help="an experiment of zoo/configs or of your own (default: phrases.py)"
    )
    parser.add_argument(
        "--workdir", type=directory, metavar="DIR", help="where all is kept (default: runs/NAME of the config)"
    )
    donor = parser.add_mutually_exclusive_group()
    donor.add_argument(
        "--init_from", type=directory, metavar="DIR", help="begin with the best parameters and the tokenizer of DIR"
    )
    donor.add_argument(
        "--like", type=directory, metavar="DIR", help="take the tokenizer of DIR, but begin with parameters at random"
    )
    together = parser.add_argument_group("several processes (SLURM, Open MPI, TPU and Kubernetes tell by themselves)")
    together.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
    together.add_argument("--process_id", type=natural, metavar="I", help="which process this is, from 0")
    together.add_argument("--process_count", type=positive, metavar="N", help="how many there are")
    together.add_argument(
        "--wait", type=positive, metavar="S", default=300, help="seconds to wait for the others (default: 300)"
    )
    parser.add_argument("--config.KEY", metavar="VALUE", help="change a key of the config, as --config.train.steps=500")


def run(args: argparse.Namespace) -> None:
    from zoo.parallel.multihost import Processes, connect, ending_together, is_first

    connect(Processes(args.coordinator, args.process_id, args.process_count, args.wait))
    if not is_first():
        console.only_warnings()
    with ending_together():
        _run(args)


def _run(args: argparse.Namespace) -> None:
    experiment, workdir = _experiment(args)
    if (summary := _finished(workdir, experiment)) is None:
        try:
            shapes = _train(workdir, experiment, args.init_from or args.like, args.init_from is not None)
            if shapes is None:
                return
            summary = _summarize(workdir, experiment, shapes)
        except OSError as error:
            error.filename = error.filename or str(workdir)  # what writes into an open file does not know its name
            raise
    else:
        log.info("%s is finished: --config.train.%s=N goes on with it", workdir, _measure(experiment))
    _show(workdir, summary)


def _experiment(args: argparse.Namespace) -> tuple["Experiment", "AnyPath"]:
    from zoo.experiment import body_of, from_file, from_workdir

    if args.config is None and args.workdir is not None and (args.workdir / "config.json").exists():
        return from_workdir(args.workdir, args.changes), args.workdir
    changes = args.changes
    if donor := args.init_from or args.like:
        # Before the user's own, which may make sense at the donor's size alone.
        changes = [*body_of(from_workdir(donor), from_file(args.config or CONFIG)), *changes]
    experiment = from_file(args.config or CONFIG, changes)
    return experiment, args.workdir or Path("runs", experiment.name)


def _train(workdir: "AnyPath", experiment: "Experiment", donor: "AnyPath | None", begin_there: bool) -> Any | None:
    """Train to the end, with the tokenizer of `donor` and perhaps from its parameters; gives the shapes and shardings
    of the parameters, or None where it was asked to stop before."""
    import jax

    from zoo.experiment import starting
    from zoo.models import registry
    from zoo.parallel.mesh import make_mesh
    from zoo.parallel.multihost import first_does, is_first
    from zoo.training.loop import Training

    mesh = make_mesh(experiment.mesh)
    with starting(workdir, experiment) if is_first() else nullcontext():
        log.info("%s: %d %s device(s), working directory %s", experiment.name, jax.device_count(), _device(), workdir)
        task = experiment.make_task(workdir)

        def prepare():
            if donor is not None:
                _take_tokenizer(donor, workdir)
            task.prepare()

        first_does(prepare)
        model = registry.of(experiment.model_config(task, experiment.train.compute_dtype))
        config = experiment.train_config(task)
        training = Training(task, model, config, experiment.optimizer, mesh, experiment.seed)
        if begin_there and not training.checkpoints.steps():
            step = training.begin_with(donor)
            log.info("beginning with the parameters of step %d in %s", step, donor)
    with console.kept(workdir / "logs", f"host-{jax.process_index()}.log"):
        return training.shapes.params if training.run(experiment.as_dict()) else None


def _take_tokenizer(source: "AnyPath", workdir: "AnyPath") -> None:
    """Parameters mean something only with the vocabulary that they were trained on."""
    from zoo.experiment import from_workdir
    from zoo.storage import write_whole

    from_workdir(source)  # or it is no working directory
    if not (source / "tokenizer").is_dir():
        raise UserError(f"{source} has no {source / 'tokenizer'}: copy it from where it was trained")
    if not (workdir / "tokenizer").exists():
        for path in (source / "tokenizer").iterdir():
            write_whole(workdir / "tokenizer" / path.name, path.read_bytes())


def _measure(experiment: "Experiment") -> str:
    return "epochs" if experiment.train.epochs else "steps"


def _device() -> str:
    import jax

    return jax.devices()[0].device_kind


def _finished(workdir: "AnyPath", experiment: "Experiment") -> dict[str, Any] | None:
    """What the same experiment came to, if it has been trained to its end and its checkpoint is still there."""
    path = workdir / "summary.json"
    if not path.exists():
        return None
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # cut short by a kill: it is made again
        return None
    same = isinstance(summary, dict) and summary.get("config") == experiment.as_dict()
    return summary if same and (workdir / summary["checkpoint"]).is_dir() else None


def _summarize(workdir: "AnyPath", experiment: "Experiment", shapes: Any) -> dict[str, Any]:
    """Score the best parameters on the test split, if there is one, and draw what a translation looked at."""
    import jax

    from zoo.evaluation import score
    from zoo.parallel.multihost import is_first
    from zoo.storage import write_whole
    from zoo.workdirs import Workdir

    # On the same mesh; and where training and decoding compute in one dtype, nothing need be compiled again. Of several
    # processes each does it all, on its own device.
    opened = Workdir(workdir, experiment, shapes=shapes if jax.process_count() == 1 else None)
    summary = {"config": experiment.as_dict(), "checkpoint": f"best/{opened.step}", "scores": {}}
    split = opened.task.SUMMARY
    if getattr(experiment.data, split):
        log.info("scoring the %s split", split)
        summary["scores"] = score(opened, split)
        if experiment.task == "translation":
            summary["sentence"] = _sentence(opened.task.pairs("test"))
            if is_first():
                _draw_attention(opened, summary["sentence"])
    if is_first():
        text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
        write_whole(workdir / "summary.json", text.encode())
    return summary


def _draw_attention(opened: "Workdir", sentence: str) -> None:
    from zoo.plotting.attention import draw_attention

    attention = opened.cross_attention(sentence)
    if attention is not None and attention.text.strip():  # a model that was hardly trained may say nothing
        title, path = f"{sentence} → {attention.text}", opened.path / "attention.png"
        draw_attention(attention.alignment()[None, None], attention.source, attention.target, title, path)


def _sentence(pairs: Iterable[tuple[str, str]]) -> str:
    """The first source that is short enough for a picture, or the shortest."""
    sources = [source for source, _ in islice(pairs, 100) if source.strip()]
    return next((source for source in sources if 4 <= len(source.split()) <= 12), min(sources, key=len))


def _show(workdir: "AnyPath", summary: dict[str, Any]) -> None:
    from zoo.evaluation import table

    log.info("")
    if summary["scores"]:
        log.info("%s", table(summary["scores"]))
    log.info("parameters  %s", workdir / summary["checkpoint"])
    if (workdir / "attention.png").exists():
        log.info("attention   %s", workdir / "attention.png")
    sentence, directory = shlex.quote(summary.get("sentence", "...")), shlex.quote(str(workdir))
    split = "test" if summary["config"]["data"]["test"] else "valid"
    following = {
        "translation": f"echo {sentence} | python -m zoo translate {directory}",
        "language_modeling": f"python -m zoo generate {directory} --prompt ...",
        "classification": f"python -m zoo eval {directory} --split={split} --predictions=FILE",
    }
    log.info("next        %s", following[summary["config"]["task"]])
