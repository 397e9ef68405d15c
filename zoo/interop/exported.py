"""The parts of a trained model that another program gets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import PyTree

from zoo.data.tokenizers import Tokenizer


@dataclass(frozen=True)
class Exported:
    """A model's `config` and parameters, its `tokenizers` by their names in a working directory, the `decoding` of its
    task, and the languages of a translation."""

    config: Any
    params: PyTree
    tokenizers: Mapping[str, Tokenizer]
    decoding: Any
    direction: tuple[str, str] = ("", "")

    def pair(self) -> tuple[Tokenizer, Tokenizer]:
        """The tokenizers of source and target, which may be one."""
        source, target = (self.tokenizers.get("joint") or self.tokenizers[side] for side in ("source", "target"))
        return source, target
