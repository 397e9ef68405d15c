"""Multi30k, any pair of en, de: the smallest real translation task (Elliott et al. 2016).

  python train.py --config=zoo/configs/multi30k.py:en-de --config.data.path=DIR
  python train.py --config=zoo/configs/multi30k.py:de-en,rnnsearch --config.data.path=DIR      or: seq2seq, cho

en-de, test_2016_flickr, one seed, beam 5 (α chosen on the validation split), bfloat16 on 2 CPU cores (Xeon with AMX,
shared with other work: 55 minutes of wall time), 2026-11-23:
  BLEU 38.2 lower-cased and tokenized by Moses; 38.2 lower-cased, 37.8 cased and detokenized by sacreBLEU (13a)

DIR holds train, val and test_2016_flickr, each with a file for each language, plain or .gz.
"""

import ml_collections

from zoo.configs._arguments import SMALL_MODELS, languages_and_model, named


def get_config(argument: str = "en-de") -> ml_collections.ConfigDict:
    source, target, model = languages_and_model(argument)
    config = ml_collections.ConfigDict()
    config.name = named("multi30k", argument, "en-de")
    config.data = {
        "source": source,
        "target": target,
        "train": "train",
        "valid": "val",
        "test": "test_2016_flickr",
        "tokenizer": "bpe",
        "vocabulary": 6000,
        "max_length": 64,
        "steps": (12, 16, 20, 24, 32),
        "batch_tokens": 4096,
    }
    config.model = {"name": model, **SMALL_MODELS[model], "dropout": 0.3}
    config.optimizer = {"peak": 1.2e-3, "schedule": "cosine", "warmup": 600, "clip": 1.0}
    config.train = {
        "steps": 4000,
        "compute_dtype": "auto",
        "smoothing": 0.1,
        "log_every": 100,
        "evaluate_every": 1000,
        "checkpoint_every": 250,
        "keep": 5,
        "average_last": 5,
    }
    if model == "transformer":
        config.model.update({"size": "small", "ffn": 512})
    config.decoding = {"beam_size": 5, "length_penalty": 1.4, "max_extra": 20, "max_length": 100}
    return config
