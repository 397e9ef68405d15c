"""The claims' benchmark: it counts what there is, it resumes where it stopped, and its report says what came
out. Nothing is timed."""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import claims
from benchmarks.claims import generations, lengths, parallelism, recall, scaling
from benchmarks.claims.points import Points, TimeIsUp
from benchmarks.claims.power_law import PowerLaw, frontier
from benchmarks.claims.work import work_of
from zoo.data.specials import EOS, PAD
from zoo.models import registry


def test_products_in_a_loop_wait_for_each_other_only_where_its_carry_needs_them():
    matrix, rows = jnp.ones((4, 4)), jnp.ones((5, 3, 4))

    def recurrent(matrix, rows):
        return jax.lax.scan(lambda state, row: (jnp.tanh(state @ matrix + row), None), rows[0], rows)[0]

    def apart(matrix, rows):
        return jax.lax.scan(lambda _, row: (None, row @ matrix), None, rows)[1]

    one = 2 * 3 * 4 * 4
    assert work_of(recurrent, matrix, rows) == claims.parallelism.Work(5 * one, 5)
    assert work_of(apart, matrix, rows) == claims.parallelism.Work(5 * one, 1)
    assert work_of(lambda m, r: r[0] @ m @ m, matrix, rows).steps == 2


def test_of_the_branches_of_a_condition_one_is_counted():
    matrix = jnp.ones((4, 4))
    chosen = work_of(lambda m: jax.lax.cond(m[0, 0] > 0, lambda: m @ m, lambda: m @ m @ m), matrix)
    assert chosen == claims.parallelism.Work(2 * 2 * 4**3, 2)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "cho" else pytest.mark.slow) for name in generations.NAMES]
)
def test_models_are_compared_at_one_size(name):
    count = registry.parameter_count(generations.config(name, 36, 500_000))
    assert count == pytest.approx(500_000, rel=0.05)


def test_a_row_to_recall_is_its_own_target_and_longer_rows_only_add_padding():
    settings = {"symbols": 5}
    batch = recall._batch(np.random.default_rng(0), settings, np.array([2, 4]), 4)
    assert (batch.source == batch.labels).all()
    assert (batch.inputs[:, 1:] == batch.labels[:, :-1]).all()
    assert [(row == EOS).argmax() for row in batch.labels] == [2, 4]
    assert (batch.labels[0, 3:] == PAD).all()


def test_a_power_law_is_found_again_and_its_interval_holds_the_next_run():
    x = np.geomspace(1e3, 1e6, 7)
    noise = 1 + 0.002 * np.random.default_rng(0).standard_normal(7)
    law = PowerLaw.fitted(x[:-1], (5 * x**-0.08 * noise)[:-1])
    assert law.exponent_interval[0] < 0.08 < law.exponent_interval[1]
    low, high = law.interval(x[-1])
    assert low < 5 * x[-1] ** -0.08 < high
    inside, outside = (np.diff(np.log(law.interval(at))) for at in (x[3], x[-1]))
    assert outside > inside


def test_only_the_best_of_each_compute_is_on_the_frontier():
    assert frontier([([1, 4], [3.0, 2.0]), ([2, 3], [3.5, 1.5])]) == ([1, 3], [3.0, 1.5])


def test_a_point_is_measured_once_and_again_only_for_other_settings(tmp_path):
    measured = []

    def measure():
        measured.append(1)
        return {"a": 1.5}

    for settings in ({"x": 1}, {"x": 1}, {"x": 2}):
        assert Points(tmp_path, settings).of("one", measure) == {"a": 1.5}
    assert len(measured) == 2
    assert Points(tmp_path, {"x": 1}).work != Points(tmp_path, {"x": 2}).work  # no training resumes another's
    with pytest.raises(TimeIsUp):
        Points(tmp_path, {"x": 2}, float("-inf")).of("two", measure)


