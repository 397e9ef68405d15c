"""Weights and tokenizers of other programs, in and out.

`opened` recognizes a foreign folder and reads it as a working directory would be read; `write` makes such folders of a
trained model. What maps to what stands in one table per format (`zoo.interop.gpt`, `zoo.interop.marian`), which is read
in both directions. None of it needs PyTorch.
"""

from zoo.interop.exported import Exported
from zoo.interop.foreign import Foreign
from zoo.interop.formats import FORMATS, WRITTEN, opened, recognized, write

__all__ = ["FORMATS", "WRITTEN", "Exported", "Foreign", "opened", "recognized", "write"]
