"""WMT 2014 English to French as in Bahdanau et al. 2015 (arXiv 2014), section 4 and appendix B: RNNsearch and
RNNencdec on sentences of up to 30 or 50 words.

python train.py --config=zoo/configs/bahdanau2014.py:50 --workdir=runs/rnnsearch-50 --config.data.download=true
python train.py --config=zoo/configs/bahdanau2014.py:30,rnnencdec --workdir=runs/rnnencdec-30

The paper: 108 to 113 hours each on one GPU (Quadro K-6000; for 30 words TITAN BLACK); newstest2014 BLEU, tokenized,
not comparable with sacreBLEU's figures:
  RNNsearch-30 21.50, RNNsearch-50 26.75; RNNencdec-30 13.93, RNNencdec-50 17.82
  RNNsearch-50 trained for 252 hours (--config.train.steps=667000): 28.45
The paper decodes with a beam. It names neither the beam's size (12 here, as in Sutskever et al. 2014) nor a length
normalization (none here).

Steps: each model makes as many updates as in the paper's Table 2, of 80 sentences each; 1600 sentences are fetched at a
time, sorted by length and cut into 20 batches. The paper's text is a selection of 348 of WMT's 850 million words
(Axelrod et al. 2011), about 131,000 updates an epoch. TensorFlow Datasets has all 40.8 million pairs; these runs read
23 to 68 million. The paper validates on newstest2012 and 2013 together, these configs on 2013 alone.

Words: the paper's text is tokenized and the text of TensorFlow Datasets is not. Words there keep their punctuation, so
the vocabulary covers fewer of them. To train as the paper did, tokenize both sides (Moses) and name the files with
--config.data.train=DIR/train and so on; tokenize what you translate as well. A vocabulary's size counts its four
special rows.

Not measured here.
"""

import ml_collections

from zoo.configs._arguments import named
from zoo.configs._wmt14 import sentences
from zoo.errors import UserError, nearest

MODELS = {
    "rnnsearch": {"name": "rnnsearch", "size": "bahdanau2014"},
    "rnnencdec": {"name": "cho", "size": "rnnencdec"},
}
STEPS = {  # Table 2
    ("rnnsearch", "30"): 471_000,
    ("rnnsearch", "50"): 288_000,
    ("rnnencdec", "30"): 846_000,
    ("rnnencdec", "50"): 600_000,
}


def get_config(argument: str = "50") -> ml_collections.ConfigDict:
    words, _, model = argument.partition(",")
    model = model or "rnnsearch"
    if model not in MODELS:
        raise UserError(f"config argument {argument!r}: no model {model!r}: {nearest(model, MODELS)}")
    if (model, words) not in STEPS:
        raise UserError(
            f"config argument {argument!r}: write 30 or 50, the longest sentence in words, as in 50,{model}"
        )
    config = ml_collections.ConfigDict()
    config.name = named("bahdanau2014", argument, "50")
    config.data = {
        **sentences("en", "fr"),
        "tokenizer": "word",
        "vocabulary": 30_000,
        "joint": False,
        "max_length": int(words) + 1,
        "steps": (8, 16, 24, 32, 40),
        "batch_sentences": 80,
        "pool": 1600,
    }
    config.model = MODELS[model]
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
    config.train = {"steps": STEPS[model, words], "checkpoint_every": 2000, "evaluate_every": 10_000}
    config.decoding = {"beam_size": 12, "length_penalty": 0.0}
    return config
