"""Systems side by side on one machine: each in a process of its own, timed in turns.

A contestant is a module with `prepare(options) -> turn`. `turn()` does the work once, waits for its end, and gives
what it found as JSON can say it. While one works the others wait, so a neighbour's load falls on all of them alike.

`python -m benchmarks.in_turns MODULE OPTIONS` is one contestant: it prepares, does a turn to warm up, and then one for
every line of standard input.
"""

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from zoo.errors import UserError

PAUSE = 0.3  # seconds before a turn: threads of the one before may look for work a while before they sleep
MARK = "in-turns "  # begins a line of the protocol: libraries print, too


@dataclass
class Contestant:
    """`module` with its `options`, and what its turns came to: seconds, and the `outcome` of the last."""

    system: str
    module: str
    options: dict[str, Any]
    first_seconds: float = 0.0
    seconds: list[float] = field(default_factory=list)
    outcome: Any = None
    process: subprocess.Popen | None = None

    @property
    def fastest(self) -> float:
        """The seconds of its fastest turn: what else the machine does can only add to them."""
        return min(self.seconds)

    @property
    def spread(self) -> str:
        """Its turns, from the fastest to the slowest, in milliseconds."""
        return " ".join(f"{1000 * seconds:.0f}" for seconds in sorted(self.seconds))

    def start(self) -> None:
        """Begin to prepare. `OMP_NUM_THREADS` gives every library all cores."""
        environment = os.environ | {"OMP_NUM_THREADS": str(cores())}
        command = [sys.executable, "-m", "benchmarks.in_turns", self.module, json.dumps(self.options)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=environment, **pipes)

    def ready(self) -> None:
        """Wait until it is warm."""
        self.first_seconds = self._answer()["seconds"]

    def turn(self) -> None:
        time.sleep(PAUSE)
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer = self._answer()
        self.seconds.append(answer["seconds"])
        self.outcome = answer["outcome"]

    def stop(self) -> None:
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait()
            self.process.stdout.close()

    def _answer(self) -> dict[str, Any]:
        for line in self.process.stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        raise UserError(f"{self.system} ended with {self.process.wait()} before it had answered: see its own message")


def race(contestants: Sequence[Contestant], rounds: int) -> None:
    """Warm up all, one after the other, and let each have a turn in every round."""
    try:
        for one in contestants:
            one.start()
            one.ready()
        for _ in range(rounds):
            for one in contestants:
                one.turn()
    finally:
        for one in contestants:
            one.stop()


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _answered(turn: Any) -> None:
    start = time.perf_counter()
    outcome = turn()
    answer = {"seconds": time.perf_counter() - start, "outcome": outcome}
    print(MARK + json.dumps(answer), flush=True)


def main() -> None:
    module, options = sys.argv[1:]
    turn = importlib.import_module(module).prepare(json.loads(options))
    _answered(turn)
    for _ in sys.stdin:
        _answered(turn)


if __name__ == "__main__":
    main()
