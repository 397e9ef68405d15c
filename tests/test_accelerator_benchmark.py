"""Each part of the accelerator's benchmark costs at most its own row, and the budget holds."""

import argparse

import pytest

from benchmarks import accelerator, accelerator_parts


def arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    accelerator.add_arguments(parser)
    return parser.parse_args(given)


def measured(work, sizes, seconds) -> dict:
    if work == "parts.card":
        return {"device": "a card", "is_cpu": False, "product_flops_per_second": 1.0, "copy_bytes_per_second": 1.0}
    return {"tokens_per_second": 6.0 if work.startswith("parts") else 3.0}


def test_a_part_that_fails_costs_its_row_and_no_other(monkeypatch):
    def failing(work, sizes, seconds):
        return {"error": "out of memory"} if work == "parts.decode" else measured(work, sizes, seconds)

    monkeypatch.setattr(accelerator, "_in_own_process", failing)
    monkeypatch.setattr(accelerator, "_missing", lambda part, arguments: "")
    found = accelerator.run(arguments())
    assert found.device == "a card"
    assert len(found.rows) + len(found.left_out) + 1 == len(accelerator.PARTS)
    assert set(found.left_out.values()) == {"out of memory"}
    ratios = {row["system"]: row.get("ratio") for row in found.rows}
    assert ratios["zoo gpt1, dropout 0.1"] == ratios["zoo transformer big"] == 2
    assert "zoo beam 4, 1 sentence" in found.text()


def test_what_the_budget_has_no_time_for_is_named(monkeypatch):
    clock = [0.0]

    def slow(work, sizes, seconds):
        clock[0] += 100
        return measured(work, sizes, seconds)

    monkeypatch.setattr(accelerator, "_in_own_process", slow)
    monkeypatch.setattr(accelerator.time, "monotonic", lambda: clock[0])
    found = accelerator.run(arguments("--budget=310"))
    assert [row["system"] for row in found.rows] == ["zoo gpt1, dropout 0.1", "zoo transformer big"]
    assert found.left_out["zoo gpt1, dropout 0"] == "the budget of 310 s was spent"
    assert found.left_out["nanoGPT gpt1, dropout 0.1"] == "no --peers"


@pytest.mark.parametrize("part", [part for part in accelerator.PARTS if part.work.startswith("parts.")])
def test_every_part_of_the_zoo_is_there(part):
    assert part.work.partition(".")[2] in accelerator_parts.PARTS


@pytest.mark.slow
def test_the_parts_run_at_their_tiny_size():
    card = accelerator_parts.card({"size": 64, "on_cpu": 64})
    of = {part.name: part for part in accelerator.PARTS}
    decode = of["zoo beam 4, 1 sentence"]
    for train in (of["zoo gpt1, dropout 0.1"], of["zoo characters, 10 steps a call"]):
        row = accelerator_parts.train(train.small | card)
        assert 0 < row["step_seconds"] < row["first_step_seconds"] and row["predicted_step_seconds"] > 0
    assert accelerator_parts.decode(decode.small)["tokens_per_second"] > 0
