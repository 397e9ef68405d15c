"""Read the files of foreign checkpoints without trusting them: no pickle, and no array larger than its file.

Arrays are read by position, one at a time, and never memory-mapped, so only the requested data is in memory.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import ml_dtypes
import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open

from zoo.errors import UserError

INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"
PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": ml_dtypes.bfloat16}


@runtime_checkable
class Tensors(Protocol):
    """Named float arrays in files. `shapes` is known without reading any."""

    shapes: Mapping[str, tuple[int, ...]]

    def where(self, name: str) -> Path:
        """The file that `name` is in, for messages."""
        ...

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Float[np.ndarray, "..."]:
        """Rows `start` to `stop` (along axis 0) of an array, as float32."""
        ...


@dataclass(frozen=True)
class Stored:
    """The place of an array: `shape` numbers of `dtype` from byte `offset` of `path` on."""

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop` as float32; a scalar or a vector has rows of one number."""
        row = math.prod(self.shape[1:])
        count, size = (stop - start) * row, self.dtype.itemsize
        with self.path.open("rb") as file:
            file.seek(self.offset + start * row * size)
            array = np.fromfile(file, self.dtype, count)
        if array.size != count:
            raise damaged(self.path, "it ends too early")
        return array.reshape(stop - start, *self.shape[1:]).astype(np.float32, copy=False)


class SafeTensors:
    """The safetensors of a folder: one file, or shards and their index."""

    def __init__(self, folder: Path):
        self._stored = {name: array for path in weight_files(folder) for name, array in _headed(path)}
        self.shapes = {name: array.shape for name, array in self._stored.items()}

    def where(self, name: str) -> Path:
        return self._stored[name].path

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Float[np.ndarray, "..."]:
        array = self._stored[name]
        return array.read(start, (array.shape[0] if array.shape else 1) if stop is None else stop)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors of a folder. Raises UserError if there are none; for pickles, it tells how to convert them."""
    if (folder / INDEX).is_file():
        weights = read_json(folder / INDEX).get("weight_map")
        names = set(weights.values()) if isinstance(weights, dict) else set()
        if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
            raise damaged(folder / INDEX, "it names no files of this folder")
        missing = [name for name in sorted(names) if not (folder / name).is_file()]
        if missing:
            raise UserError(f"{folder / missing[0]} is missing, which {INDEX} names: copy it from where it was saved")
        return [folder / name for name in sorted(names)]
    found = [folder / WEIGHTS] if (folder / WEIGHTS).is_file() else sorted(folder.glob("*.safetensors"))
    if found:
        return found
    pickles = [path for pattern in PICKLES for path in folder.glob(pattern)]
    if pickles:
        raise UserError(
            f"{pickles[0]} is a pickle, which may run any code when it is read. Make safetensors of it where you trust "
            "it, with the library transformers: AutoModel.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    raise UserError(f"{folder} holds no {WEIGHTS}: name the folder that the model was saved to")


def _headed(path: Path) -> Iterator[tuple[str, Stored]]:
    """The arrays that the header of a file names. The library checks the header against the length of the file."""
    try:
        with safe_open(path, "numpy") as file:
            names = list(file.keys())
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
    except (SafetensorError, ValueError, RecursionError) as error:
        raise damaged(path, f"it is no safetensors file ({error})") from error
    for name in names:
        facts = header[name]
        if facts["dtype"] not in DTYPES:
            raise UserError(f"{path}: {name!r} is of type {facts['dtype']}: save it as float32, float16 or bfloat16")
        begin, _ = facts["data_offsets"]
        yield name, Stored(path, 8 + length + begin, tuple(facts["shape"]), np.dtype(DTYPES[facts["dtype"]]))


class OpenAIArrays:
    """GPT-1 as OpenAI released it: the concatenation of `params_0.npy`, `params_1.npy`, ... holds all arrays of
    `params_shapes.json`, whose `names` are given in order."""

    SHAPES = "params_shapes.json"

    def __init__(self, folder: Path, names: Sequence[str]):
        self._path = folder / self.SHAPES
        self._parts = [_flat(folder / f"params_{i}.npy") for i in range(_count(folder))]
        shapes = openai_shapes(folder)
        if len(names) != len(shapes):
            raise damaged(self._path, f"it has {len(shapes)} arrays and not {len(names)}")
        held, sizes = sum(part.shape[0] for part in self._parts), [math.prod(shape) for shape in shapes]
        if held != sum(sizes):
            raise damaged(self._path, f"its arrays have {sum(sizes):,} numbers, the files params_*.npy {held:,}")
        # The kernels of OpenAI's convolutions have a leading axis of width 1.
        self.shapes = {name: shape[1:] if len(shape) == 3 else shape for name, shape in zip(names, shapes, strict=True)}
        self._starts = dict(zip(names, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))

    def where(self, name: str) -> Path:
        return self._path

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Float[np.ndarray, "..."]:
        shape = self.shapes[name]
        row, stop = math.prod(shape[1:]), shape[0] if stop is None else stop
        begin, found = self._starts[name] + start * row, []
        end = begin + (stop - start) * row
        for part in self._parts:
            if begin < part.shape[0] and end > 0:
                found.append(part.read(max(begin, 0), min(end, part.shape[0])))
            begin, end = begin - part.shape[0], end - part.shape[0]
        return np.concatenate(found).reshape(stop - start, *shape[1:])


def openai_shapes(folder: Path) -> list[tuple[int, ...]]:
    """The shapes in `params_shapes.json`. Raises UserError if it lists none."""
    path = folder / OpenAIArrays.SHAPES
    shapes = read_json(path, list)
    for shape in shapes:
        if not (
            isinstance(shape, list) and 0 < len(shape) < 4 and all(type(n) is int and 0 < n < 2**32 for n in shape)
        ):
            raise damaged(path, "it is no list of shapes")
    return [tuple(shape) for shape in shapes]


def _count(folder: Path) -> int:
    found = {path.name for path in folder.glob("params_*.npy")}
    numbers = sorted(int(match[1]) for name in found if (match := re.fullmatch(r"params_(\d{1,6})\.npy", name)))
    missing = [i for i in range(max(numbers, default=0) + 1) if i not in numbers]
    if missing:
        raise UserError(f"{folder / f'params_{missing[0]}.npy'} is missing: copy it from the release")
    return len(numbers)


def _flat(path: Path) -> Stored:
    """One `.npy` of a flat float array, checked against the length of its file."""
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
            shape, _, dtype = reader(file)
            offset = file.tell()
    except Exception as error:  # the header is text that NumPy parses: damage may raise almost anything there
        raise damaged(path, "it is no .npy file") from error
    if len(shape) != 1 or dtype.kind != "f" or shape[0] < 0:
        raise damaged(path, f"it holds {dtype} of shape {shape} and not one row of floats")
    if (expected := offset + shape[0] * dtype.itemsize) != path.stat().st_size:
        raise damaged(path, f"it has {path.stat().st_size:,} of {expected:,} bytes")
    return Stored(path, offset, shape, dtype)


def read_json(path: Path, kind: type = dict) -> Any:
    """The object (or another `kind`) in a JSON file. Raises UserError for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: copy it from where the model was saved") from None
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"it is no JSON ({type(error).__name__})") from error
    if not isinstance(content, kind):
        raise damaged(path, f"it holds {type(content).__name__} and not {kind.__name__}")
    return content


def damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is damaged or not what its name says: {reason}: copy it again")
