"""What the BPEs of GPT-1 and GPT-2 share: the files that OpenAI published, and the library `tokenizers` that encodes.

The zoo's specials come first: the published id `p` is `p + SHIFT` here, and the embedding has `SHIFT` more rows.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import tokenizers
from etils import epath

from zoo.data.specials import SPECIALS
from zoo.data.text import files
from zoo.data.tokenizers.base import Saved
from zoo.errors import UserError
from zoo.storage import expanded

SHIFT = len(SPECIALS)


class PublishedBPE(Saved):
    """A BPE with given pieces and merges (Sennrich et al. 2016), never learned here.

    `VOCABULARY` and `MERGES` are the possible names of the two files, `END` follows the last character of a word, and
    `UNMERGED` are the pieces that no merge makes, except for single characters.
    """

    VOCABULARY: ClassVar[tuple[str, ...]]
    MERGES: ClassVar[tuple[str, ...]]
    END: ClassVar[str] = ""
    UNMERGED: ClassVar[frozenset[str]]

    def __init__(self, pieces: Sequence[str], merges: Sequence[str], unmerged: Sequence[str] = (), **options: str):
        """`pieces` in the order of their published ids, `merges` as `LEFT RIGHT` in the order of their application;
        `unmerged` are more of the pieces that no merge makes, which were added to the published ones, and `options`
        those of the library's BPE. Raises ValueError when pieces and merges do not belong together."""
        self._unmerged = tuple(unmerged)
        self._check(pieces, merges)
        self._pieces, self._merges = (*SPECIALS, *pieces), tuple(merges)
        ids = {piece: i for i, piece in reversed(list(enumerate(self._pieces)))}  # their <unk> is ours
        model = tokenizers.models.BPE(ids, self.pairs(), **options)
        self._library = tokenizers.Tokenizer(model)

    def _check(self, pieces: Sequence[str], merges: Sequence[str]) -> None:
        made = {merge.replace(" ", "") for merge in merges}
        known = set(pieces)
        for merge in merges:
            if merge.count(" ") != 1 or not {*merge.split(" "), merge.replace(" ", "")} <= known:
                raise ValueError(f"the merge {merge!r} is not of this vocabulary's pieces")
        unmade = [p for p in known - made - self.UNMERGED - {*self._unmerged} if len(p.removesuffix(self.END)) > 1]
        if unmade:
            raise ValueError(f"{len(unmade):,} pieces, such as {min(unmade)!r}, are made by no merge")

    @classmethod
    def published(cls, directory: str | Path, key: str) -> "PublishedBPE":
        """From the files in `directory`, the value of `key`. Raises UserError for any that is not right."""
        vocabulary, merges = (_file(directory, names, key) for names in (cls.VOCABULARY, cls.MERGES))
        try:
            ids = json.loads(files.read(vocabulary))
            if not isinstance(ids, dict) or sorted(ids.values()) != list(range(len(ids))):
                raise ValueError(f"{vocabulary.name} does not number its pieces from 0")
            lines = files.read(merges).split("\n")
            rules = [line for line in lines if line and not line.startswith("#version")]
            return cls(sorted(ids, key=ids.get), rules)
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{vocabulary} and {merges.name} are truncated or not of {cls.suffix[1:]} ({error}): fetch them again"
            ) from error

    def piece(self, row: int) -> str:
        """The piece of a row of the embeddings."""
        return self._pieces[row]

    def pairs(self) -> list[tuple[str, str]]:
        """The merged pairs, in the order of application."""
        return [tuple(merge.split(" ")) for merge in self._merges]

    def row(self, piece: str) -> int | None:
        """The published id of `piece`, if it has one."""
        published = self._pieces[SHIFT:]
        return published.index(piece) if piece in published else None

    @property
    def size(self) -> int:
        return len(self._pieces)

    def content(self) -> bytes:
        return json.dumps(self._parts()).encode()

    def _parts(self) -> dict[str, Any]:
        """What `__init__` is given."""
        parts = {"pieces": self._pieces[SHIFT:], "merges": self._merges}
        return parts | ({"unmerged": self._unmerged} if self._unmerged else {})

    @classmethod
    def load(cls, content: bytes) -> "PublishedBPE":
        """Undo `save`. Raises ValueError if `content` is not of this kind."""
        parts = json.loads(content)
        if not isinstance(parts, dict) or not {"pieces", "merges"} <= parts.keys():
            raise ValueError("it has no pieces and merges")
        return cls(**parts)

    def __reduce__(self) -> Any:
        return type(self).load, (self.content(),)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.content() == other.content()

    def __hash__(self) -> int:
        return hash((self._pieces, self._merges))


def _file(directory: str | Path, names: Sequence[str], key: str) -> epath.Path:
    """The first of the `names` that is there."""
    if not str(directory):
        raise UserError(f"{key} is not set: name the directory that holds {' or '.join(names)}")
    paths = [epath.Path(expanded(directory)) / name for name in names]
    found = next((path for path in paths if path.exists()), None)
    if found is None:
        raise UserError(f"{key}={directory} holds no {' or '.join(names)}: name the directory of the published files")
    return found
