"""Keep compiled programs between runs: the second start of a run loads what the first compiled."""

import importlib.util
import os

from zoo.storage import user_cache

MOST_BYTES = 8 * 2**30  # the least recently used program is removed first


def keep_programs() -> None:
    """Have JAX keep what it compiles in `~/.cache/seqzoo/programs`, unless its own variables say otherwise:
    `JAX_COMPILATION_CACHE_DIR` names another place, `JAX_ENABLE_COMPILATION_CACHE=false` turns it off."""
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(user_cache("programs")))
    if importlib.util.find_spec("filelock"):  # JAX needs it to bound the size
        os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(MOST_BYTES))