def test_bleu_by_length_is_told_with_what_is_left_on_the_longest_lines(tmp_path):
    bins = [{"first": 1, "last": 2, "sentences": 3}, {"first": 3, "last": 5, "sentences": 4}]
    run = {"parameters": 1_000_000, "bins": bins, "bleu": [50.0, 25.0], "signature": "sacreBLEU"}
    said = "\n".join(lengths.tell(Points(tmp_path, lengths.SETTINGS, values={"cho": run})))
    assert "| 3–5 | 4 | 25.0 |" in said and "keeps 50 %" in said


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "inside the interval"), (1.3, "above"), (0.7, "below")])
def test_the_largest_size_checks_the_law_of_the_others(tmp_path, factor, verdict):
    noise = np.random.default_rng(0).normal(1, 0.005, len(scaling.SETTINGS["sizes"]))
    values = {}
    for number, (layers, width) in enumerate(scaling.SETTINGS["sizes"]):
        size = 10.0**number
        loss = 4 * size**-0.05 * noise[number] * (factor if number == len(noise) - 1 else 1)
        values[f"{layers}x{width}"] = {
            **{"parameters": int(size), "flops_per_update": size},
            **{"updates": [1, 2], "losses": [2 * loss, loss]},
        }
    settings = scaling.SETTINGS | {"text": "a text"}
    said = "\n".join(scaling.tell(Points(tmp_path, settings, values=values)))
    assert "parameters^−0.05" in said and said.count("checks the law") == 1
    assert verdict in said.split("Loss falls as compute")[0]


@pytest.fixture
def minute(monkeypatch):
    """Settings at which nothing is learned."""
    small = {"vocabulary": 40, "parameters": 6000, "tokens": 32, "dtype": "float32"}
    monkeypatch.setattr(parallelism, "SETTINGS", parallelism.SETTINGS | small | {"lengths": [4, 8], "rounds": 1})
    of_recall = {"updates": 2, "distances": [2, 4], "buckets": [4], "symbols": 5, "symbols_scored": 16}
    monkeypatch.setattr(recall, "SETTINGS", recall.SETTINGS | small | of_recall)
    lines = {"train": 60, "valid": 25, "test": 45}
    of_lengths = {"phrases": 2, "lines": lines, "vocabulary": 120, "parameters": 20_000, "updates": 2, "steps": []}
    monkeypatch.setattr(lengths, "SETTINGS", lengths.SETTINGS | of_lengths | {"batch_tokens": 512, "max_length": 64})
    of_scaling = {"sizes": [[1, 8], [1, 16], [2, 16], [2, 24]], "rows": 2, "length": 8, "updates": 2}
    monkeypatch.setattr(scaling, "SETTINGS", scaling.SETTINGS | of_scaling | {"evaluate_every": 1})
    monkeypatch.setattr(parallelism, "matmul_ceiling", lambda dtype: 1e9)


def _claims(tmp_path, *words):
    parser = argparse.ArgumentParser()
    claims.add_arguments(parser)
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat and looked at the dog\n" * 40)
    report = f"--report={tmp_path / 'report.md'}"
    return claims.run(parser.parse_args([f"--out={tmp_path / 'out'}", f"--text={text}", report, *words]))


def test_a_report_says_what_is_not_measured_yet(tmp_path, minute):
    _claims(tmp_path, "--minutes=1e-9")
    written = (tmp_path / "report.md").read_text()
    assert written.count("Not measured yet") == len(claims.MODULES)
    assert all(module.TITLE in written and module.CLAIM in written for module in claims.MODULES.values())


@pytest.mark.slow
def test_a_report_is_written_of_what_there_is(tmp_path, minute, monkeypatch):
    monkeypatch.setattr(recall, "NAMES", {"transformer": "attention"})
    _claims(tmp_path, "--part", "recall")
    written = (tmp_path / "report.md").read_text()
    assert written.count("Not measured yet") == 3
    assert (tmp_path / "figures" / "claims_recall.png").is_file()
    assert "| Transformer |" in written


@pytest.mark.slow
def test_every_part_is_measured_once_and_told(tmp_path, minute, monkeypatch):
    first = _claims(tmp_path)
    for part in (parallelism, recall, lengths, scaling):
        monkeypatch.setattr(part, "_point", None)  # the second call finds all of it
    again = _claims(tmp_path, "--machine", "this one")
    assert again.as_dict()["parts"] == first.as_dict()["parts"]
    written = (tmp_path / "report.md").read_text()
    assert "Not measured" not in written and "Machine: this one." in written
    assert len(list((tmp_path / "figures").glob("claims_*.png"))) == 4
