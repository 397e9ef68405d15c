"""Translation between any two languages, from text of your own: about 100,000 to a million pairs of sentences.

python train.py --config=zoo/configs/translation.py:en-de --workdir=runs/en-de \
    --config.data.train=DIR/train --config.data.valid=DIR/valid --config.data.test=DIR/test

A split is a prefix (DIR/train.en and DIR/train.de with one sentence a line; line N of one file translates line N of the
other), a .tsv of source and target, or tfds:NAME. --config.data.test may be omitted. With more data, set
--config.model.size=base and --config.data.vocabulary=32000.

Not measured: the score depends on your text.
"""

import ml_collections

from zoo.configs._arguments import languages


def get_config(argument: str = "en-fr") -> ml_collections.ConfigDict:
    source, target = languages(argument)
    config = ml_collections.ConfigDict()
    config.name = f"{source}-{target}"
    config.data = {
        "source": source,
        "target": target,
        "tokenizer": "unigram",
        "vocabulary": 8000,
        "max_length": 100,
        "max_ratio": 3.0,
        "batch_tokens": 8192,
    }
    config.model = {"name": "transformer", "size": "small", "dropout": 0.2}
    config.optimizer = {"peak": 1e-3, "warmup": 4000}
    config.train = {
        "steps": 50_000,
        "smoothing": 0.1,
        "average_last": 5,
        "keep": 5,
        "patience": 10,
        "evaluate_every": 1000,
        "checkpoint_every": 1000,
        "evaluation_size": 2000,
    }
    config.decoding = {"beam_size": 4, "length_penalty": 0.6, "max_extra": 50}
    return config
