"""Shakespeare, character by character: nanoGPT's size and steps for a CPU, on the file that nanoGPT
downloads.

python train.py --config=zoo/configs/shakespeare_char.py --config.data.path=DIR

The file is DIR/tinyshakespeare.txt; its last tenth is for validation, as in nanoGPT.

Validation loss 1.768 after 2000 steps, one seed, in 220 seconds of processor time on an AMD EPYC, 2026-11-25;
1.915 at nanoGPT's own learning rate, `--config.optimizer.peak=1e-3`.
"""

import ml_collections


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.task = "language_modeling"
    config.model = {"name": "gpt", "size": "nano"}
    config.data = {
        "train": "tinyshakespeare.txt[:90%]",
        "valid": "tinyshakespeare.txt[90%:]",
        "test": "",
        "tokenizer": "characters",
        "vocabulary": 200,
        "length": 64,
        "batch_rows": 12,
        "packing": "stream",
    }
    config.optimizer = {
        "peak": 4e-3,
        "schedule": "cosine",
        "warmup": 100,
        "clip": 1.0,
        "decay": 0.1,
        "beta1": 0.9,
        "beta2": 0.99,
        "epsilon": 1e-8,
    }
    config.train = {
        "steps": 2000,
        "compute_dtype": "auto",
        "select": "loss",
        "evaluation_size": 0,
        "log_every": 50,
        "evaluate_every": 250,
        "checkpoint_every": 250,
    }
    return config
