"""Weights and tokenizers of other programs, in and out.

`opened` recognizes a foreign folder and reads it as a working directory would be read; `write` makes such folders of a
trained model. One table per format (`zoo.interop.gpt`, `zoo.interop.marian`) maps the arrays, in both directions.
Nothing here needs PyTorch.
"""

from zoo.interop.exported import Exported
from zoo.interop.foreign import Foreign
from zoo.interop.formats import FORMATS, WRITTEN, opened, recognized, write

__all__ = ["FORMATS", "WRITTEN", "Exported", "Foreign", "opened", "recognized", "write"]
