"""Python in a process of its own, which has eight devices."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent


def python_on_eight(*arguments: object) -> subprocess.CompletedProcess:
    """Run `python` with these arguments, and compile fast; it finds the zoo and what the tests share."""
    path = os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")])
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}
    return subprocess.run([sys.executable, *map(str, arguments)], env=environment, capture_output=True, text=True)
