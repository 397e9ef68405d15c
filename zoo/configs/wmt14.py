"""WMT 2014 English to German or French as in Vaswani et al. 2017, sections 5 and 6.1.

python train.py --config=zoo/configs/wmt14.py:en-de --workdir=runs/wmt14-en-de --config.data.download=true
python train.py --config=zoo/configs/wmt14.py:en-fr,big --workdir=runs/wmt14-en-fr-big

The paper: 100,000 steps (big: 300,000) of about 25,000 source and 25,000 target tokens on 8 P100 GPUs, 12 hours (big:
3.5 days); newstest2014 BLEU en-de 27.3 (big 28.4), en-fr 38.1 (big 41.8), tokenized and with compounds split, not
comparable with sacreBLEU's figures. The last 5 checkpoints (big: 20) are averaged; the paper wrote one every 10
minutes, this config writes one every 1,000 steps.

Not measured here yet.
"""

import ml_collections

from zoo.configs._arguments import languages
from zoo.configs._wmt14 import DATASETS, sentences
from zoo.errors import UserError, nearest

VOCABULARY = {"de": 37_000, "fr": 32_000}


def get_config(argument: str = "en-de,base") -> ml_collections.ConfigDict:
    pair, _, size = argument.partition(",")
    size = size or "base"
    source, target = languages(pair)
    foreign = target if source == "en" else source
    if "en" not in (source, target) or foreign not in DATASETS:
        raise UserError(f"config argument {pair!r}: choose en-de, en-fr, de-en or fr-en")
    if size not in ("base", "big"):
        raise UserError(f"config argument {size!r} is not a size of the paper: {nearest(size, ('base', 'big'))}")

    big, french = size == "big", foreign == "fr"
    config = ml_collections.ConfigDict()
    config.name = f"wmt14-{source}-{target}-{size}"
    config.data = {
        **sentences(source, target),
        "tokenizer": "bpe",
        "vocabulary": VOCABULARY[foreign],
        "joint": True,
        "max_length": 256,
        "batch_tokens": 25_000,
        "pool": 1_000_000,
    }
    config.model = {"name": "transformer", "size": size, "dropout": 0.3 if big and not french else 0.1}
    config.optimizer = {
        "name": "adam",
        "schedule": "noam",
        "warmup": 4000,
        "beta1": 0.9,
        "beta2": 0.98,
        "epsilon": 1e-9,
    }
    averaged = 20 if big else 5
    config.train = {
        "steps": 300_000 if big else 100_000,
        "smoothing": 0.1,
        "compute_dtype": "bfloat16",
        "average_last": averaged,
        "keep": averaged,
        "checkpoint_every": 1000,
        "evaluate_every": 5000,
    }
    config.decoding = {"beam_size": 4, "length_penalty": 0.6, "max_extra": 50}
    return config
