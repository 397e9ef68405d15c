"""The loop: batches in, updates, reports, evaluations and checkpoints out. It knows a task only by its contract."""

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh

from zoo.checkpoints import Checkpoints, best_score
from zoo.data.batches.base import Share
from zoo.errors import UserError
from zoo.parallel.mesh import batch_shards, check_heads
from zoo.parallel.multihost import StopNotice, ending_together, is_first
from zoo.parallel.rules import own_shards, parameter_count, place
from zoo.tasks.base import Task
from zoo.training.ahead import compiled_ahead, shape_of
from zoo.training.awaited import Awaited
from zoo.training.calls import calls, in_one_call, steps_per_call
from zoo.training.config import TrainConfig
from zoo.training.listeners import Listener
from zoo.training.optimizers import COUNTS, OptimizerConfig, optimizer, schedule, trained_paths
from zoo.training.profiling import Profile
from zoo.training.progress import DivergedError, Progress, Window
from zoo.training.reporting import Reporter
from zoo.training.selection import Selection
from zoo.training.step import TrainState, born, make_step
from zoo.training.warm_start import Wanted, WarmStart, optimizer_of, taken_over
from zoo.training.watchdog import Watchdog

log = logging.getLogger("zoo")


def matrix_parameters(model: Any, params: Any, batch: Any) -> int:
    """The number of parameters that each target token is multiplied by: all but the embeddings, plus the output
    matrix."""
    output = jax.eval_shape(lambda params: model.apply({"params": params}, batch), params)
    tables = [
        leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params) if "table" in jax.tree_util.keystr(path)
    ]
    own = {leaf.shape for leaf in tables}
    matrix = output.readout.matrix
    return parameter_count(params) - parameter_count(tables) + (matrix.size if matrix.shape in own else 0)


def update(
    task: Task, model: Any, config: TrainConfig, optimizer_config: OptimizerConfig, mesh: Mesh, seed: int
) -> tuple[TrainState, Callable[[], TrainState], Callable]:
    """The parts of training a model on a mesh: the shapes of its state with their shardings, the function that makes a
    fresh one, and the jitted step."""
    check_heads(mesh, getattr(model.config, "heads", None))
    added = getattr(model, "added_rows", None)
    rule = optimizer(optimizer_config, model.config.width, config.steps, added)
    batch = task.example_batch()
    shapes, fresh = born(lambda key: model.init(key, batch)["params"], rule, mesh, seed, optimizer_config.ema > 0)
    loss, count = partial(task.loss, model), COUNTS[optimizer_config.per]
    paths = {path: leaf.shape for path, leaf in flatten_dict(shapes.params, sep="/").items()}
    trained = trained_paths(optimizer_config, paths, added)
    return shapes, fresh, make_step(loss, rule, mesh, shapes, config.accumulate, optimizer_config.ema, count, trained)


