"""Score a working directory on a split: `python eval.py --help`."""

import sys

from zoo.cli import enter

if __name__ == "__main__":
    enter(["eval", *sys.argv[1:]])
