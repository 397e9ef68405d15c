"""The laws of language modeling: a loss that no batch changes, and scores that no vocabulary does."""

import math
from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import linen as nn

from zoo.data.batches.base import LanguageBatch
from zoo.data.tokenizers import BOS, EOS
from zoo.decoding.generation import GenerationConfig
from zoo.errors import UserError
from zoo.models.gpt import GPT, GPTConfig
from zoo.tasks import metrics
from zoo.tasks.base import Task
from zoo.tasks.language_modeling import LanguageModeling, LanguageModelingData

TEXTS = ["One two three.\n", "four\n", "Five sïx, seven.\n" * 3]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    root = tmp_path_factory.mktemp("texts")
    for number, text in enumerate(TEXTS):
        (root / f"{number}.txt").write_text(text, encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def task_of(texts, tmp_path_factory):
    def task_of(**changes):
        data = LanguageModelingData(
            train=str(texts),
            valid=str(texts),
            test="",
            tokenizer="bytes",
            **{"length": 8, "batch_rows": 4, **changes},
        )
        return LanguageModeling(data, GenerationConfig(max_new_tokens=4), 0.0, tmp_path_factory.mktemp("run"))

    return task_of


@pytest.fixture(scope="module")
def model_and_params():
    small = {"vocabulary": 260, "layers": 1, "width": 8, "ffn": 16, "heads": 2, "max_length": 8, "dropout": 0.0}
    model = GPT(GPTConfig(**small, attention_dropout=0.0, norm="pre"))
    params = jax.jit(lambda: nn.unbox(model.init(jax.random.key(0), LanguageBatch.example())))()["params"]
    return model, jax.tree.map(lambda x: 5 * x, params)


def test_it_keeps_the_contract_of_a_task(task_of):
    assert isinstance(task_of(), Task)


@pytest.mark.parametrize("packing", ["segments", "stream"])
def test_an_evaluation_is_of_every_token_whatever_the_batch(task_of, model_and_params, packing):
    task = task_of(packing=packing)
    task.prepare()
    found = task.evaluate(*model_and_params, "valid")
    sizes, words = [len(text.encode()) for text in TEXTS], sum(len(text.split()) for text in TEXTS)
    tokens = sum(sizes) + len(TEXTS) - (packing == "stream")
    assert found.measured == {"documents": 3, "tokens": tokens}
    task.data = replace(task.data, batch_rows=3)
    other = task.evaluate(*model_and_params, "valid").values
    assert found.values == pytest.approx(other, rel=1e-4)
    nats = found.values["loss"] * tokens
    assert found.values["bits_per_byte"] == pytest.approx(nats / math.log(2) / sum(sizes), rel=1e-5)
    assert found.values["word_perplexity"] == pytest.approx(math.exp(nats / words), rel=1e-4)
    assert set(task.selectable(task.data)) == set(found.values)
    assert [source + known for source, known, _ in found.samples] == [text.strip() for text in TEXTS]


def test_a_part_of_an_evaluation_is_of_whole_documents(task_of, model_and_params):
    task = task_of()
    task.prepare()
    measured = [task.evaluate(*model_and_params, "valid", most=rows).measured for rows in (1, 2, 3, 99)]
    assert [counts["documents"] for counts in measured] == [1, 2, 3, 3]


def test_a_model_that_knows_nothing_needs_the_bits_of_its_vocabulary():
    documents = ["ab cd", "é"]
    values = metrics.language(9 * math.log(256), documents)  # 7 bytes and two ends
    assert values == {"bits_per_byte": pytest.approx(8 * 9 / 7), "word_perplexity": pytest.approx(256**3)}


def test_training_rows_are_the_documents_and_nothing_else(task_of):
    task = task_of(packing="segments")
    task.prepare()
    batches = task.training_batches(1)
    count = -(-sum(len(text.encode()) + 2 for text in TEXTS) // 8)
    rows = np.concatenate([next(batches).inputs for _ in range(count)])  # four epochs
    assert ((rows == BOS).sum(), (rows == EOS).sum()) == (12, 12)


def test_a_prompt_begins_as_the_rows_do(task_of, model_and_params):
    for packing, start, blank in (("segments", [BOS], [BOS]), ("stream", [], [EOS])):
        task = task_of(packing=packing)
        task.prepare()
        generator = task.generator(*model_and_params)
        assert (generator.start, generator.blank) == (start, blank)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"tokenizer": "word"}, "data.tokenizer='word'.*bytes"),
        ({"packing": "tight"}, "data.packing='tight'.*segments"),
        ({"length": 1}, "data.length=1"),
        ({"batch_rows": 0}, "data.batch_rows=0"),
    ],
)
def test_data_that_cannot_be_is_one_line(wrong, told):
    with pytest.raises(UserError, match=told):
        LanguageModelingData(**wrong)


def test_a_split_without_text_is_one_line(task_of, texts):
    (texts.parent / "blank.txt").write_text(" \n")
    task = task_of()
    task.data = replace(task.data, valid=str(texts.parent / "blank.txt"))
    with pytest.raises(UserError, match=r"data.valid=.*blank.txt.*holds no text"):
        task.prepare()
    with pytest.raises(UserError, match=r"no data.test"):
        task.documents("test")
