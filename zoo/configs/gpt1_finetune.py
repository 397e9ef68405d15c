"""Fine-tuning on one task: Radford et al. 2018, sections 3.2, 3.3 and 4.1.

python train.py --config=zoo/configs/gpt1_finetune.py:rte --config.data.path=DIR --init_from=WORKDIR
python train.py --config=zoo/configs/gpt1_finetune.py:rte --config.data.path=DIR --like=WORKDIR

WORKDIR holds a pretrained GPT, whose size and tokenizer are taken: with --init_from its parameters too; with --like
they begin at random. With neither, the model has GPT-1's size and a tokenizer of the task's own. DIR holds the task as
GLUE gives it out (train.tsv, dev.tsv, test.tsv). SNLI and RACE (high school) are TensorFlow datasets, which
--config.data.download=true prepares. Story Cloze is trained on its validation file, as the paper does.

Adam 6.25e-5, linear to it over 0.2 % of the steps and then linear to 0, 32 examples a batch, 3 epochs, λ = 0.5 for the
language model's loss, clip 1, dropout 0.1, weight decay 0.01. Evaluated after each epoch, of which the best is kept.
"""

import ml_collections

from zoo.configs._arguments import named
from zoo.errors import UserError, nearest

BATCH = 32
# The training examples of each task, and the score by which its best epoch is chosen.
TASKS = {
    **{"cola": (8551, "matthews"), "sst2": (67_349, "accuracy"), "stsb": (5749, "pearson")},
    **{"mrpc": (3668, "f1"), "qqp": (363_846, "f1"), "mnli": (392_702, "accuracy")},
    **{"qnli": (104_743, "accuracy"), "rte": (2490, "accuracy"), "wnli": (635, "accuracy")},
    **{"snli": (549_367, "accuracy"), "race": (62_445, "accuracy"), "storycloze": (1871, "accuracy")},
}
ELSEWHERE = {
    "mnli": {"valid": "dev_matched.tsv", "test": "test_matched.tsv"},
    "snli": dict.fromkeys(("train", "valid", "test"), "tfds:snli"),
    "race": {**dict.fromkeys(("train", "valid", "test"), "tfds:race/high"), "valid_split": "dev"},
    "storycloze": {
        "train": "cloze_test_val__spring2016 - cloze_test_ALL_val.csv",
        "valid": "cloze_test_test__spring2016 - cloze_test_ALL_test.csv",
        "test": "",
    },
}


def get_config(argument: str = "rte") -> ml_collections.ConfigDict:
    task = argument or "rte"
    if task not in TASKS:
        raise UserError(f"config argument {argument!r}: no such task: {nearest(task, TASKS)}")
    examples, select = TASKS[task]
    config = ml_collections.ConfigDict()
    config.name = named("gpt1_finetune", task, "")
    config.task = "classification"
    config.model = {"name": "gpt_classifier", "size": "gpt1", **dict.fromkeys(("dropout", "attention_dropout"), 0.1)}
    config.data = {"task": task, "batch_rows": BATCH, "length": 512, "auxiliary": 0.5, **ELSEWHERE.get(task, {})}
    config.optimizer = {
        **{"peak": 6.25e-5, "schedule": "linear", "warmup_share": 0.002, "clip": 1.0, "decay": 0.01},
        **{"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "per": "sentence"},
    }
    config.train = {
        **{"epochs": 3.0, "compute_dtype": "auto", "select": select},
        **{"log_every": 20, "evaluate_every": examples // BATCH, "checkpoint_every": examples // BATCH, "keep": 1},
    }
    return config
