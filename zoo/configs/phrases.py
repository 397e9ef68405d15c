"""Dates, times, durations, money and measures that Unicode CLDR can say in two languages: the zoo's own first task.

python train.py                                                  English to French
python train.py --config=zoo/configs/phrases.py:en-de            any two locales
"""

import ml_collections

from zoo.configs._languages import languages


def get_config(argument: str = "en-fr") -> ml_collections.ConfigDict:
    source, target = languages(argument)
    config = ml_collections.ConfigDict()
    config.data = {
        **{"source": source, "target": target, "train": "phrases", "valid": "phrases", "test": "phrases"},
        **{"tokenizer": "bpe", "vocabulary": 500, "max_length": 48, "steps": (24,), "batch_tokens": 3072, "pool": 4096},
    }
    config.model = {"name": "transformer", "size": "tiny", "dropout": 0.0, "layers": 2}
    config.optimizer = {"peak": 3e-3, "warmup": 200, "clip": 1.0}
    config.train = {
        **{"steps": 1500, "compute_dtype": "bfloat16", "smoothing": 0.0, "select": "exact_match"},
        **{"log_every": 100, "evaluate_every": 500, "checkpoint_every": 500, "evaluation_size": 500},
    }
    config.decoding = {"beam_size": 1, "max_extra": 30, "max_length": 64}
    return config
