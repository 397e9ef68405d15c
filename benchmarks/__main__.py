"""`python -m benchmarks NAME [--json]`."""

import argparse
import importlib
import json
import sys

from zoo.errors import UserError

BENCHMARKS = {
    "train-translation": "benchmarks.train_translation",
    "train-gpt": "benchmarks.train_gpt",
    "train-recurrent": "benchmarks.train_recurrent",
    "decode": "benchmarks.decode",
    "translate-file": "benchmarks.translate_file",
    "scaling": "benchmarks.scaling",
    "tokenize": "benchmarks.tokenize",
    "pods": "benchmarks.pods",
    "compiled": "benchmarks.compiled",
    "accelerator": "benchmarks.accelerator",
    "chaos": "benchmarks.chaos",
    "checkpoints": "benchmarks.checkpoints",
    "finetune": "benchmarks.finetune",
    "claims": "benchmarks.claims",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the zoo on this machine.")
    commands = parser.add_subparsers(dest="name", required=True)
    modules = {name: importlib.import_module(path) for name, path in BENCHMARKS.items()}
    for name, module in modules.items():
        command = commands.add_parser(name, help=module.__doc__.splitlines()[0], description=module.__doc__)
        command.add_argument("--json", action="store_true", help="one JSON object on standard output")
        module.add_arguments(command)
    arguments = parser.parse_args()
    try:
        outcome = modules[arguments.name].run(arguments)
    except UserError as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        sys.exit(2)
    result = outcome.as_dict()
    as_text = getattr(outcome, "text", lambda: _table(result))
    print(json.dumps(result) if arguments.json else as_text())
    if not getattr(outcome, "passed", True):
        sys.exit(1)


def _table(result: dict) -> str:
    lines = [f"{result['name']} on {result['device']}"]
    for row in result["rows"]:
        lines.append(row["system"])
        lines += [f"    {key:20} {_figure(value)}" for key, value in row.items() if key != "system"]
    lines += [f"{key:24} {_figure(value)}" for key, value in result["ceiling"].items()]
    return "\n".join(lines)


def _figure(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.4g}" if isinstance(value, float) and abs(value) < 1000 else f"{value:,.0f}"


if __name__ == "__main__":
    main()
