"""The tokenizer of a Marian model (Junczys-Dowmunt et al. 2018), such as those of OPUS-MT: SentencePiece finds the
pieces of one language, and a table that both languages share numbers them.
"""

import base64
import json
from collections.abc import Sequence
from typing import Any

from zoo.data.specials import SPECIALS, UNK
from zoo.data.tokenizers.base import Rows, text_ids
from zoo.data.tokenizers.subwords import SentencePiece

CODE = ">>", "<<"  # stand around the code of the target's language, which may begin a source


class MarianPieces(SentencePiece):
    """`pieces` have the ids after those of `SPECIALS`, in order; any other piece is `<unk>`."""

    suffix = ".marian"

    def __init__(self, model: bytes, pieces: Sequence[str]):
        """`model` is a serialized SentencePiece model; RuntimeError if it isn't one."""
        super().__init__(model)
        self._surfaces = (*SPECIALS, *pieces)
        self._ids = {piece: i for i, piece in reversed(list(enumerate(self._surfaces)))}

    def content(self) -> bytes:
        model = base64.b64encode(self.model()).decode()
        return json.dumps({"model": model, "pieces": self._surfaces[len(SPECIALS) :]}).encode()

    def __reduce__(self) -> Any:
        return type(self).load, (self.content(),)

    @property
    def size(self) -> int:
        return len(self._surfaces)

    def encode(self, lines: list[str]) -> list[list[int]]:
        return [[self._ids.get(piece, UNK) for piece in self.pieces(line)] for line in lines]

    def decode(self, ids: Rows) -> list[str]:
        rows = ([self._surfaces[i] for i in text_ids(row)] for row in ids)
        return [self._model.decode_pieces(row).replace("▁", " ").strip() for row in rows]

    def pieces(self, line: str) -> list[str]:
        begin, end = CODE
        if line.startswith(begin) and end in line:
            code, text = line[: line.index(end) + len(end)], line[line.index(end) + len(end) :]
            return [code, *self._model.encode(text, out_type=str)]
        return self._model.encode(line, out_type=str)

    def piece(self, row: int) -> str:
        """The piece of a row of the embeddings."""
        return self._surfaces[row]

    @classmethod
    def load(cls, content: bytes) -> "MarianPieces":
        """Undo `save`. Raises ValueError if `content` is not of this kind."""
        parts = json.loads(content)
        try:
            return cls(base64.b64decode(parts["model"], validate=True), parts["pieces"])
        except (KeyError, TypeError, RuntimeError) as error:
            raise ValueError("it has no SentencePiece model and pieces") from error
