"""Fine-tuning as published: Radford et al. 2018, section 4.1, for every task of the config."""

import pytest

from zoo.configs.gpt1_finetune import TASKS
from zoo.data.examples.labelled import FORMATS
from zoo.errors import UserError
from zoo.experiment import from_file

PAPER = {
    "optimizer.peak": 6.25e-5,
    "optimizer.schedule": "linear",
    "optimizer.warmup_share": 0.002,
    "optimizer.clip": 1.0,
    "optimizer.decay": 0.01,
    "train.epochs": 3.0,
    "data.batch_rows": 32,
    "data.auxiliary": 0.5,
    "data.length": 512,
    "train.smoothing": 0.0,
    "optimizer.name": "adam",
}


@pytest.mark.parametrize("task", TASKS)
def test_the_config_says_what_the_paper_says(task):
    experiment = from_file(f"gpt1_finetune:{task}")
    found = {key: getattr(getattr(experiment, key.split(".")[0]), key.split(".")[1]) for key in PAPER}
    assert found == PAPER
    model = experiment.model.config()
    assert (model.layers, model.width, model.heads, model.norm, model.max_length) == (12, 768, 12, "post", 512)
    assert {model.dropout, model.attention_dropout, model.head_dropout} == {0.1}
    assert experiment.data.task == task
    assert experiment.train.select in FORMATS[task].scores


def test_every_task_that_can_be_read_has_its_config():
    assert set(TASKS) == set(FORMATS)


def test_a_key_that_another_stands_in_for_is_obeyed():
    experiment = from_file("gpt1_finetune:rte", [("train.evaluate_every", "9"), ("optimizer.warmup", "10")])
    assert (experiment.train.evaluate_every, experiment.train.evaluate_epochs) == (9, 0)
    assert (experiment.optimizer.warmup, experiment.optimizer.warmup_share) == (10, 0)


@pytest.mark.parametrize(
    ("spec", "changes", "told"),
    [
        ("gpt1_finetune:rtf", [], r"'rtf': no such task: did you mean 'rte'"),
        ("gpt1_finetune:rte", [("train.select", "matthews")], r"train.select='matthews'"),
        ("gpt1_finetune:rte", [("optimizer.per", "token")], r"optimizer.per='token'.*use sentence"),
        ("gpt1_finetune:rte", [("data.length", "600")], r"data.length=600 is above model.max_length=512"),
        ("gpt1_finetune:stsb", [("train.smoothing", "0.1")], r"train.smoothing=0.1: data.task='stsb' predicts numbers"),
        (
            "gpt1_finetune:rte",
            [("optimizer.warmup", "9"), ("optimizer.warmup_share", "0.1")],
            r"optimizer.warmup=9 and optimizer.warmup_share=0.1 exclude each other",
        ),
        ("gpt1_finetune:rte", [("train.epochs", "0")], r"train.steps=0: use at least 1"),
        ("gpt", [("train.evaluate_epochs", "1")], r"train.evaluate_epochs=1: task='language_modeling'"),
        ("gpt1_finetune:rte", [("train.epochs", "-1")], r"train.epochs=-1"),
        ("gpt", [("train.epochs", "3")], r"train.epochs=3: .* does not count epochs: set steps"),
    ],
)
def test_what_cannot_be_fine_tuned_is_reported(spec, changes, told):
    with pytest.raises(UserError, match=told):
        from_file(spec, changes)
