"""Laws of the explorer: it shows what the model gives, it runs without a network, and texts stay texts."""

import jax
import numpy as np
import pytest
from browser import CHROMIUM, opened
from flax import linen as nn

import zoo
from zoo.cli import main
from zoo.data.batches.base import LanguageBatch
from zoo.data.tokenizers import BOS, train_lossless
from zoo.decoding.inspection import of_text, of_translation
from zoo.errors import UserError
from zoo.models import build
from zoo.plotting import explore
from zoo.plotting.explorer import Inspection, Look, Step

browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
SCRIPT = "<script>document.title='caught'</script>"


def inspection(length: int, layers: int = 2, heads: int = 3) -> Inspection:
    """Random weights between pieces, of which the first is a script."""
    pieces = (SCRIPT, *(f"▁piece{i}" for i in range(1, length)))
    weights = np.random.default_rng(0).dirichlet(np.ones(length), (layers, heads, length)).astype(np.float32)
    steps = tuple(Step(piece, ((piece, 0.5), ("other", 0.25))) for piece in pieces)
    looks = (Look("cross", pieces, pieces, weights), Look("encoder", pieces, pieces, weights[:1]))
    return Inspection(f"{SCRIPT} → مرحبا %CODE%", looks, steps)


def test_every_attention_of_a_translation_is_there_and_sums_to_one(workdir):
    opened = zoo.load(workdir)
    found = of_translation(opened.model, opened.params, *opened.task.tokenizers, "in 1 days", "dans 1 jours")
    assert [look.name for look in found.looks] == ["cross", "decoder", "encoder"]
    for look in found.looks:
        assert look.weights.shape == (2, 2, len(look.queries), len(look.keys))
        assert np.allclose(look.weights.sum(axis=-1), 1, atol=1e-5)
    assert len(found.steps) == len(found.looks[0].queries)
    for step in found.steps:
        shares = [share for _, share in step.alternatives]
        assert shares == sorted(shares, reverse=True) and sum(shares) <= 1 + 1e-6


def test_a_language_model_sees_no_later_piece_and_predicts_the_next(tokenizer_of_characters):
    model = build("gpt", "nano", layers=1, width=16, ffn=16, heads=2, vocabulary=tokenizer_of_characters.size)
    params = model.init(jax.random.key(0), LanguageBatch.example())["params"]
    found = of_text(model, nn.unbox(params), tokenizer_of_characters, [BOS], "abca")
    (look,) = found.looks
    assert look.queries == look.keys == ("<s>", "a", "b", "c", "a")
    assert np.allclose(look.weights, np.tril(look.weights)) and np.allclose(look.weights.sum(-1), 1, atol=1e-5)
    assert [step.piece for step in found.steps] == list(look.queries) and found.steps[0].alternatives == ()


@pytest.fixture
def tokenizer_of_characters():
    return train_lossless("characters", ["abc\n"], 20)


def test_what_cannot_be_explored_is_reported(workdir):
    with pytest.raises(UserError, match="holds nothing to look at"):
        zoo.load(workdir).explore("  ")


def test_the_command_writes_a_page(workdir, tmp_path, capsys):
    assert main(["plot", str(workdir), "--text", "in 1 days", "--html", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "page.html")
    assert "in 1 days" in (tmp_path / "page.html").read_text()
    assert main(["plot", str(workdir), "--html", str(tmp_path / "other.html")]) == 2
    assert "add --text" in capsys.readouterr().err and not (tmp_path / "other.html").exists()


def test_no_text_can_become_code(tmp_path):
    page = explore(inspection(3)).page()
    assert SCRIPT not in page and page.count("</script>") == 3
    assert "%CODE%" in page and "srcdoc=" in explore(inspection(3))._repr_html_()


@browser
def test_clicks_and_keys_change_the_page_and_nothing_goes_wrong(tmp_path):
    explore(inspection(5)).save(tmp_path / "page.html")
    with opened(tmp_path / "page.html", color_scheme="dark") as (page, wrong):
        assert page.title().startswith(SCRIPT) and page.evaluate("document.documentElement.dataset.theme") == "dark"
        everything = page.locator(".columns path").count()
        page.locator(".queries .word").nth(1).click()
        assert 0 < page.locator(".columns path").count() < everything
        assert page.locator("#alternatives li").count() == 2
        before = page.locator("#said").text_content()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("l")
        assert page.locator("#said").text_content() != before and page.locator("#head").input_value() == "1"
        page.keyboard.press("v")
        assert page.locator(".matrix tbody td").count() == 25
        page.keyboard.press("v")
        assert page.locator(".heads canvas").count() == 6
        page.locator(".heads button").nth(4).click()
        assert page.locator("#layer").input_value() == "1" and page.locator("#head").input_value() == "1"
        page.select_option("#look", "1")
        assert page.locator("#layer option").count() == 1
        page.keyboard.press("Tab")
        page.locator("#theme").click()
        assert page.evaluate("document.documentElement.dataset.theme") == "light"
        unnamed = "[...document.querySelectorAll('button')].filter(b => !b.ariaLabel && !b.textContent.trim()).length"
        assert page.evaluate(unnamed) == 0
        assert wrong == []


@browser
def test_a_long_text_of_a_deep_model_opens_at_once(tmp_path):
    explore(inspection(100, layers=12, heads=12)).save(tmp_path / "page.html")
    with opened(tmp_path / "page.html") as (page, wrong):
        page.wait_for_selector(".columns path", state="attached")
        took = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
        print(f"opened in {took:.0f} ms")
        page.keyboard.press("v")
        assert page.locator(".matrix tbody td").count() == 10_000 and wrong == []
