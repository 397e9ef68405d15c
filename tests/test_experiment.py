"""Configs: every one resolves and trains a step in shape; every wrong key or value is one clear line."""

from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import pytest

from zoo.data.batches.base import LabelledBatch, LanguageBatch
from zoo.errors import UserError
from zoo.experiment import CONFIGS, from_file, from_workdir, resolve
from zoo.guards import differences, open_workdir
from zoo.models import registry
from zoo.parallel.devices import compute_dtype
from zoo.tasks.losses import cross_entropy
from zoo.tasks.registry import TASKS
from zoo.training.optimizers import optimizer
from zoo.training.step import TrainState
from zoo.workdirs import load

ARGUMENTS = {
    "phrases": ["", ":en-de,rnnsearch"],
    "multi30k": [":de-en,seq2seq"],
    "ladder": [":multi30k,rnnsearch", ":tatoeba,transformer"],
    "translation": [":en-fr"],
    "wmt14": [":en-de", ":en-fr"],
    "bahdanau2014": ["", ":30,rnnencdec"],
    "gpt": ["", ":gpt1", ":gpt3_175b"],
}
FILES = sorted(p.stem for p in CONFIGS.glob("*.py") if not p.name.startswith("_"))


SPECS = [f"{name}{argument}" for name in FILES for argument in ARGUMENTS.get(name, [""])]
SMOKE = ("multi30k:de-en,seq2seq", "wmt14:en-de")


@pytest.mark.parametrize("spec", [pytest.param(s, marks=pytest.mark.smoke if s in SMOKE else ()) for s in SPECS])
def test_every_config_resolves_and_its_model_takes_a_step_in_shape(spec):
    experiment = from_file(spec)
    kind, data = TASKS[experiment.task], experiment.data
    if kind.batch in (LanguageBatch, LabelledBatch):
        sizes = {"vocabulary": data.vocabulary}
    else:
        source, target = (getattr(data, key) for key in data.vocabulary_keys)
        sizes = {"source_vocabulary": source, "target_vocabulary": target}
    model = registry.of(experiment.model.config(dtype=compute_dtype(experiment.train.compute_dtype), **sizes))
    rule = optimizer(experiment.optimizer, model.config.width, experiment.train.steps)
    batch = kind.batch.example()

    def step(key):
        params = nn.unbox(model.init(key, batch))["params"]
        state = TrainState(0, params, rule.init(params), None, key)

        def objective(params):
            output = model.apply({"params": params}, batch, train=True, rngs={"dropout": key})
            labels = batch.labels.reshape(-1, batch.labels.shape[-1])
            return cross_entropy(output.readout, labels, experiment.train.smoothing).objective

        return params, rule.update(jax.grad(objective)(state.params), state.optimizer, state.params)[0]

    params, changes = jax.eval_shape(step, jax.random.key(0))
    assert jax.tree.map(lambda p: p.shape, params) == jax.tree.map(lambda p: p.shape, changes)


def test_the_command_line_wins_over_the_file_and_the_file_over_the_default():
    experiment = from_file("phrases", [("train.steps", "7"), ("data.steps", "8,16"), ("model.dropout", "0.25")])
    assert experiment.train.steps == 7
    assert experiment.data.steps == (8, 16)
    assert experiment.model.config().dropout == 0.25
    assert experiment.data.train == "phrases"  # the file
    assert experiment.optimizer.beta1 == 0.9  # the default


def test_a_path_will_do_for_a_text():
    assert from_file("phrases", [("data.train", Path("texts") / "train")]).data.train == str(Path("texts", "train"))


