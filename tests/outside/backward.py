"""A config of one's own, which imports a model and a task that lie beside it."""

import backward_task  # noqa: F401
import ml_collections
import window_model  # noqa: F401


def get_config(size: str = "small") -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict(
        {
            "task": "backward",
            "model": {"name": "window", "size": size},
            "data": {"tokenizer": "bytes", "vocabulary": 260, "length": 16, "batch_rows": 8, "upper": True},
            "optimizer": {"schedule": "constant", "peak": 1e-2, "warmup": 1},
            "train": {"steps": 20, "log_every": 10, "evaluate_every": 20, "select": "loss"},
            "decoding": {"temperature": 0.0, "max_new_tokens": 6},
        }
    )
