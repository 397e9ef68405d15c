"""The BPEs of GPT-1 and GPT-2 in the files of Hugging Face and OpenAI."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.data.tokenizers import GPT1, GPT2
from zoo.data.tokenizers.published_bpe import PublishedBPE
from zoo.errors import UserError
from zoo.interop.files import damaged, read_json

TOGETHER = "tokenizer.json"


def gpt2_tokenizer(folder: Path, size: int) -> GPT2:
    """The tokenizer in `folder`, with as many pieces as the embeddings have rows.

    Raises UserError if there is none, or if it is damaged or not a byte-level BPE.
    """
    return _tokenizer(folder, size, GPT2, GPT2)


def gpt1_tokenizer(folder: Path, size: int) -> GPT1:
    """As `gpt2_tokenizer`, for GPT-1's BPE over words."""
    return _tokenizer(folder, size, GPT1, lambda *parts: GPT1(*parts).as_published())


def _tokenizer(folder: Path, size: int, kind: type[PublishedBPE], make: Callable[..., Any]) -> Any:
    path, pieces, merges = _pieces(folder, kind)
    if len(pieces) > size:
        raise UserError(f"{path} has {len(pieces)} pieces and the model {size} rows: they are not of one model")
    # Embeddings are often padded to a round number of rows, which no text uses.
    pieces += [f"<unused {i}>" for i in range(len(pieces), size)]
    made = {"".join(merge) for merge in merges}
    end = kind.END
    unmerged = [p for p in pieces if len(p.removesuffix(end)) > 1 and p not in made and p not in kind.UNMERGED]
    if len(unmerged) > max(size - len(merges), 0):
        raise damaged(path, f"{len(unmerged)} pieces are made by no merge")
    try:
        return make(pieces, [" ".join(merge) for merge in merges], unmerged)
    except UserError:
        raise
    except Exception as error:  # also what the library raises, which has no type of its own
        raise damaged(path, f"it is no BPE of {kind.suffix[1:]} ({error})") from error


def _pieces(folder: Path, kind: type[PublishedBPE]) -> tuple[Path, list[str], list[Sequence[str]]]:
    """The file that names the pieces, the pieces in the order of their rows, and the pairs of the merges."""
    if (folder / TOGETHER).is_file():
        path = folder / TOGETHER
        content = read_json(path)
        model, added = content.get("model"), content.get("added_tokens") or []
        if not isinstance(model, dict) or model.get("type", "BPE") != "BPE" or not isinstance(added, list):
            found = model.get("type") if isinstance(model, dict) else None
            raise UserError(f"{path} holds a tokenizer of type {found!r}: only a BPE can be read")
        more = {token.get("content"): token.get("id") for token in added if isinstance(token, dict)}
        ids, merges = {**_mapping(path, model.get("vocab")), **more}, model.get("merges")
    else:
        path = _first(folder, kind.VOCABULARY)
        ids = _mapping(path, read_json(path))
        try:
            text = _first(folder, kind.MERGES).read_text(encoding="utf-8")
        except ValueError as error:
            raise damaged(_first(folder, kind.MERGES), "it is no text") from error
        merges = [line for line in text.split("\n") if line.strip() and not line.startswith("#version")]
    if not isinstance(merges, list):
        raise damaged(path, "it has no merges")
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
    if not all(isinstance(p, list) and len(p) == 2 and all(isinstance(x, str) for x in p) for p in pairs):
        raise damaged(path, "a merge is no pair of pieces")
    if not all(type(i) is int for i in ids.values()) or sorted(ids.values()) != list(range(len(ids))):
        raise damaged(path, "it does not number its pieces from 0")
    return path, sorted(ids, key=ids.__getitem__), pairs


def _mapping(path: Path, ids: Any) -> Mapping[str, int]:
    if not isinstance(ids, dict) or not ids:
        raise damaged(path, "it has no pieces")
    return ids


def _first(folder: Path, names: Sequence[str]) -> Path:
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise UserError(f"{folder} holds neither {TOGETHER} nor {' or '.join(names)}: copy the tokenizer there too")
    return found
