"""Recognize the format of a folder."""

from pathlib import Path

from zoo.errors import UserError, nearest
from zoo.interop import ctranslate2, huggingface
from zoo.interop.exported import Exported
from zoo.interop.files import OpenAIArrays, weight_files
from zoo.interop.foreign import Foreign, Format
from zoo.interop.gpt import HuggingFaceGPT, OpenAIGPT1
from zoo.interop.marian import HuggingFaceMarian
from zoo.interop.settings import Settings
from zoo.storage import AnyPath

HUGGING_FACE = {"gpt2": HuggingFaceGPT, "openai-gpt": HuggingFaceGPT, "marian": HuggingFaceMarian}
FORMATS = ("huggingface", "openai")  # those that are read
WRITTEN = ("huggingface", "ctranslate2")


def recognized(folder: AnyPath) -> str | None:
    """The name of a folder's format, one of `FORMATS`, or None for one that is not foreign."""
    if not isinstance(folder, Path):
        return None  # in an object store lie working directories alone
    if (folder / OpenAIArrays.SHAPES).is_file():
        return "openai"
    config = folder / "config.json"
    if config.is_file() and b'"model_type"' in config.read_bytes():
        return "huggingface"
    return None


def opened(folder: AnyPath, name: str | None = None) -> Foreign | None:
    """The foreign checkpoint in a folder, in the named or recognized format; None if it is not foreign.

    Raises UserError for a kind of model that the zoo does not have.
    """
    name = name or recognized(folder)
    return None if name is None else Foreign(_format(Path(folder), name))


def _format(folder: Path, name: str) -> Format:
    if name not in FORMATS:
        raise UserError(f"--from={name!r} is no format to read: {nearest(name, FORMATS)}")
    if name == "openai":
        return OpenAIGPT1(folder)
    settings = Settings.of(folder / "config.json")
    kind = settings.values.get("model_type")
    if kind not in HUGGING_FACE:
        raise UserError(
            f"{settings.path}: model_type={kind!r} is not among the models that can be read: {', '.join(HUGGING_FACE)}"
        )
    weight_files(folder)  # report a pickle before anything else
    return HUGGING_FACE[kind](folder, settings)


def write(folder: AnyPath, name: str, model: Exported, quantization: str = "") -> None:
    """Write a model of the zoo into an empty folder, in a format of `WRITTEN`.

    Raises UserError for what the format cannot express; `quantization` is CTranslate2's.
    """
    if not isinstance(folder, Path):
        raise UserError(f"{folder}: other programs read local folders: name one, and copy it from there")
    if name == "ctranslate2":
        ctranslate2.write(folder, model, quantization)
    else:
        huggingface.write(folder, model)
