"""The four generations on the same text, with one tokenizer and a budget of minutes: the ladder of docs/results.md.

  python train.py --config=zoo/configs/ladder.py:multi30k,MODEL --config.data.path=DIR       German to English
  python train.py --config=zoo/configs/ladder.py:tatoeba,MODEL --config.data.path=DIR        English to French

MODEL is seq2seq, cho, rnnsearch or transformer. DIR holds Multi30k's train, val and test_2016_flickr, a file for each
language, or Tatoeba's en-fr.train.tsv, en-fr.valid.tsv and en-fr.test.tsv, plain or .gz.

multi30k, test_2016_flickr, one seed, sacreBLEU 13a, greedy (beam 5), 2026-11-24, at most about 25 minutes of one core
of an AMD EPYC without AMX (the transformer 42): seq2seq 8.6 (9.2), cho 14.4 (15.0), rnnsearch 30.9 (33.0), transformer
37.1 (38.3).
tatoeba, test, greedy, a quarter of an hour of one core each, 2026-11-25: seq2seq 1.9, cho 5.4, rnnsearch 14.1,
transformer 23.7.
"""

from typing import Any

import ml_collections

from zoo.errors import UserError, nearest

DATA: dict[str, dict[str, Any]] = {
    "multi30k": {
        "source": "de",
        "target": "en",
        "train": "train",
        "valid": "val",
        "test": "test_2016_flickr",
        "max_length": 40,
        "steps": (14, 18, 24),
    },
    "tatoeba": {
        "source": "en",
        "target": "fr",
        **{split: f"en-fr.{split}.tsv" for split in ("train", "valid", "test")},
        "max_length": 32,
        "steps": (10, 14, 20),
    },
}
MODELS: dict[str, dict[str, Any]] = {
    "seq2seq": {"size": "tiny", "layers": 2},
    "cho": {"size": "tiny"},
    "rnnsearch": {"size": "tiny"},
    "transformer": {"size": "tiny", "layers": 3, "width": 256, "ffn": 512, "norm": "pre", "dropout": 0.1},
}
RECURRENT = {"batch_tokens": 1536, "peak": 2e-3, "warmup": 200, "updates": {"multi30k": 2500, "tatoeba": 1500}}
# No recurrence to wait for, so the same minutes hold a wider model and more, smaller updates.
TRANSFORMER = {"batch_tokens": 1024, "peak": 1.2e-3, "warmup": 300, "updates": {"multi30k": 4200, "tatoeba": 1500}}


def get_config(argument: str = "multi30k,rnnsearch") -> ml_collections.ConfigDict:
    data, _, model = argument.partition(",")
    for name, known in ((data, DATA), (model, MODELS)):
        if name not in known:
            raise UserError(f"config argument {argument!r} is not DATA,MODEL: no {name!r}: {nearest(name, known)}")
    training = TRANSFORMER if model == "transformer" else RECURRENT
    updates = training["updates"][data]
    config = ml_collections.ConfigDict()
    config.name = f"ladder-{data}-{model}"
    config.data = DATA[data] | {"tokenizer": "bpe", "vocabulary": 3000, "batch_tokens": training["batch_tokens"]}
    config.model = {"name": model, "dropout": 0.2, **MODELS[model]}
    config.optimizer = {"schedule": "cosine", "clip": 1.0, **{key: training[key] for key in ("peak", "warmup")}}
    config.train = {
        "steps": updates,
        "compute_dtype": "auto",
        "smoothing": 0.1,
        "log_every": 50,
        "evaluation_size": 500,
        "evaluate_every": updates // 2,
        "checkpoint_every": 100,
        "keep": 3,
        "average_last": 3,
    }
    config.decoding = {"beam_size": 1, "length_penalty": 1.0, "max_extra": 15, "max_length": 60}
    return config
