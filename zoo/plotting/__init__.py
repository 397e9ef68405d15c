"""Pictures: attention, what a training run did, and a page to explore every attention on."""

from typing import Any

__all__ = ["explore"]


def __getattr__(name: str) -> Any:
    if name == "explore":  # imported late, since it needs JAX and pictures do not
        from zoo.plotting.explorer import explore

        return explore
    raise AttributeError(f"module 'zoo.plotting' has no attribute {name!r}")
