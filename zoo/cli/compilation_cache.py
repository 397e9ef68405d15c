"""Compiled programs are kept between runs: the second start of a run loads what the first has compiled."""

import importlib.util
import os

from zoo.storage import user_cache

MOST_BYTES = 8 * 2**30  # what has not been used for longest goes first


def keep_programs() -> None:
    """Have JAX keep what it compiles in `~/.cache/seqzoo/programs`, unless its own variables say otherwise:
    `JAX_COMPILATION_CACHE_DIR` names another place, `JAX_ENABLE_COMPILATION_CACHE=false` turns it off."""
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(user_cache("programs")))
    if importlib.util.find_spec("filelock"):  # with which JAX bounds the size
        os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(MOST_BYTES))
