"""WMT 2014 English to French as in Sutskever, Vinyals & Le 2014, section 3.

python train.py --config=zoo/configs/sutskever2014.py --workdir=runs/sutskever2014-0 --config.data.download=true

For the ensemble of five, run it again with --config.seed=1 to 4, each in its own workdir, and then

python -m zoo translate runs/sutskever2014-0 ... runs/sutskever2014-4

The paper: 7.5 epochs in about ten days on 8 GPUs, one for each layer and four for the softmax; newstest2014 BLEU,
tokenized, not comparable with sacreBLEU's figures:
  beam 12: 30.59; source not reversed (--config.model.reverse_source=false) 26.17; five models 34.81
  five models, beam 1: 33.00; beam 2: 34.50
The paper does not mention length normalization, so there is none.

Steps: the paper's epoch is a selection of 12 million pairs, 93,750 batches of 128; the rate is halved after five of
them, and after each half epoch from then on. TensorFlow Datasets has all 40.8 million pairs instead of that selection:
the number of steps is the paper's and comes to 2.2 epochs of them.

Words: the paper's text is tokenized and the text of TensorFlow Datasets is not. Words there keep their punctuation, so
the vocabulary covers fewer of them. To train as the paper did, tokenize both sides (Moses) and name the files with
--config.data.train=DIR/train and so on; tokenize what you translate as well. A vocabulary's size counts its four
special rows. The paper gives no limit on the length of a sentence; here it is
100 words.

Not measured here.
"""

import ml_collections

from zoo.configs._wmt14 import sentences
from zoo.errors import UserError

BATCH = 128
EPOCH = 12_000_000 // BATCH  # steps


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    if argument:
        raise UserError(f"config argument {argument!r}: sutskever2014.py takes none")
    config = ml_collections.ConfigDict()
    config.name = "sutskever2014"
    config.data = {
        **sentences("en", "fr"),
        "tokenizer": "word",
        "vocabulary": 160_000,
        "target_vocabulary": 80_000,
        "joint": False,
        "max_length": 101,
        "steps": (8, 16, 24, 32, 48, 64),
        "batch_sentences": BATCH,
        "pool": 1000 * BATCH,
    }
    config.model = {"name": "seq2seq", "size": "sutskever2014"}
    config.optimizer = {
        "name": "sgd",
        "clip": 5.0,
        "per": "sentence",
        "schedule": "halving",
        "warmup": 0,
        "peak": 0.7,
        "halve_after": 5 * EPOCH,
        "halve_every": EPOCH // 2,
    }
    config.train = {"steps": 15 * EPOCH // 2, "checkpoint_every": 5000, "evaluate_every": EPOCH // 2}
    config.decoding = {"beam_size": 12, "length_penalty": 0.0}
    return config
