"""One file for each paper, the contract that they keep (`base`) and their list (`registry`)."""

from zoo.models.registry import build, catalog

__all__ = ["build", "catalog"]
