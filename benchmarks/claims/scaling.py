"""Scalability: GPTs of six sizes read the same characters of a text. A power law is fitted to their losses, and a
larger GPT checks its prediction.

The learning rate is constant after its warm-up, and a moving average of the parameters is scored. So each evaluation
stands for a run that ends there.
"""

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict

import zoo
from benchmarks.claims import pictures
from benchmarks.claims.points import Points
from benchmarks.claims.power_law import PowerLaw, frontier
from benchmarks.claims.words import table
from benchmarks.claims.work import work_of
from zoo.data.batches.base import LanguageBatch
from zoo.models import registry
from zoo.plotting.curves import read_curves
from zoo.storage import write_whole
from zoo.training.arrays import next_token_loss

TITLE = "Scalability"
CLAIM = (
    "The loss scales as a power-law with model size, dataset size, and the amount of compute used for training. "
    "(Kaplan et al. 2020, abstract)"
)
SETTINGS: dict[str, Any] = {
    # Layers and width; the last is the one that is predicted. All have two layers or more: a single layer is off the
    # trend (Kaplan et al. 2020, section 3.2).
    "sizes": [[2, 16], [2, 32], [2, 48], [2, 64], [2, 80], [3, 96], [4, 128]],
    "rows": 16,
    "length": 128,
    "updates": 1000,
    "evaluate_every": 200,
    "seed": 0,
    "ema": 0.98,
    # At width 128; at other widths by the square root of their ratio. Twice as much is not stable at two layers of 32.
    "peak": 2.5e-3,
    "peak_width": 128,
}


def settings_for(text: Path | None) -> dict[str, Any]:
    """`SETTINGS` for a text file; without one, for the manual of Python."""
    content = _content(text)
    name = "the manual of Python" if text is None else text.name
    return SETTINGS | {"text": name, "sha256": hashlib.sha256(content).hexdigest()}


def measure(points: Points, text: Path | None) -> None:
    """Held-out loss of each size after every `evaluate_every` updates, with its parameters and its operations."""
    for layers, width in points.settings["sizes"]:
        points.of(f"{layers}x{width}", lambda size=(layers, width): _point(points.settings, text, *size, points.work))


def _content(text: Path | None) -> bytes:
    if text is not None:
        return text.read_bytes()
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics)).encode()


