"""Dates, times, durations, money and measures, written by Unicode CLDR in two languages: the zoo's first task.

python train.py                                                          English to French, a Transformer
python train.py --config=zoo/configs/phrases.py:en-de                    any two locales
python train.py --config=zoo/configs/phrases.py:en-fr,rnnsearch          or: seq2seq, cho
"""

import ml_collections

from zoo.configs._arguments import SMALL_MODELS, languages_and_model, named


def get_config(argument: str = "en-fr") -> ml_collections.ConfigDict:
    source, target, model = languages_and_model(argument)
    config = ml_collections.ConfigDict()
    config.name = named("phrases", argument, "en-fr")
    config.data = {
        "source": source,
        "target": target,
        "train": "phrases",
        "valid": "phrases",
        "test": "phrases",
        "tokenizer": "bpe",
        "vocabulary": 500,
        "max_length": 24,
        "steps": (8, 12),
        "batch_tokens": 1920,
        "pool": 8192,
    }
    config.model = {"name": model, **SMALL_MODELS[model], "dropout": 0.0}
    config.optimizer = {"peak": 2e-3, "schedule": "cosine", "warmup": 150, "clip": 1.0}
    config.train = {
        "steps": 1200,
        "compute_dtype": "auto",
        "smoothing": 0.0,
        "select": "exact_match",
        "log_every": 100,
        "evaluate_every": 400,
        "checkpoint_every": 200,
        "evaluation_size": 500,
    }
    config.decoding = {"beam_size": 1, "max_extra": 15, "max_length": 64, "compute_dtype": "auto"}
    if model == "transformer":
        config.model.layers = 2
    return config
