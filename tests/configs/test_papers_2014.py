"""The three papers of 2014 as published: what each config says, number by number, and a step of one of them."""

import dataclasses

import numpy as np
import optax
import pytest

from zoo.experiment import from_file
from zoo.models import registry
from zoo.parallel.mesh import make_mesh
from zoo.training.loop import Training
from zoo.training.optimizers import schedule

SUTSKEVER, CHO = "sutskever2014", "cho2014"
SEARCH_30, SEARCH_50 = "bahdanau2014:30", "bahdanau2014"
ENCDEC_30, ENCDEC_50 = "bahdanau2014:30,rnnencdec", "bahdanau2014:50,rnnencdec"

ADADELTA = {"optimizer.name": "adadelta", "optimizer.rho": 0.95, "optimizer.epsilon": 1e-6}
ADADELTA |= {"optimizer.schedule": "constant", "optimizer.peak": 1.0, "optimizer.warmup": 0}
ENGLISH_FRENCH = {"data.source": "en", "data.target": "fr", "data.train": "tfds:wmt14_translate/fr-en"}
ENGLISH_FRENCH |= {"data.test": "tfds:wmt14_translate/fr-en", "data.test_split": "test"}
OF_ALL = ENGLISH_FRENCH | {
    "data.tokenizer": "word",
    "data.joint": False,
    "optimizer.per": "sentence",
    "optimizer.momentum": 0.0,
    "model.dropout": 0.0,
    "model.init": "paper",
    "train.smoothing": 0.0,
    "optimizer.decay": 0.0,
    "optimizer.ema": 0.0,
    "train.compute_dtype": "float32",
    "decoding.length_penalty": 0.0,
}
OF_BAHDANAU = OF_ALL | {  # 4.2, A.2.3, B.2
    "data.vocabulary": 30_000,
    "data.target_vocabulary": 0,
    "data.batch_sentences": 80,
    "data.pool": 1600,
    "optimizer.clip": 1.0,
    "model.width": 1000,
    "model.embedding": 620,
    "model.maxout": 500,
    **ADADELTA,
}
SEARCH = OF_BAHDANAU | {"model.name": "rnnsearch", "model.alignment": 1000}
ENCDEC = OF_BAHDANAU | {"model.name": "cho", "model.rank": 0}
PUBLISHED = {
    SUTSKEVER: OF_ALL  # 3.1 to 3.4
    | {
        "data.vocabulary": 160_000,
        "data.target_vocabulary": 80_000,
        "data.batch_sentences": 128,
        "model.name": "seq2seq",
        "model.layers": 4,
        "model.width": 1000,
        "model.embedding": 1000,
        "model.reverse_source": True,
        "decoding.beam_size": 12,
        "optimizer.name": "sgd",
        "optimizer.peak": 0.7,
        "optimizer.schedule": "halving",
        "optimizer.clip": 5.0,
    },
    CHO: OF_ALL  # 4.1; one batch at a time, not sorted
    | {
        "data.vocabulary": 15_000,
        "data.target_vocabulary": 0,
        "data.batch_sentences": 64,
        "data.pool": 64,
        "model.name": "cho",
        "model.width": 1000,
        "model.embedding": 100,
        "model.maxout": 500,
        "model.rank": 100,
        **ADADELTA,
    },
    # Words and EOS; Table 2.
    SEARCH_30: SEARCH | {"data.max_length": 31, "train.steps": 471_000},
    SEARCH_50: SEARCH | {"data.max_length": 51, "train.steps": 288_000},
    ENCDEC_30: ENCDEC | {"data.max_length": 31, "train.steps": 846_000},
    ENCDEC_50: ENCDEC | {"data.max_length": 51, "train.steps": 600_000},
}


def settings(experiment):
    """All of an experiment by dotted path, the fields of the model's config among them."""
    tree = experiment.as_dict()
    tree["model"] = {"name": experiment.model.name, **dataclasses.asdict(experiment.model.config())}
    sections = {name: section for name, section in tree.items() if isinstance(section, dict)}
    return {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}


@pytest.mark.parametrize("spec", PUBLISHED)
def test_a_config_says_what_its_paper_says(spec):
    found, published = settings(from_file(spec)), PUBLISHED[spec]
    assert {key: found[key] for key in published} == published


@pytest.mark.parametrize("spec", PUBLISHED)
def test_the_vocabularies_are_those_of_the_published_size_of_the_model(spec):
    experiment = from_file(spec)
    model = experiment.model.config()
    asked = [getattr(experiment.data, key) for key in experiment.data.vocabulary_keys]
    assert asked == [model.source_vocabulary, model.target_vocabulary]


def test_sutskevers_rate_is_halved_after_five_epochs_and_each_half_of_one_until_seven_and_a_half():
    """Section 3.4, in epochs of 12 million pairs (section 3.1)."""
    experiment = from_file(SUTSKEVER)
    epoch = 12_000_000 // 128
    assert experiment.train.steps == 7.5 * epoch
    rate = schedule(experiment.optimizer, 1000, experiment.train.steps)
    for end, halvings in ((5, 0), (5.5, 1), (6, 2), (6.5, 3), (7, 4), (7.5, 5)):
        assert float(rate(int(end * epoch) - 1)) == pytest.approx(0.7 / 2**halvings)
    assert float(rate(5 * epoch)) == pytest.approx(0.35)


TINY = {
    "model.width": 6,
    "model.embedding": 5,
    "model.alignment": 7,
    "model.maxout": 4,
    "data.vocabulary": 46,
    "data.target_vocabulary": 30,
    "data.batch_sentences": 8,
    "data.pool": 40,
}


@pytest.fixture
def training(pairs_in_files, tmp_path):
    """RNNsearch at a tiny width, over files."""
    changes = TINY | {f"data.{split}": pairs_in_files for split in ("train", "valid", "test")}
    experiment = from_file(SEARCH_50, [(key, str(value)) for key, value in changes.items()])
    task = experiment.make_task(tmp_path)
    task.prepare()
    model = registry.of(experiment.model_config(task, "float32"))
    training = Training(task, model, experiment.train, experiment.optimizer, make_mesh(experiment.mesh), 0)
    yield training
    training.checkpoints.close()


@pytest.mark.slow
def test_a_step_of_bahdanaus_takes_the_clipped_mean_over_the_sentences_of_its_batch(training):
    """Seen at the bias of the output. A fresh model says every word alike, so the gradient there is known by hand:
    tokens / V less how often each word is said, by sentences and not by tokens; and Adadelta keeps its square."""
    assert training.task.vocabularies() == {"source_vocabulary": 46, "target_vocabulary": 30}
    batch = next(training.batches)
    assert batch.source.shape == (8, 8)
    state, metrics = training.step(training.fresh(), batch)

    tokens = batch.labels[batch.labels != 0]
    assert (metrics["sums"].sentences, metrics["sums"].tokens) == (8, len(tokens))
    gradient = (len(tokens) / 30 - np.bincount(tokens, minlength=30)) / 8
    norm = float(metrics["gradient_norm"])
    assert norm > 1.5  # so that it is clipped
    squares = optax.tree_utils.tree_get(state.optimizer, "e_g")["deep_output"]["bias"]
    np.testing.assert_allclose(squares, (1 - 0.95) * (gradient / norm) ** 2, rtol=0.02)