def _point(settings: dict[str, Any], text: Path | None, layers: int, width: int, folder: Path) -> dict[str, Any]:
    write_whole(folder / "text" / "text.txt", _content(text))
    begun = time.perf_counter()
    heads = max(1, width // 32)
    trained = zoo.train(
        "shakespeare_char.py",
        folder / f"{layers}x{width}",
        **{"model.layers": layers, "model.width": width, "model.ffn": 4 * width, "model.heads": heads},
        **{"model.max_length": settings["length"], "model.dropout": 0.0, "model.attention_dropout": 0.0},
        **{"data.path": str(folder / "text"), "data.train": "text.txt[:90%]", "data.valid": "text.txt[90%:]"},
        **{"data.length": settings["length"], "data.batch_rows": settings["rows"]},
        **{"optimizer.peak": settings["peak"] * (settings["peak_width"] / width) ** 0.5},
        **{"optimizer.schedule": "constant", "optimizer.ema": settings["ema"]},
        **{"train.steps": settings["updates"], "train.evaluate_every": settings["evaluate_every"]},
        **{"train.checkpoint_every": settings["evaluate_every"], "train.compute_dtype": "bfloat16"},
        seed=settings["seed"],
    )
    seconds = time.perf_counter() - begun
    steps, losses = read_curves(trained.path / "metrics.jsonl")["loss"]["valid"]
    flops = _flops(trained.model, settings)
    return {
        "parameters": _without_embeddings(trained.params),
        "seconds": seconds,
        "flops_per_update": flops,
        "updates": steps,
        "losses": losses,
    }


def _without_embeddings(params: Any) -> int:
    """As Kaplan et al. 2020 count them, section 1.3."""
    flat = flatten_dict(params, sep="/")
    return sum(leaf.size for path, leaf in flat.items() if not any(name in path for name in ("embedding", "position")))


def _flops(model: Any, settings: dict[str, Any]) -> float:
    """Of the matrix products of an update, forward and backward."""
    ids = jax.ShapeDtypeStruct((settings["rows"], settings["length"]), np.int32)

    def objective(params, batch):
        return next_token_loss(model, params, batch, jax.random.key(0)).objective

    shapes = nn.unbox(registry.boxed_shapes(model.config))
    return work_of(jax.grad(objective), shapes, LanguageBatch(ids, ids)).flops


def _runs(points: Points) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """The runs that are fitted, with their compute, and the one that checks the fit."""
    runs = {
        name: run
        | dict(zip(("layers", "width"), name.split("x"), strict=True))
        | {"compute": [run["flops_per_update"] * n for n in run["updates"]]}
        for name, run in points.values.items()
    }
    layers, width = points.settings["sizes"][-1]
    checked = runs.pop(f"{layers}x{width}", None)
    return list(runs.values()), checked


def _laws(fitted: Sequence[dict[str, Any]]) -> dict[str, PowerLaw]:
    if len(fitted) < 3:
        return {}
    by_parameters = PowerLaw.fitted([r["parameters"] for r in fitted], [r["losses"][-1] for r in fitted])
    compute, losses = frontier([(r["compute"], r["losses"]) for r in fitted])
    laws = {"parameters": by_parameters}
    return laws | ({"compute": PowerLaw.fitted(compute, losses)} if len(compute) >= 3 else {})


def tell(points: Points) -> Iterator[str]:
    """What was done, the table, and what came out."""
    s = points.settings
    fitted, checked = _runs(points)
    tokens = s["rows"] * s["length"] * s["updates"]
    yield f"GPTs of {len(points.values)} sizes read the same {tokens:,} characters of {s['text']}; its last tenth is"
    yield f"held out. One seed each. The learning rate is {s['peak']:g} at width {s['peak_width']}, falls with the root"
    yield "of the width, and is constant after warm-up; a moving average of the parameters is scored. Compute counts"
    yield "the operations of the matrix products of all updates, forward and backward.\n"
    header = ["layers", "width", "parameters without embeddings", "operations", "held-out loss, nats", "role"]
    yield from table(header, _rows(fitted, checked))
    yield ""
    laws = _laws(fitted)
    yield from _verdicts(laws, checked)
    missing = [f"{layers} x {width}" for layers, width in s["sizes"] if f"{layers}x{width}" not in points.values]
    if missing:
        yield f"- Not measured yet: {', '.join(missing)} (layers x width). The last size is to check the prediction."
    if "compute" in laws:
        yield "\nThe law of parameters is fitted to the last loss of each run. The law of compute is fitted to the"
        yield "points that no other point betters with as little compute. Several of these belong to one run and depend"
        yield "on each other, so its intervals are narrower than they should be. It also ignores that the text is the"
        yield "same for all: a run of a larger model may need more of it to reach the best loss of its compute."


def _rows(fitted: Sequence[dict[str, Any]], checked: dict[str, Any] | None) -> Iterator[list[str]]:
    for run in [*fitted, *([checked] if checked else [])]:
        cells = [run["layers"], run["width"], f"{run['parameters']:,}", f"{run['compute'][-1]:.2e}"]
        yield [*cells, f"{run['losses'][-1]:.3f}", "checks the law" if run is checked else "fitted"]


def _verdicts(laws: dict[str, PowerLaw], checked: dict[str, Any] | None) -> Iterator[str]:
    for of, law in laws.items():
        low, high = law.exponent_interval
        yield f"- Loss falls as {of}^−{law.exponent:.3f} (95 %: {low:.3f} to {high:.3f})."
        if checked:
            at = checked["parameters"] if of == "parameters" else checked["compute"][-1]
            yield _check(law, of, at, checked["losses"][-1])


def _check(law: PowerLaw, of: str, x: float, loss: float) -> str:
    low, high = law.interval(x)
    verdict = "inside the interval" if low <= loss <= high else f"{'below' if loss < low else 'above'} the interval"
    amount = f"{x:,} parameters" if of == "parameters" else f"{x:.2e} operations"
    return (
        f"  Extrapolated to {amount}, {x / math.exp(max(law.points)):.1f} times the largest fitted, it predicts "
        f"{law(x):.3f} (95 %: {low:.3f} to {high:.3f}). The larger run came to {loss:.3f}: {verdict}."
    )


def draw(points: Points, path: Path) -> None:
    """Loss over parameters and over compute."""
    fitted, checked = _runs(points)
    pictures.draw_scaling(path, fitted, checked, _laws(fitted))
