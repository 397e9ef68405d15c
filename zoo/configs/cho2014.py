"""RNN Encoder-Decoder, English to French, as in Cho et al. 2014, section 4.1.

python train.py --config=zoo/configs/cho2014.py --workdir=runs/cho2014 --config.data.download=true
python train.py --config=zoo/configs/cho2014.py --workdir=runs/cho2014 --config.data.train=DIR/train.tsv \
    --config.data.valid=DIR/valid.tsv --config.data.test=DIR/test.tsv

The paper trains on the pairs of a phrase table (Moses, WMT 2014) for about three days, each pair once, however frequent
it is. It does not translate with the model: the model scores phrase pairs as a feature of a phrase-based system, whose
newstest2014 BLEU rises from 33.30 to 33.87, tokenized, not comparable with sacreBLEU's figures. The same
network as a translator of sentences, with a larger vocabulary and embedding and batches of 80, is RNNencdec:
bahdanau2014.py:30,rnnencdec.

Phrases: TensorFlow Datasets has no phrase table. The first command trains on sentences of up to 30 words instead. The
second trains on a table of your own; each line is a phrase, a tab and its translation.

Words: the paper's text is tokenized and the text of TensorFlow Datasets is not. Words there keep their punctuation, so
the vocabulary covers fewer of them. A vocabulary's size counts its four special rows.

Batches are 64 random pairs, not sorted by length. Two numbers are not from the paper, which gives neither the number of
updates nor the clipping: the norm of at most 1 is from its authors' code.

Not measured here.
"""

import ml_collections

from zoo.configs._wmt14 import sentences
from zoo.errors import UserError


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    if argument:
        raise UserError(
            f"config argument {argument!r}: cho2014.py takes none; RNNencdec is bahdanau2014.py:30,rnnencdec"
        )
    config = ml_collections.ConfigDict()
    config.name = "cho2014"
    config.data = {
        **sentences("en", "fr"),
        "tokenizer": "word",
        "vocabulary": 15_000,
        "joint": False,
        "max_length": 31,
        "steps": (8, 16, 24),
        "batch_sentences": 64,
        "pool": 64,
    }
    config.model = {"name": "cho", "size": "cho2014"}
    config.optimizer = {
        "name": "adadelta",
        "rho": 0.95,
        "epsilon": 1e-6,
        "clip": 1.0,
        "per": "sentence",
        "schedule": "constant",
        "peak": 1.0,
        "warmup": 0,
    }
    config.train = {"steps": 500_000, "checkpoint_every": 5000, "evaluate_every": 20_000}
    config.decoding = {"beam_size": 12, "length_penalty": 0.0}
    return config
