"""The experiments that are planned in tests."""

from zoo.experiment import Experiment, resolve


def experiment(**changes: str) -> Experiment:
    """GPT-1 on a stream of text; `changes` are keys with `__` for dots."""
    tree = {
        "task": "language_modeling",
        "model": {"name": "gpt", "size": "gpt1"},
        "data": {"packing": "stream"},
        "optimizer": {"peak": 1e-4, "schedule": "constant"},
        "train": {"select": "loss"},
    }
    return resolve(tree, [(key.replace("__", "."), value) for key, value in changes.items()])
