"""The zoo: the line of models from Seq2Seq to GPT in JAX and Flax, one trainer, one decoder and one command line."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str) -> Any:
    # JAX takes a second to import, and `import zoo` is also how the command line prints its help.
    if name == "load":
        from zoo.workdirs import load

        return load
    raise AttributeError(f"module 'zoo' has no attribute {name!r}")
