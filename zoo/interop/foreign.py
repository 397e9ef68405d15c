"""An opened foreign checkpoint: the experiment of the zoo that it stands for, its tokenizers, and its parameters on
demand."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jaxtyping import PyTree

from zoo.data.tokenizers import Tokenizer
from zoo.errors import UserError
from zoo.interop import tables
from zoo.interop.files import Tensors
from zoo.interop.tables import Table


@runtime_checkable
class Format(Protocol):
    """One kind of foreign folder, opened."""

    folder: Path

    def experiment(self) -> dict[str, Any]:
        """The plain values of an experiment that holds this model (see `zoo.experiment.resolve`)."""
        ...

    def tokenizers(self) -> Mapping[str, Tokenizer]:
        """The tokenizers by the names that a working directory gives them."""
        ...

    def tensors(self) -> Tensors: ...

    def table(self, tensors: Tensors) -> Table: ...


@dataclass
class Foreign:
    """A folder of another program, read as a working directory would be."""

    format: Format

    @cached_property
    def experiment(self) -> dict[str, Any]:
        """The plain values of its experiment."""
        return self.format.experiment()

    @cached_property
    def tokenizers(self) -> Mapping[str, Tokenizer]:
        return self.format.tokenizers()

    @cached_property
    def _tensors(self) -> Tensors:
        return self.format.tensors()

    def parameters(self, like: PyTree, part: bool = False) -> PyTree:
        """Its parameters with the shapes and shardings of `like`, which are not all of them if `part`; raises UserError
        for what does not fit."""
        try:
            return tables.read(self.format.table(self._tensors), self._tensors, like, part)
        except UserError as error:
            raise UserError(f"{self.format.folder}: {error}") from error

    def unread(self, like: PyTree) -> list[str]:
        """The names of its weights that hold nothing of the parameters in `like`."""
        return tables.unread(self.format.table(self._tensors), self._tensors, like)
