"""`models`: the models of the zoo."""

import argparse
import json

HELP = "list every model and published size with its paper and its number of parameters"
EXAMPLE = "python -m zoo models --json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="a JSON list on standard output")


def run(args: argparse.Namespace) -> None:
    from zoo.models import catalog

    rows = catalog()
    if args.json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    print(f"{'model':14}{'size':14}{'parameters':>16}  paper")
    for row in rows:
        print(f"{row['model']:14}{row['size']:14}{row['parameters']:>16,}  {row['paper']}")
