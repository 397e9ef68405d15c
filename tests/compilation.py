"""How the tests compile: fast, since they compile far longer than they compute."""

import gc
import os
import shutil
import subprocess
import sys
import tempfile

import jax
import pytest

# XLA emits each fusion through MLIR, and spreads the code of a program over several modules. Without either it
# compiles these small programs in half the time.
FLAGS = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"


def set_up(config: pytest.Config) -> None:
    """Set JAX and XLA up in this process and, by the environment, in all that it starts: pytest's workers and the
    commands that tests run. What one of them compiles, the others find in a directory of this session, never in the
    user's cache. A directory that the environment names is used, and kept for the next session."""
    jax.config.update("jax_disable_most_optimizations", True)
    gc.freeze()  # what the imports made stays, and need not be looked through again
    if hasattr(config, "workerinput"):
        return
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
    flags = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}".strip()
    if _known(flags):
        os.environ["XLA_FLAGS"] = flags
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        directory = tempfile.mkdtemp(prefix="zoo-programs-")
        config.add_cleanup(lambda: shutil.rmtree(directory, ignore_errors=True))
        os.environ["JAX_COMPILATION_CACHE_DIR"] = directory
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
        jax.config.update("jax_compilation_cache_dir", directory)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _known(flags: str) -> bool:
    """Whether this release of XLA knows all these flags; it ends a process that has others."""
    start = [sys.executable, "-c", "import jax; jax.devices()"]
    return subprocess.run(start, env=os.environ | {"XLA_FLAGS": flags}, capture_output=True).returncode == 0
