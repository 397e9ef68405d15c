"""How long to train, what to report and what to keep: the key `train` of an experiment."""

from dataclasses import dataclass

from zoo.errors import UserError, check_choice
from zoo.parallel.devices import COMPUTE_DTYPES


@dataclass(frozen=True)
class TrainConfig:
    """How long to train, what to report and what to keep.

    Products are computed in `compute_dtype`: float32, bfloat16, or what the device is fastest at (auto). `select` names
    the value of an evaluation by which the best checkpoint is chosen; training ends early when it has not improved in
    `patience` evaluations (0: never). An evaluation reads the first `evaluation_size` examples (0: all). `average_last`
    checkpoints are averaged at the end, and the average becomes the best if it is. `accumulate` cuts each batch into
    parts that go through one after the other. `profile_at` is the step from which five are traced for TensorBoard's
    profiler (0: none). Where `compile_ahead` steps or more are left, the shapes of all batches are compiled together
    before the first (0: each when it comes). `steps_per_call` steps are one call of the device, if nothing else happens
    between them and their batches have one shape (0: chosen, see `zoo.training.calls`).

    With `epochs` the data decides the steps, which `steps` bounds (0: no bound), and without them `steps` does. With
    `evaluate_epochs` there is an evaluation, and a checkpoint, after each so many epochs (fractions too) instead of
    `evaluate_every` steps.

    Where a loss or gradient is no number, or a loss is more than `spike` times the one before (0: any may be), the run
    goes back to the last checkpoint and passes over the batches since, `rollbacks` times at most; then it ends. A step
    that has taken `stuck_after` seconds ends the process (0: never).

    A run goes on only with the training data that it began with, unless `changed_data` asks for others. That counts for
    one call: it is not kept in the working directory.
    """

    steps: int = 100_000
    epochs: float = 0.0
    evaluate_epochs: float = 0.0
    compute_dtype: str = "float32"
    accumulate: int = 1
    smoothing: float = 0.0
    log_every: int = 100
    evaluate_every: int = 1000
    checkpoint_every: int = 1000
    keep: int = 3
    evaluation_size: int = 0
    select: str = "bleu"
    patience: int = 0
    average_last: int = 0
    profile_at: int = 0
    wandb: str = ""
    rollbacks: int = 0
    spike: float = 0.0
    stuck_after: int = 1800
    compile_ahead: int = 100
    steps_per_call: int = 0
    changed_data: bool = False

    def __post_init__(self):
        check_choice("train.compute_dtype", self.compute_dtype, COMPUTE_DTYPES)
        if not self.steps and not self.epochs:
            raise UserError("train.steps=0: use at least 1, or set train.epochs")
        for key in ("accumulate", "log_every", "evaluate_every", "checkpoint_every", "keep"):
            if getattr(self, key) < 1:
                raise UserError(f"train.{key}={getattr(self, key)}: use at least 1")
        not_negative = (
            "steps",
            "epochs",
            "evaluate_epochs",
            "evaluation_size",
            "patience",
            "average_last",
            "profile_at",
        )
        for key in (*not_negative, "rollbacks", "stuck_after", "compile_ahead", "steps_per_call"):
            if getattr(self, key) < 0:
                raise UserError(f"train.{key}={getattr(self, key)}: use 0 or more")
        if self.spike and self.spike <= 1:
            raise UserError(f"train.spike={self.spike}: use a factor above 1, or 0 for none")
        if not 0 <= self.smoothing < 1:
            raise UserError(f"train.smoothing={self.smoothing}: label smoothing lies in [0, 1)")
        if self.average_last > self.keep:
            raise UserError(
                f"train.average_last={self.average_last} needs as many checkpoints, but train.keep={self.keep}: "
                "raise train.keep"
            )
