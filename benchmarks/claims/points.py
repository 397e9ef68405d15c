"""What has been measured so far, in one file for each point, so that the same command resumes where it stopped."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.storage import write_whole


class TimeIsUp(Exception):  # noqa: N818 - not an error: the same command resumes
    """No point starts after the last minute of the budget."""


@dataclass
class Points:
    """Measured values by name in `folder`. A value is valid only for the `settings` that it was measured with.

    `deadline` is of `time.monotonic()`; `seconds` is the time of all points of this part, over all calls.
    """

    folder: Path
    settings: dict[str, Any]
    deadline: float = float("inf")
    values: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def work(self) -> Path:
        """A folder for the trainings of these settings; others have their own."""
        return self.folder / hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:8]

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
