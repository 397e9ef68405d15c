"""The laws of fine-tuning: L3 = L2 + λ L1 over examples, and predictions in the data's order."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from zoo.data.batches.base import LabelledBatch
from zoo.data.specials import NOTHING
from zoo.errors import UserError
from zoo.models.gpt_classifier import GPTClassifier, GPTClassifierConfig
from zoo.tasks.base import Task
from zoo.tasks.classification import Classification, ClassificationData, PredictionConfig
from zoo.tasks.label_losses import fine_tuning_loss

RTE = "index\tsentence1\tsentence2\tlabel\n"
ROWS = [("a", "b b"), ("cc c", "d"), ("e", "f"), ("gg", "hhh"), ("i i i i i i", "j")]
LABELS = ["entailment", "not_entailment", "entailment", "entailment", "not_entailment"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("glue")
    rows = [f"{i}\t{a}\t{b}\t{label}\n" for i, ((a, b), label) in enumerate(zip(ROWS, LABELS, strict=True))]
    for name in ("train.tsv", "dev.tsv"):
        (folder / name).write_text(RTE + "".join(rows))
    unlabelled = "".join(row.rpartition("\t")[0] + "\n" for row in rows)
    (folder / "test.tsv").write_text(RTE.replace("\tlabel", "") + unlabelled)
    return folder


@pytest.fixture
def task_of(folder, tmp_path):
    def task_of(**changes):
        data = ClassificationData(
            task="rte", path=str(folder), tokenizer="bytes", **({"length": 16, "batch_rows": 2} | changes)
        )
        return Classification(data, PredictionConfig(), 0.0, tmp_path)

    return task_of


@pytest.fixture(scope="module")
def model_and_params():
    size = {"layers": 1, "width": 8, "ffn": 16, "heads": 2, "max_length": 16, "scan_layers": False}
    model = GPTClassifier(GPTClassifierConfig(vocabulary=263, outputs=2, **size))
    params = jax.jit(lambda: nn.unbox(model.init(jax.random.key(0), LabelledBatch.example())))()["params"]
    return model, jax.tree.map(lambda x: 5 * x, params)


@pytest.fixture(scope="module")
def output_and_batch(model_and_params):
    """Of three sequences of different length, the last without a label."""
    model, params = model_and_params
    inputs = np.random.default_rng(0).integers(0, 263, (3, 1, 1, 6)).astype(np.int32)
    labels = np.where(np.arange(6) < np.array([5, 2, 4])[:, None, None, None], np.roll(inputs, -1, -1), NOTHING)
    batch = LabelledBatch(
        inputs,
        labels,
        np.array([5, 2, 4], np.int32)[:, None, None],
        np.array([1, 0, 0], np.int32),
        np.array([True, True, False]),
    )
    return jax.jit(model.apply)({"params": params}, batch), batch


def test_it_keeps_the_contract_of_a_task(task_of):
    assert isinstance(task_of(), Task)


def by_hand(output, batch):
    """L2 and L1 of each labelled example, in float64."""
    scores, logits = (np.asarray(x, np.float64) for x in (output.scores, output.readout.logits()))
    logs, words = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (scores, logits))
    label = [-logs[i, batch.targets[i]] for i in (0, 1)]
    text = []
    for i in (0, 1):
        places = np.flatnonzero(batch.labels[i, 0, 0] != NOTHING)
        text.append(np.mean([-words[i, t, batch.labels[i, 0, 0, t]] for t in places]))
    return np.array(label), np.array(text)


@pytest.mark.parametrize("auxiliary", [0.0, 0.5])
def test_the_objective_is_equation_5(output_and_batch, auxiliary):
    output, batch = output_and_batch
    label, text = by_hand(output, batch)
    sums = fine_tuning_loss(output, batch, False, auxiliary=auxiliary)
    assert float(sums.objective) == pytest.approx((label + auxiliary * text).sum(), rel=1e-5)
    assert float(sums.loss) == pytest.approx(label.sum(), rel=1e-5)
    assert (sums.sentences, sums.tokens) == (2, 7)
    assert sums.means()["text_loss"] == pytest.approx((text @ [5, 2]) / 7 if auxiliary else 0, rel=1e-5)


def test_a_batch_is_the_sum_of_its_examples_the_gradient_included(model_and_params, output_and_batch):
    model, params = model_and_params
    _, batch = output_and_batch

    @jax.jit
    def gradient(params, batch):
        return jax.grad(
            lambda params: (
                fine_tuning_loss(model.apply({"params": params}, batch), batch, False, auxiliary=0.5).objective
            )
        )(params)

    def without(*rows):
        return batch.replace(labelled=batch.labelled & ~np.isin(np.arange(3), rows))

    whole, parts = gradient(params, batch), [gradient(params, without(row)) for row in (0, 1)]
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(jax.tree.map(jnp.add, *parts)), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5 * float(jnp.abs(one).max()) + 1e-7)


def test_a_regression_is_of_squared_errors(output_and_batch):
    output, batch = output_and_batch
    batch = batch.replace(targets=np.array([2.5, -1, 0], np.float32))
    sums = fine_tuning_loss(output, batch, True)
    expected = (output.scores[0, 0] - 2.5) ** 2 + (output.scores[1, 0] + 1) ** 2
    assert float(sums.objective) == pytest.approx(float(expected), rel=1e-5)
    assert "accuracy" not in sums.means()


def test_an_evaluation_says_every_example_in_order_whatever_the_batch(task_of, model_and_params):
    task = task_of()
    task.prepare()
    assert (task.vocabularies(), task.epoch_steps()) == ({"vocabulary": 263, "outputs": 2}, 2.5)
    found = task.evaluate(*model_and_params, "valid")
    assert [(source, known) for source, known, _ in found.samples] == [
        (" | ".join(row), label) for row, label in zip(ROWS, LABELS, strict=True)
    ]
    assert set(found.values) == {"loss", "accuracy"}
    right = sum(known == said for _, known, said in found.samples)
    assert found.values["accuracy"] == pytest.approx(right / 5)
    assert found.measured == {"examples": 5}
    task.data = replace(task.data, batch_rows=5)
    other = task.evaluate(*model_and_params, "valid")
    assert other.samples == found.samples
    assert other.values == pytest.approx(found.values, rel=1e-5)
    unlabelled = task.evaluate(*model_and_params, "test")
    assert unlabelled.values == {}
    assert [said for *_, said in unlabelled.samples] == [said for *_, said in found.samples]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            RTE + "0\ta\tb\tmaybe\n",
            r"x.tsv:2: the label 'maybe' is not one of this run: known: entailment, not_entailment",
        ),
        (RTE, r"x.tsv is empty"),
        ("sentence1\tlabel\na\tentailment\n", r"x.tsv has no column 'sentence2': it has sentence1, label"),
    ],
)
def test_wrong_validation_data_is_reported_before_anything_is_written(task_of, folder, text, told):
    (folder / "x.tsv").write_text(text)
    task = task_of(valid="x.tsv")
    with pytest.raises(UserError, match=told):
        task.prepare()
    assert not list(task.workdir.iterdir())


def test_what_is_not_a_number_is_reported(task_of, folder):
    (folder / "s.tsv").write_text("sentence1\tsentence2\tscore\na\tb\thigh\n")
    task = task_of()
    task.data = replace(task.data, task="stsb", train="s.tsv", valid="s.tsv")
    with pytest.raises(UserError, match=r"s.tsv:2: the label 'high' is not a number"):
        task.prepare()


def test_no_number_is_a_rare_label(task_of, folder, caplog):
    rows = "".join(f"a\tb\t{number / 50}\n" for number in range(200))
    (folder / "s.tsv").write_text(f"sentence1\tsentence2\tscore\n{rows}")
    task = task_of()
    task.data = replace(task.data, task="stsb", train="s.tsv", valid="s.tsv")
    with caplog.at_level("INFO", logger="zoo"):
        task.prepare()
    assert "200 examples" in caplog.text
    assert "spelling" not in caplog.text


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"task": "kola"}, "data.task='kola'.*did you mean 'cola'"),
        ({"length": 4}, "data.length=4: use at least 5"),
        ({"auxiliary": -1.0}, "data.auxiliary=-1.0"),
        ({"tokenizer": "word"}, "data.tokenizer='word'"),
    ],
)
def test_data_that_cannot_be_is_one_line(wrong, told):
    with pytest.raises(UserError, match=told):
        ClassificationData(**wrong)
