"""The step compiled for a device that is not here: what it moves, by place, beside another state of the code."""

import argparse
import importlib.util
import json
import sys
from functools import partial

import pytest

from benchmarks import compiled
from benchmarks.__main__ import main
from zoo.models import registry

NEEDS_CUDA = pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda12_plugin") is None, reason="needs jax[cuda12], of the extra gpu"
)

NEEDS_LIBTPU = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu, of the extra tpu")


def row_of(capsys, monkeypatch, *arguments: str) -> dict:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "compiled", *arguments, "--json"])
    main()
    return json.loads(capsys.readouterr().out)["rows"][0]


def test_without_the_compiler_one_line_names_the_extra(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", partial(lambda found, name: found, None))
    for target, extra in (("h100", "seqzoo[gpu]"), ("v5e", "seqzoo[tpu]")):
        monkeypatch.setattr(sys, "argv", ["benchmarks", "compiled", f"--target={target}"])
        with pytest.raises(SystemExit, match="2"):
            main()
        assert capsys.readouterr().err.count(extra) == 1


def test_states_stand_side_by_side_with_what_only_one_of_them_has():
    before = {"system": "before", "bytes": 4e9, "bytes_by_place": {"attention": 3e9, "loss": 1e9}}
    after = {"system": "after", "bytes": 1e9, "bytes_by_place": {"attention": 1e9}, "compile_seconds": 2.0}
    lines = compiled.Compiled("h100", [before, after]).text().splitlines()
    figures = {line[:44].strip(): line[44:].split() for line in lines[1:]}
    assert figures["bytes"] == ["4.00", "GB", "1.00", "GB"]
    assert figures["loss"] == ["1.00", "GB", "0.00", "GB"]
    assert figures["compile seconds"] == ["0.0", "s", "2.0", "s"]


def test_a_state_that_git_does_not_know_is_one_line():
    with pytest.raises(compiled.UserError, match="nowhere"), compiled.checked_out("nowhere"):
        pass


@NEEDS_CUDA
@pytest.mark.slow
def test_a_small_model_is_counted_wholly_and_by_place(capsys, monkeypatch):
    row = row_of(capsys, monkeypatch, "--model=multi30k", "--rows=8")
    assert row["bytes"] == sum(row["bytes_by_place"].values()) == sum(row["bytes_by_kind"].values())
    assert {"attention", "feed-forward", "loss", "optimizer"} <= set(row["bytes_by_place"])
    assert row["product_flops"] == sum(row["product_flops_by_types"].values()) > 0


@NEEDS_CUDA
@pytest.mark.slow
@pytest.mark.parametrize(("model", "gigabytes"), [("gpt1", 82), ("transformer_big", 63)])
def test_a_step_moves_and_keeps_no_more_than_it_has_been_brought_to(model, gigabytes, capsys, monkeypatch):
    row = row_of(capsys, monkeypatch, f"--model={model}")
    assert row["bytes"] <= gigabytes * 1e9
    assert row["temporary_bytes"] <= 16 * 2**30
    types = row["product_flops_by_types"]
    assert all(kind.startswith("bf16 x bf16") for kind in types)
    assert types["bf16 x bf16 -> f32"] <= 0.34 * row["product_flops"]  # gradients of weights: a third of all


@NEEDS_LIBTPU
@pytest.mark.slow
@pytest.mark.parametrize(("model", "gigabytes", "gibibytes"), [("gpt1", 210, 20), ("transformer_big", 146, 24)])
def test_a_step_of_a_tpu_moves_and_keeps_no_more_either(model, gigabytes, gibibytes, capsys, monkeypatch):
    row = row_of(capsys, monkeypatch, "--target=v5p", f"--model={model}")
    assert row["bytes"] <= gigabytes * 1e9
    assert row["temporary_bytes"] <= gibibytes * 2**30


def test_every_model_is_one_of_the_zoo():
    parser = argparse.ArgumentParser()
    compiled.add_arguments(parser)
    for name, spec in compiled.MODELS.items():
        size = registry.config(spec["family"], spec["size"], **spec["changes"])
        assert size.layers > 0, name
