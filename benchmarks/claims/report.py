"""The report: for each claim what was done, a table, a picture, and what came out."""

import datetime
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from benchmarks.claims.points import Points
from zoo.storage import write_whole

HEAD = """# Three claims, tested

The Transformer is said to train in parallel, to connect words that are far apart, and to get better with size in a way
that can be predicted. Here each claim is measured on one small machine, with models that it can train in minutes.
What did not come out as claimed is reported as it came out. This command measures and writes this page:

<!-- not run: it takes half an hour of one core -->
```bash
python -m benchmarks claims --text tinyshakespeare.txt --report docs/claims.md
```

Machine: {machine}. Written on {date}. {minutes:.0f} minutes of wall time in all, with other work on the machine.
"""


def write(path: Path, parts: Mapping[str, Points], modules: Mapping[str, ModuleType], machine: str) -> None:
    """Write the report to `path`, and its pictures to the folder `figures` beside it."""
    for name, points in parts.items():
        if points.values:
            modules[name].draw(points, path.parent / "figures" / f"claims_{name}.png")
    write_whole(path, markdown(parts, modules, machine, "figures").encode())


def markdown(parts: Mapping[str, Points], modules: Mapping[str, ModuleType], machine: str, figures: str = "") -> str:
    """The report as text, with links to the pictures in `figures`."""
    minutes = sum(points.seconds for points in parts.values()) / 60
    text = [HEAD.format(machine=machine, date=datetime.date.today().isoformat(), minutes=minutes)]
    for name, points in parts.items():
        module = modules[name]
        text.append(f"## {module.TITLE}\n\n> {module.CLAIM}\n")
        if not points.values:
            text.append("Not measured yet.\n")
            continue
        text += [*module.tell(points), f"\nThis took {points.seconds / 60:.1f} minutes of wall time.\n"]
        if figures:
            text.append(f"![{module.TITLE}]({figures}/claims_{name}.png)\n")
    return "\n".join(text)
