"""What has been measured so far, one file a point, so that the same command goes on where it stopped."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.storage import write_whole


class TimeIsUp(Exception):  # noqa: N818 - not an error: the same command goes on
    """No point is begun after the last minute of the budget."""


@dataclass
class Points:
    """Measured values by name in `folder`. A value counts only for the `settings` that it was measured with.

    `deadline` is of `time.monotonic()`; `seconds` is what the points of this part have taken, in all calls.
    """

    folder: Path
    settings: dict[str, Any]
    deadline: float = float("inf")
    values: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def of(self, name: str, measure: Callable[[], Any]) -> Any:
        """The value called `name`, measured unless it is there. Raises `TimeIsUp` after the deadline."""
        path = self.folder / f"{name}.json"
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if found.get("settings") != self.settings:
            if time.monotonic() > self.deadline:
                raise TimeIsUp
            begun = time.monotonic()
            value = json.loads(json.dumps(measure()))
            found = {"settings": self.settings, "value": value, "seconds": time.monotonic() - begun}
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, (json.dumps(found, indent=1) + "\n").encode())
        self.values[name] = found["value"]
        self.seconds += found["seconds"]
        return found["value"]
