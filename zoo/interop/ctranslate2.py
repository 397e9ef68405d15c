"""CTranslate2's model folders."""

from pathlib import Path

from zoo.errors import UserError
from zoo.interop.exported import Exported


def write(folder: Path, model: Exported, quantization: str) -> None:
    raise UserError("--to=ctranslate2 is not there yet")
