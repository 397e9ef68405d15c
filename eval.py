"""Score a working directory on a split: `python eval.py --help`."""

import sys

from zoo.cli import main

if __name__ == "__main__":
    sys.exit(main(["eval", *sys.argv[1:]]))
