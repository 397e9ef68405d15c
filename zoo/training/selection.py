"""Evaluations of a run, and the parameters that it keeps as its best."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from zoo.checkpoints import Checkpoints, average_parameters, save_parameters
from zoo.errors import UserError
from zoo.parallel.rules import on_this_process
from zoo.tasks.base import Task
from zoo.training.config import TrainConfig
from zoo.training.lora import unadapted
from zoo.training.progress import Progress
from zoo.training.reporting import Reporter

PyTree = Any
AVERAGE = "average"  # the prefix of the scores of the last checkpoints' average


class Selection:
    """Evaluates parameters on the validation split, reports what it finds, and keeps the best in `best/`."""

    def __init__(self, task: Task, model: Any, config: TrainConfig, mesh: Mesh, checkpoints: Checkpoints):
        self._task, self._model, self._config, self._mesh = task, model, config, mesh
        self._checkpoints = checkpoints

    def evaluate(self, step: int, params: PyTree, progress: Progress, reporter: Reporter) -> None:
        """The parameters after `step`."""
        evaluation = self._evaluation(params)
        _report(step, evaluation, reporter)
        if progress.see(step, self._selected(evaluation.values), self._config.select):
            self._checkpoints.save_best(step, params, evaluation.values)

    def average(self, shapes: PyTree, progress: Progress, reporter: Reporter) -> None:
        """Average the last checkpoints (Vaswani et al. 2017, section 6.1), and keep the average as the best if it
        is. `shapes` gives the shardings of parameters."""
        steps = self._checkpoints.steps()[-self._config.average_last :]
        host = average_parameters(self._task.workdir, steps)
        params = jax.tree.map(lambda leaf, like: jax.device_put(jnp.asarray(leaf), like.sharding), host, shapes)
        evaluation = self._evaluation(params)
        reporter.message(f"average of the checkpoints at steps {steps[0]} to {steps[-1]}")
        values = evaluation.values
        save_parameters(self._task.workdir / "average", steps[-1], params, values)
        if progress.better(self._selected(values), self._config.select):
            self._checkpoints.save_best(steps[-1], params, values)
        _report(steps[-1], evaluation, reporter, AVERAGE)

    def _evaluation(self, params: PyTree) -> Any:
        local = on_this_process(params, self._mesh)
        return self._task.evaluate(*unadapted(self._model, local), "valid", most=self._config.evaluation_size)

    def _selected(self, values: dict[str, Any]) -> float:
        if self._config.select not in values:
            numbers = ", ".join(name for name, value in values.items() if isinstance(value, float))
            raise UserError(f"train.select={self._config.select!r} is not among the values of an evaluation: {numbers}")
        return values[self._config.select]


def _report(step: int, evaluation: Any, reporter: Reporter, split: str = "valid") -> None:
    numbers = {name: value for name, value in evaluation.values.items() if isinstance(value, float)}
    reporter.report(step, {f"{split}/{name}": value for name, value in numbers.items()})
    if evaluation.note:
        reporter.message(f"    {evaluation.note}\n")
    reporter.samples(step, evaluation.samples)
