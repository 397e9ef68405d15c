"""What benchmarks share: their result, the device, its ceiling, and memory."""

import importlib.util
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import jax
import jax.numpy as jnp


def installed(module: str, name: str, extra: str) -> bool:
    """Whether a peer can be imported. If not, one line on standard error names the extra that installs it."""
    if importlib.util.find_spec(module):
        return True
    print(f"{name} is not installed, so it takes no part: pip install -e '.[{extra}]'", file=sys.stderr)
    return False


@dataclass
class Result:
    """Rows to compare: each names its `system`; `ratio` is its speed, `<unit>_per_second`, over that of the system that
    it stands `beside` (not said: over that of the first row)."""

    name: str
    rows: list[dict[str, Any]]
    ceiling: dict[str, float] = field(default_factory=dict)
    device: str = field(default_factory=lambda: f"{jax.device_count()} x {jax.devices()[0].device_kind}")
    unit: str = "tokens"

    def __post_init__(self):
        speed = f"{self.unit}_per_second"
        speeds = {row["system"]: row[speed] for row in self.rows}
        for row in self.rows:
            row["ratio"] = row[speed] / speeds[row.get("beside", self.rows[0]["system"])]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """What `run` gives, once it is there, and the seconds that it took."""
    start = time.perf_counter()
    result = jax.block_until_ready(run())
    return result, time.perf_counter() - start


def median_seconds(run: Callable[[], Any], times: int) -> float:
    return statistics.median(timed(run)[1] for _ in range(times))


def matmul_ceiling(dtype: str, size: int = 2048) -> float:
    """FLOP/s of a square matrix product in `dtype`: what a model that is all products would reach here."""
    x = jnp.ones((size, size), dtype)
    product = jax.jit(lambda a, b: jax.lax.dot(a, b, preferred_element_type=jnp.float32))
    jax.block_until_ready(product(x, x))
    return 2 * size**3 / median_seconds(lambda: product(x, x), 5)


def peak_memory_bytes() -> int:
    """Of the accelerator; on a CPU, of this whole process since it began."""
    stats = jax.devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"]
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
