"""The zoo: the line of models from Seq2Seq to GPT in JAX and Flax, one trainer, one decoder and one command line.

model = zoo.build("transformer", "base")           # a Flax module
run = zoo.train("phrases.py:en-fr", "runs/en-fr")  # a trained model
run = zoo.load("runs/en-fr")                       # the same one, later
run.translate(["Thursday, March 3, 2022"])
zoo.catalog()                                      # every model and size
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
# JAX takes a second to import, and `import zoo` is also how the command line prints its help.
_ROOMS = {"build": "zoo.models", "catalog": "zoo.models", "load": "zoo.workdirs", "train": "zoo.runs"}
__all__ = list(_ROOMS)


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return getattr(import_module(_ROOMS[name]), name)
    raise AttributeError(f"module 'zoo' has no attribute {name!r}")
