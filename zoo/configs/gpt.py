"""GPT of any size on your own text: Radford et al. 2018, section 4.1. `nano` trains on the manual of Python.

python train.py --config=zoo/configs/gpt.py                           nano, in minutes, without data
python train.py --config=zoo/configs/gpt.py:gpt1 --config.data.path=DIR --config.data.train=train \
    --config.data.valid=valid --config.data.test=""                   DIR/train and DIR/valid hold text files

GPT-1: Adam at 2.5e-4, 2000 updates of warm-up, then a cosine to 0; 64 rows of 512 tokens, clip 1, weight decay 0.01.
nano: 2.08 bits per byte on its test topics, where xz -9 needs 2.43 (2.28 and 2.37 on the validation topics),
one seed, in 194 seconds of processor time on 2 cores of an AMD EPYC, 2026-11-25.
The larger sizes use the same optimizer; set their learning rate, for example `--config.optimizer.peak=3e-4`.
"""

import ml_collections

from zoo.configs._arguments import named

NANO = {
    "data": {"tokenizer": "bpe", "vocabulary": 1000, "length": 64, "batch_rows": 16, "packing": "segments"},
    "optimizer": {"peak": 2e-3, "warmup": 100},
    "train": {
        "steps": 1000,
        "compute_dtype": "auto",
        "log_every": 50,
        "evaluate_every": 250,
        "checkpoint_every": 250,
    },
}


def get_config(argument: str = "nano") -> ml_collections.ConfigDict:
    size = argument or "nano"
    config = ml_collections.ConfigDict()
    config.name = named("gpt", size, "")
    config.task = "language_modeling"
    config.model = {"name": "gpt", "size": size}
    config.data = {"tokenizer": "bpe", "vocabulary": 40_000, "length": 512, "batch_rows": 64, "packing": "stream"}
    config.optimizer = {
        "peak": 2.5e-4,
        "schedule": "cosine",
        "warmup": 2000,
        "clip": 1.0,
        "decay": 0.01,
        "beta1": 0.9,
        "beta2": 0.999,
        "epsilon": 1e-8,
    }
    config.train = {
        "steps": 100_000,
        "compute_dtype": "auto",
        "select": "loss",
        "evaluation_size": 256,
        "log_every": 100,
        "evaluate_every": 1000,
        "checkpoint_every": 1000,
    }
    if size == "nano":
        config.update(NANO)
    return config
