"""Python in a process of its own, which has eight devices."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent


def python_on_eight(*arguments: object) -> subprocess.CompletedProcess:
    """Run `python` with these arguments; it finds the zoo and what the tests share."""
    path = os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")])
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}
    return subprocess.run([sys.executable, *map(str, arguments)], env=environment, capture_output=True, text=True)