def test_an_experiment_survives_its_working_directory(tmp_path):
    experiment = from_file("phrases:en-de", [("optimizer.peak", "0.5")])
    open_workdir(tmp_path / "run", experiment)
    assert from_workdir(tmp_path / "run") == experiment
    open_workdir(tmp_path / "run", experiment)  # the same again is welcome


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("train.stepz", "3", ["train.stepz", "'steps'"]),
        ("trian.steps", "3", ["trian", "'train'"]),
        ("train.steps", "many", ["train.steps", "'many'", "whole number"]),
        ("train.steps", "1.5", ["train.steps", "1.5", "whole number"]),
        ("train.steps", "0", ["train.steps=0", "at least 1"]),
        ("data.joint", "perhaps", ["data.joint", "true or false"]),
        ("optimizer.peak", "high", ["optimizer.peak", "a number"]),
        ("optimizer.name", "adm", ["adm", "'adam'"]),
        ("optimizer.schedule", "nome", ["nome", "noam"]),
        ("model.name", "transfromer", ["transfromer", "'transformer'"]),
        ("model.size", "huge", ["huge", "base"]),
        ("model.heads", "5", ["model.heads=5", "width=128"]),
        ("model.headz", "4", ["model.headz", "'heads'"]),
        ("model.norm", "middle", ["middle", "post, pre"]),
        ("train.compute_dtype", "float16", ["float16", "auto, float32, bfloat16"]),
        ("train.smoothing", "1.5", ["smoothing=1.5"]),
        ("train.average_last", "50", ["average_last=50", "train.keep"]),
        ("data.tokenizer", "bpee", ["bpee", "unigram"]),
        ("data.target", "en", ["'en'", "two languages"]),
        ("data.target_vocabulary", "900", ["target_vocabulary=900", "data.joint=false"]),
        ("data.batch_sentences", "-1", ["batch_sentences=-1", "at least 0"]),
        ("optimizer.per", "word", ["'word'", "token, sentence"]),
        ("decoding.beam_size", "0", ["beam_size=0"]),
        ("decoding.compute_dtype", "float16", ["decoding.compute_dtype='float16'", "float32, bfloat16"]),
        ("decoding.coverage_penalty", "-1", ["coverage_penalty=-1"]),
        ("decoding.min_length", "900", ["min_length=900", "max_length"]),
        ("task", "summaries", ["summaries", "translation"]),
        ("data", "x", ["config.data"]),
        ("train.steps.more", "1", ["train.steps.more"]),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_remedy(key, value, told):
    with pytest.raises(UserError) as error:
        from_file("phrases", [(key, value)])
    assert "\n" not in str(error.value)
    for part in told:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, r"model.name='transformer' is not for task='language_modeling': use gpt"),
        ({"model": {"name": "gpt", "size": "nano"}}, r"data.length=512 is above model.max_length=64"),
        ({"model": {"name": "gpt", "size": "gpt1"}, "train": {"select": "bleu"}}, r"train.select='bleu'.*loss"),
        ({"decoding": {"beam_size": 4}}, r"config.decoding.beam_size is not a key: .*temperature"),
        ({"data": {"source": "en"}}, r"config.data.source is not a key"),
        ({"task": "translation", "model": {"name": "gpt", "size": "nano"}}, r"model.name='gpt' .*'translation': .*cho"),
    ],
)
def test_a_task_has_keys_and_models_of_its_own(changes, told):
    with pytest.raises(UserError, match=told):
        resolve({"task": "language_modeling", "train": {"select": "loss"}, **changes})


def test_a_wrong_type_in_a_file_is_named_too():
    with pytest.raises(UserError, match=r"train\.steps=True is not a whole number"):
        resolve({"train": {"steps": True}})


def test_a_missing_config_names_the_nearest():
    with pytest.raises(UserError, match=r"'phrases\.py'"):
        from_file("zoo/configs/phrase.py")


def test_another_experiment_in_the_same_directory_says_what_differs_and_how_to_continue(tmp_path):
    open_workdir(tmp_path / "run", from_file("phrases"))
    with pytest.raises(UserError) as error:
        open_workdir(tmp_path / "run", from_file("phrases", [("optimizer.peak", "0.5"), ("seed", "3")]))
    was = from_file("phrases").optimizer.peak
    for part in (f"optimizer.peak was {was}, now 0.5", "seed was 0, now 3", "--workdir"):
        assert part in str(error.value)
    assert from_workdir(tmp_path / "run") == from_file("phrases")  # nothing was overwritten


def test_what_does_not_change_the_result_may_change_when_a_run_continues():
    same = partial(differences, from_file("phrases").as_dict())
    assert (
        same(from_file("phrases", [("train.steps", "9"), ("mesh.fsdp", "2"), ("decoding.beam_size", "2")]).as_dict())
        == []
    )
    assert same(from_file("phrases", [("model.width", "64")]).as_dict()) != []


def test_a_directory_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="not empty"):
        open_workdir(tmp_path, from_file("phrases"))
    assert [p.name for p in Path(tmp_path).iterdir()] == ["thesis.tex"]


def test_a_damaged_config_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"name": "x", ')
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        from_workdir(tmp_path)


def test_a_model_decodes_in_float32_whatever_it_was_trained_in(workdir):
    trained = (("train.compute_dtype", "bfloat16"),)
    assert load(workdir, changes=trained).model.config.dtype == "float32"
    assert load(workdir, changes=(*trained, ("decoding.compute_dtype", "bfloat16"))).model.config.dtype == "bfloat16"
