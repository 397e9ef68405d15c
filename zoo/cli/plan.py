"""`plan`: the cost of a training step on TPUs or GPUs that you need not have."""

import argparse
import dataclasses
import json
import logging
from typing import TYPE_CHECKING, Any

from zoo.errors import UserError

if TYPE_CHECKING:
    from zoo.experiment import Experiment
    from zoo.planning.compilation import Plan

HELP = "compile a training step for absent TPUs or GPUs: memory, messages and predicted speed"
EXAMPLE = """python -m zoo plan --config=gpt.py:gpt1 --topology=v5e:4x4 --mesh data=4,fsdp=4
  python -m zoo plan --config=gpt.py:gpt2_1558m --topology=v5e:16x16 --config.data.batch_rows=512 --sweep
  python -m zoo plan --config=gpt.py:gpt1 --topology=v5e:4x4 --slices=2 --mesh data=16,dcn_data=2
  python -m zoo plan --config=gpt.py:gpt1 --topology=h100:8"""

DOUBT = "the FLOPs of the program differ from the formula's, so do not trust its time"

log = logging.getLogger("zoo")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="FILE[:ARGS]", help="an experiment, as for train")
    parser.add_argument(
        "--topology",
        required=True,
        metavar="CHIP:SHAPE",
        help="a TPU slice (v5e:16x16, v5p:4x4x8) or GPUs (h100:8 is one host of eight, h100:4x8 four hosts)",
    )
    parser.add_argument(
        "--slices",
        type=int,
        default=1,
        metavar="N",
        help="the number of slices of TPUs, joined by the data-center network",
    )
    parser.add_argument(
        "--mesh",
        default="",
        metavar="AXIS=N,...",
        help="the sizes of data, fsdp, tensor and sequence, and of dcn_data and so on (default: those of the config)",
    )
    parser.add_argument("--sweep", action="store_true", help="try all sensible meshes and rank them")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--config.KEY", metavar="VALUE", help="change a key of the config, as for train")


def run(args: argparse.Namespace) -> None:
    from zoo.planning.gpus import topology as parse

    topology = parse(args.topology, args.slices)
    import jax

    jax.config.update("jax_platforms", "cpu")  # otherwise libtpu would look for chips
    from zoo.experiment import from_file
    from zoo.planning.absent import absent_devices

    experiment = from_file(args.config, (*args.changes, *_mesh_changes(args.mesh)))
    devices = absent_devices(topology)
    found = _sweep(experiment, topology, devices) if args.sweep else _one(experiment, topology, devices)
    if args.json:
        print(json.dumps(found))
    elif args.sweep:
        print(_table(found["plans"]))
    else:
        print(_text(found))


def _mesh_changes(text: str) -> list[tuple[str, str]]:
    parts = [part.partition("=") for part in text.split(",") if part]
    if any(not equals for _, equals, _ in parts):
        raise UserError(f"--mesh={text!r}: write the sizes of axes, for example data=4,fsdp=4")
    return [(f"mesh.{axis.strip()}", size) for axis, _, size in parts]


def _one(experiment: "Experiment", topology: Any, devices: list[Any]) -> dict[str, Any]:
    """The plan; if it doesn't fit, also the changes that were tried until it did."""
    from zoo.planning.compilation import plan
    from zoo.planning.remedies import remedies

    first = plan(experiment, topology, devices)
    found, tried = first.as_dict(), []
    if not first.fits:
        for change, changed in remedies(experiment, topology):
            log.info("does not fit: trying %s", change)
            try:
                other = plan(changed, topology, devices)
            except UserError as error:
                log.info("%s", error)
                continue
            tried.append({"change": change, "fits": other.fits, "peak": other.memory.peak})
            log.info("%s: %s a chip", change, _gib(other.memory.peak))
            if other.fits:
                break
    return found | {"tried": tried}