class Training:
    """One run in a working directory: restores what is there, and trains to `config.steps`."""

    def __init__(
        self, task: Task, model: Any, config: TrainConfig, optimizer_config: OptimizerConfig, mesh: Mesh, seed: int
    ):
        self.task, self.model, self.config, self.mesh = task, model, config, mesh
        self.rate = schedule(optimizer_config, model.config.width, config.steps)
        shards = batch_shards(mesh) * config.accumulate
        groups, own = own_shards(mesh)
        self.batches = Awaited(task.training_batches(shards, Share(own, len(groups))))
        self.shards = shards
        self.shapes, self.fresh, self.step = update(task, model, config, optimizer_config, mesh, seed)
        self.count = COUNTS[optimizer_config.per]
        self.flops_per_token = 6 * matrix_parameters(model, self.shapes.params, task.example_batch())
        self.per_call = steps_per_call(config, task.training_shapes(shards), self.flops_per_token)
        self.several = in_one_call(self.step, self.shapes, mesh)
        by_epochs = config.evaluate_epochs
        self.evaluate_every: float = by_epochs * task.epoch_steps() if by_epochs else config.evaluate_every
        self.checkpoints = Checkpoints(task.workdir, config.keep)
        self.selection = Selection(task, model, config, mesh, self.checkpoints)
        self.progress = Progress()
        self.initial: Any | None = None  # parameters to start from, instead of random ones
        self.initial_optimizer: Any | None = None  # the optimizer's state, instead of a new one
        self.last_loss: float | None = None  # per token or per sentence, like the gradient
        self.state: TrainState

    def begin_with(self, wanted: Wanted) -> WarmStart:
        """Start from parameters of another working directory, see `zoo.training.warm_start.taken_over`."""
        start = taken_over(wanted, self.shapes.params, lambda: self.fresh().params)
        self.initial = start.params
        if wanted.optimizer:
            self.initial_optimizer = optimizer_of(start, wanted, self.shapes.optimizer)
        return start

    def run(
        self,
        description: dict[str, Any],
        interruptible: bool = False,
        listeners: Sequence[Listener] | None = None,
    ) -> bool:
        """Train to the last step, and return whether it was reached: after SIGTERM, a preemption notice or, if
        `interruptible`, an interrupt, it saves and returns early. `description` is the whole experiment, for W&B;
        `listeners` receive the reports, by default a terminal.

        Raises UserError when the training diverges and must not go back again; earlier checkpoints are kept.
        """
        start = self._restore()
        self._compile(start)
        try:
            with ending_together():
                while True:
                    try:
                        return self._from(start, description, interruptible, listeners)
                    except DivergedError as diverged:
                        start = self._go_back(diverged)
        finally:
            self.checkpoints.close()

    def _from(
        self, start: int, description: dict[str, Any], interruptible: bool, listeners: Sequence[Listener] | None
    ) -> bool:
        config = self.config
        reporter = Reporter(
            self.task.workdir, config.steps, start, config.wandb or None, description, listeners, is_first()
        )
        try:
            with StopNotice(interruptible) as notice, Watchdog(config.stuck_after) as watchdog:
                finished = self._steps(start, reporter, notice, watchdog)
            self.checkpoints.wait()
            if finished and config.average_last > 1:
                self.selection.average(self.shapes.params, self.progress, reporter)
            return finished
        finally:
            reporter.close()

    def _compile(self, start: int) -> None:
        """Compile for all shapes of batches at once, if there are several, and enough steps to need them."""
        if not 0 < self.config.compile_ahead <= self.config.steps - start:
            return
        shapes = self.task.training_shapes(self.shards)
        if len(shapes) > 1:
            self.batches.start_prefetch()  # the first are read meanwhile
            self.step = compiled_ahead(self.step, self.shapes, shapes, self.mesh)

    def _go_back(self, diverged: DivergedError) -> int:
        """Restore the last checkpoint, and skip the batches up to the one where training diverged."""
        self.checkpoints.wait()
        kept, gone_back = self.checkpoints.steps(), self.progress.rollbacks
        where = f"the checkpoint of step {kept[-1]} is kept" if kept else "nothing was saved before it"
        if gone_back >= self.config.rollbacks or not kept:
            raise UserError(
                f"{diverged}; {where}: lower optimizer.peak, lengthen optimizer.warmup or set optimizer.clip, in "
                "another --workdir, or let it pass over such batches with train.rollbacks"
            )
        start = self._restore()
        for _ in range(start, diverged.step):
            next(self.batches)
        self.progress.rollbacks = gone_back + 1
        log.warning(
            "%s: back to step %d, skipping the %d batches since (%d of %d times)",
            diverged,
            start,
            diverged.step - start,
            self.progress.rollbacks,
            self.config.rollbacks,
        )
        return start

    def _restore(self) -> int:
        found = self.checkpoints.restore(self.shapes, self.batches)
        if found is None:
            self.state = self._first()
            self.progress.data = self.task.training_fingerprint()
            log.info("training %s parameters from step 0 to %d", f"{self._size():,}", self.config.steps)
            return 0
        step, self.state, progress = found
        self.last_loss = None
        self.progress = Progress(**progress)
        if step < self.config.steps:
            self._check_data(step)
        best = best_score(self.task.workdir, self.config.select)
        # An average of the last checkpoints may have become the best after they were saved.
        if best is not None and best[0] <= step and self.progress.better(best[1], self.config.select):
            self.progress.best_step, self.progress.best = best
        if step < self.config.steps:
            log.info("resuming from step %d of %d in %s", step, self.config.steps, self.task.workdir)
        else:
            log.info("%s is at step %d, and trains to %d: nothing is left", self.task.workdir, step, self.config.steps)
        return step

    def _check_data(self, step: int) -> None:
        """Raises UserError if the training data differs from that before `step`, unless the config allows it."""
        before, self.progress.data = self.progress.data, self.task.training_fingerprint()
        if before in ("", self.progress.data):
            return
        changed = f"the training data (data.train) has changed since step {step} of {self.task.workdir}"
        if not self.config.changed_data:
            raise UserError(
                f"{changed}: put the old data back, train in another --workdir, or resume at the same position in the "
                "new data with --config.train.changed_data=true"
            )
        log.warning("%s: resuming at the same position in the new data", changed)

    def _first(self) -> TrainState:
        state = self.fresh()
        if self.initial is None:
            return state
        average = jax.tree.map(jnp.copy, self.initial) if state.ema is not None else None
        optimizer = state.optimizer if self.initial_optimizer is None else self.initial_optimizer
        return dataclasses.replace(state, params=self.initial, optimizer=optimizer, ema=average)

    def _size(self) -> int:
        return parameter_count(self.shapes.params)

    def _steps(self, start: int, reporter: Reporter, notice: StopNotice, watchdog: Watchdog) -> bool:
        profile = Profile(self.config.profile_at, reporter.local / "tensorboard")
        try:
            return self._every_step(start, reporter, notice, watchdog, profile)
        finally:
            profile.close(self.state)

    def _every_step(
        self, start: int, reporter: Reporter, notice: StopNotice, watchdog: Watchdog, profile: Profile
    ) -> bool:
        config, window, running = self.config, Window(carried=self.progress.window), None
        for call in calls(start, config.steps, self.per_call, self._pauses):
            before, step = call[0] - 1, call[-1]
            if config.patience and self.progress.since_best >= config.patience:
                reporter.message(f"no better train.select={config.select} in {config.patience} evaluations: stopping")
                self._save(before, reporter, window)
                return True
            profile.before(call, self.state)
            with watchdog.over(step):
                waiting = time.perf_counter()
                batches = self.batches.unless(notice.while_waiting, len(call))
                if batches is None:
                    self._take(window, running)
                    return self._stop(before, reporter, window)
                batches = [place(batch, self.mesh) for batch in batches]
                window.waited += time.perf_counter() - waiting
                begun = call[0], self._update(batches)
                # Read the numbers of the previous call while this one runs.
                self._take(window, running)
                running, stop = begun, notice.after_call()
                if stop or self._pauses(step):
                    self._take(window, running)
                    running = None
            if self._reports(step):
                values = window.values(float(self.rate(step - 1)), self.flops_per_token)
                reporter.report(step, {f"train/{name}": value for name, value in values.items()})
                window = Window()
                self.checkpoints.check()
            pausing = time.perf_counter()
            if self._evaluates(step):
                self.selection.evaluate(step, self._weights(), self.progress, reporter)
            if stop and step < config.steps:
                return self._stop(step, reporter, window)
            if stop or self._saves(step):
                self._save(step, reporter, window)
            window.paused += time.perf_counter() - pausing
        return True

    def _update(self, batches: list[Any]) -> list[dict[str, Any]]:
        """Start the updates on these batches: in one call if they are several of one shape. Returns the metrics of
        each call."""
        if len(batches) > 1 and len(set(map(shape_of, batches))) == 1:
            self.state, metrics = self.several(self.state, tuple(batches))
            return [metrics]
        metrics = []
        for batch in batches:
            self.state, of_one = self.step(self.state, batch)
            metrics.append(of_one)
        return metrics

    def _stop(self, step: int, reporter: Reporter, window: Window) -> bool:
        """Save `step`, the last one, and return False: the run is not finished."""
        if step == 0:
            log.info("asked to stop before the first step: the same command starts again")
            return False
        self._save(step, reporter, window)
        self.checkpoints.wait()
        log.info("asked to stop: step %d of %d is saved; the same command resumes from it", step, self.config.steps)
        return False

    def _reports(self, step: int) -> bool:
        return step % self.config.log_every == 0 or step == self.config.steps

    def _evaluates(self, step: int) -> bool:
        """Whether to evaluate after `step`: when another interval is complete, which may be a fraction of steps."""
        return step // self.evaluate_every > (step - 1) // self.evaluate_every or step == self.config.steps

    def _saves(self, step: int) -> bool:
        with_evaluations = self.config.evaluate_epochs > 0 and self._evaluates(step)
        return step % self.config.checkpoint_every == 0 or step == self.config.steps or with_evaluations

    def _pauses(self, step: int) -> bool:
        """Whether anything but the next step follows `step`."""
        return self._reports(step) or self._evaluates(step) or self._saves(step)

    def _take(self, window: Window, running: tuple[int, list[dict[str, Any]]] | None) -> None:
        """Wait for the numbers of the calls that began with a step, and check those of each step."""
        if running is None:
            return
        step, begun = running
        for metrics in jax.device_get(begun):
            metrics = jax.tree.map(np.atleast_1d, metrics)
            for index in range(len(metrics["gradient_norm"])):
                self._see(step, jax.tree.map(itemgetter(index), metrics), window)
                step += 1

    def _see(self, step: int, metrics: dict[str, Any], window: Window) -> None:
        window.add(metrics)
        objective = float(metrics["sums"].objective)
        for name, value in (("loss", objective), ("gradient", float(metrics["gradient_norm"]))):
            if not math.isfinite(value):
                raise DivergedError(step, f"the {name} of step {step} is not a number")
        loss = objective / max(float(self.count(metrics["sums"])), 1.0)
        if self.config.spike and self.last_loss is not None and loss > self.config.spike * self.last_loss:
            raise DivergedError(step, f"the loss of step {step} is {loss:.4g}, after {self.last_loss:.4g}")
        self.last_loss = loss

    def _weights(self) -> Any:
        """The parameters to evaluate, which are also those loaded from a checkpoint (`zoo.checkpoints.parameters`)."""
        return self.state.params if self.state.ema is None else self.state.ema

    def _save(self, step: int, reporter: Reporter, window: Window) -> None:
        self.progress.window = window.saved
        reporter.publish()
        self.checkpoints.save(step, self.state, self.batches, dataclasses.asdict(self.progress))
