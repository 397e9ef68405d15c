"""`python -m zoo COMMAND`."""

from zoo.cli import enter

enter()