def _sweep(experiment: "Experiment", topology: Any, devices: list[Any]) -> dict[str, Any]:
    """Plans of sensible meshes, and of the neighbours of the best until none is better; best first."""
    from zoo.planning.compilation import plan
    from zoo.planning.remedies import mesh_text, meshes, neighbours

    waiting = meshes(experiment, topology)
    if not waiting:
        raise UserError(f"no mesh fits {topology}: the state is too large, or the rows of a batch do not divide")
    plans: dict[Any, Plan] = {}
    refused: list[Any] = []
    while waiting:
        for number, mesh in enumerate(waiting):
            each = sum(p.compile_seconds for p in plans.values()) / max(len(plans), 1)
            left = f", about {each * (len(waiting) - number) / 60:.0f} min for those" if plans else ""
            log.info("%d to compile%s: %s", len(waiting) - number, left, mesh_text(mesh))
            try:
                plans[mesh] = plan(dataclasses.replace(experiment, mesh=mesh), topology, devices)
            except UserError as error:
                log.warning("left out: %s", error)
                refused.append(mesh)
                continue
            log.info("%s", " ".join(_row(plans[mesh].as_dict()).split()))
        if not plans:
            raise UserError(f"none of the sensible meshes on {topology} can be planned")
        best = min(plans, key=lambda mesh: _rank(plans[mesh]))
        waiting = [mesh for mesh in neighbours(experiment, topology, best) if mesh not in (*plans, *refused)]
    return {"plans": [p.as_dict() for p in sorted(plans.values(), key=_rank)]}


def _rank(plan: "Plan") -> tuple[bool, float]:
    """The key to sort plans: those that fit by their time, then the others by their memory."""
    return not plan.fits, plan.prediction.step_seconds if plan.prediction else plan.memory.peak


def _mesh(plan: dict[str, Any]) -> str:
    return ",".join(f"{axis}={size}" for axis, size in plan["mesh"].items() if size > 1) or "data=1"


def _table(plans: list[dict[str, Any]]) -> str:
    doubtful = any(map(_doubt, plans))
    note = [f"?  {DOUBT}; plan that mesh alone to see it"] if doubtful else []
    return "\n".join([f"{'mesh':40}{'memory':>12}{'step':>12}{'MFU':>8}", *map(_row, plans), *note])


def _row(plan: dict[str, Any]) -> str:
    predicted = plan["prediction"]
    speed = f"{1e3 * predicted['step_seconds']:.1f} ms" if predicted else ""
    use = f"{predicted['mfu']:.1%}" if plan["fits"] else "no room"
    return f"{_mesh(plan):40}{_gib(plan['memory']['peak']):>12}{speed:>12}{use:>8}{' ?' if _doubt(plan) else ''}"


def _doubt(plan: dict[str, Any]) -> bool:
    return bool(plan["prediction"]) and not 0.9 < plan["prediction"]["flops_by_formula"] < 1.25


def _text(plan: dict[str, Any]) -> str:
    memory, predicted = plan["memory"], plan["prediction"]
    lines = [
        f"devices      {plan['topology']}, mesh {_mesh(plan)}, compiled in {plan['compile_seconds']:.0f} s "
        f"by {plan['compiler']}",
        f"parameters   {plan['parameters']:,}; {plan['tokens']:,} tokens a step",
        f"memory       {_gib(memory['peak'])} a chip of {_gib(memory['available'])}: state and batch "
        f"{_gib(memory['arguments'])}, temporaries {_gib(memory['temporaries'])}, "
        f"program {_gib(memory['program'])}: {'fits' if plan['fits'] else 'DOES NOT FIT'}",
    ]
    if predicted:
        lines += _predicted(predicted)
    if _doubt(plan):
        lines.append(f"doubtful     {DOUBT}")
    lines += [
        f"tried        {t['change']}: {_gib(t['peak'])} a chip, {'fits' if t['fits'] else 'does not fit'}"
        for t in plan["tried"]
    ]
    return "\n".join(lines)


def _predicted(predicted: dict[str, Any]) -> list[str]:
    lines = [
        f"FLOPs        {predicted['flops']:.3e} a step, {predicted['flops_by_formula']:.3f} of what the formula gives"
    ]
    for t in predicted["traffic"]:
        over, beside = " and ".join(t["axes"]), "beside kernels" if t["overlapped"] else "alone"
        lines.append(
            f"messages     {t['kind']} over {over}: {t['messages']} of {t['bytes'] / 2**20:,.1f} MiB in all, "
            f"{1e3 * t['seconds']:.2f} ms {beside}"
        )
    kernels = 1e3 * predicted["kernel_seconds"]
    return [
        *lines,
        f"predicted    {1e3 * predicted['step_seconds']:.1f} ms a step (kernels {kernels:.1f} ms, "
        f"which move {predicted['bytes'] / 1e9:.1f} GB a chip), MFU {predicted['mfu']:.1%}",
        f"left out     {predicted['leaves_out']}",
    ]


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"
