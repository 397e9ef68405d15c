"""Train a model: `python train.py --help`."""

import sys

from zoo.cli import enter

if __name__ == "__main__":
    enter(["train", *sys.argv[1:]])
