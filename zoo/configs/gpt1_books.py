"""GPT-1 pretrained on books: Radford et al. 2018, section 4.1. `small` is for a CPU.

python train.py --config=zoo/configs/gpt1_books.py --config.data.path=DIR --config.data.vocabulary_files=FILES
python train.py --config=zoo/configs/gpt1_books.py:small --config.data.path=DIR

DIR/books.tar.xz holds books/train and books/valid, one text file a book; BooksCorpus itself is no longer available.
FILES holds encoder_bpe_40000.json and vocab_40000.bpe as OpenAI published them. If spaCy is installed, it splits the
words, as in the paper. Training reads the books as one text: 64 rows of 512 tokens, Adam at 2.5e-4, 2000 updates of
warm-up, then a cosine to 0, clip 1, weight decay 0.01. The paper's 100 epochs of 26 million tokens are 80,000 updates;
`--config.train.steps=N` sets fewer.

`small` learns a BPE of 4000 pieces: 4 layers, width 192, 128 tokens, 2.6 million parameters. It came to 1.63 bits per
byte on the validation books, one seed, after 12 million tokens, in 82 minutes of one core of an AMD EPYC, 2026-11-25.
"""

import ml_collections

from zoo.configs._arguments import named
from zoo.errors import UserError, nearest

SIZES = {
    "paper": {
        "model": {"name": "gpt", "size": "gpt1"},
        "data": {"tokenizer": "gpt1", "length": 512, "batch_rows": 64},
        "optimizer": {"peak": 2.5e-4, "warmup": 2000},
        "train": {"steps": 80_000, "evaluate_every": 1000, "checkpoint_every": 1000},
    },
    "small": {
        "model": {
            "name": "gpt",
            "size": "gpt1",
            "layers": 4,
            "width": 192,
            "ffn": 768,
            "heads": 6,
            "max_length": 128,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "norm": "pre",
        },
        "data": {"tokenizer": "bpe", "vocabulary": 4000, "length": 128, "batch_rows": 16},
        "optimizer": {"peak": 2e-3, "warmup": 200},
        "train": {"steps": 6000, "evaluate_every": 1000, "checkpoint_every": 500},
    },
}


def get_config(argument: str = "paper") -> ml_collections.ConfigDict:
    if argument not in SIZES:
        raise UserError(f"config argument {argument!r} is no size of this config: {nearest(argument, SIZES)}")
    size = SIZES[argument]
    config = ml_collections.ConfigDict()
    config.name = named("gpt1_books", argument, "paper")
    config.task = "language_modeling"
    config.model = size["model"]
    config.data = {
        "train": "books.tar.xz/books/train",
        "valid": "books.tar.xz/books/valid",
        "test": "",
        "packing": "stream",
        **size["data"],
    }
    config.optimizer = {
        "schedule": "cosine",
        "clip": 1.0,
        "decay": 0.01,
        "beta1": 0.9,
        "beta2": 0.999,
        "epsilon": 1e-8,
        **size["optimizer"],
    }
    config.train = {"compute_dtype": "auto", "select": "loss", "evaluation_size": 256, "log_every": 100} | size["train"]
    return config
