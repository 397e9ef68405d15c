"""The checkpoints of a working directory, written by Orbax and sealed with checksums of their files.

    checkpoints/<step>/   the latest few, written while training goes on: state, position in the data, progress
    best/<step>/          the one with the best score, parameters only
    average/<step>/       the mean of several, parameters only

Each `<step>/` is an ordinary Orbax checkpoint with one more file, `checksums.json` (`zoo.checkpoints.sealing`), and a
classifier's with `labels.json`, its classes in the order of its outputs.
"""

from zoo.checkpoints.finding import kept_steps
from zoo.checkpoints.parameters import average_parameters, best_score, load_optimizer, load_parameters, saved_parameters
from zoo.checkpoints.saving import Checkpoints, save_parameters

__all__ = [
    "Checkpoints",
    "average_parameters",
    "best_score",
    "kept_steps",
    "load_optimizer",
    "load_parameters",
    "save_parameters",
    "saved_parameters",
]
