"""Fine-tuning on one task: Radford et al. 2018, sections 3.2, 3.3 and 4.1.

python train.py --config=zoo/configs/gpt1_finetune.py:rte --config.data.path=DIR --init_from=WORKDIR
python train.py --config=zoo/configs/gpt1_finetune.py:rte --config.data.path=DIR --like=WORKDIR

WORKDIR holds a pretrained GPT. Both commands take its size and tokenizer; --init_from takes its parameters too, --like
starts from random ones. With neither, the model has GPT-1's size and learns a tokenizer of its own. DIR holds the task
as GLUE distributes it (train.tsv, dev.tsv, test.tsv). SNLI and RACE (high school) are TensorFlow datasets:
--config.data.download=true prepares them. Story Cloze is trained on its validation file, as the paper does.

For your own data: `gpt1_finetune.py:own,text:review,label:stars`. DIR holds train.tsv and dev.tsv, or the files that
data.train and data.valid name; `review` and `stars` are their columns. Use `text2:` for pairs and `number:` to predict
numbers.

Adam at 6.25e-5 (linear warm-up over 0.2 % of the steps, then linear to 0), 32 examples a batch, 3 epochs, λ = 0.5 for
the language model's loss, clip 1, dropout 0.1, weight decay 0.01. The model is evaluated after each epoch
(train.evaluate_epochs), and the best epoch is kept.
"""

import ml_collections

from zoo.configs._arguments import named
from zoo.errors import UserError, nearest

BATCH = 32
# The score by which the best epoch of each task is chosen.
TASKS = {
    "cola": "matthews",
    "sst2": "accuracy",
    "stsb": "pearson",
    "mrpc": "f1",
    "qqp": "f1",
    "mnli": "accuracy",
    "qnli": "accuracy",
    "rte": "accuracy",
    "wnli": "accuracy",
    "snli": "accuracy",
    "race": "accuracy",
    "storycloze": "accuracy",
    "own": "accuracy",
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
    task, _, columns = (argument or "rte").partition(",")
    if task not in TASKS:
        raise UserError(f"config argument {argument!r}: no such task: {nearest(task, TASKS)}")
    select = "pearson" if task == "own" and "number:" in columns else TASKS[task]
    config = ml_collections.ConfigDict()
    config.name = named("gpt1_finetune", task, "")
    config.task = "classification"
    config.model = {"name": "gpt_classifier", "size": "gpt1", **dict.fromkeys(("dropout", "attention_dropout"), 0.1)}
    where = ELSEWHERE.get(task, {})
    config.data = {"task": task, "batch_rows": BATCH, "length": 512, "auxiliary": 0.5, "columns": columns, **where}
    config.optimizer = {
        "peak": 6.25e-5,
        "schedule": "linear",
        "warmup_share": 0.002,
        "clip": 1.0,
        "decay": 0.01,
        "beta1": 0.9,
        "beta2": 0.999,
        "epsilon": 1e-8,
        "per": "sentence",
    }
    config.train = {
        "epochs": 3.0,
        "evaluate_epochs": 1.0,
        "steps": 0,
        "compute_dtype": "auto",
        "select": select,
        "log_every": 20,
        "keep": 1,
    }
    return config
