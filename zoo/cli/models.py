"""`models`: what the zoo holds."""

import argparse
import json

HELP = "list every model and published size with its paper and its number of parameters"
EXAMPLE = "python -m zoo models --json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="a JSON list on standard output")


def run(args: argparse.Namespace) -> None:
    from zoo.models.registry import FAMILIES, parameter_count

    rows = [
        {"model": name, "size": size, "paper": family.paper_of(size), "parameters": parameter_count(config)}
        for name, family in FAMILIES.items()
        for size, config in family.sizes.items()
    ]
    if args.json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    print(f"{'model':14}{'size':14}{'parameters':>16}  paper")
    for row in rows:
        print(f"{row['model']:14}{row['size']:14}{row['parameters']:>16,}  {row['paper']}")
