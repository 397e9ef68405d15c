"""Pictures: what they show, and that they can be drawn of any text."""

import json
import logging

import matplotlib.image
import numpy as np
import pytest
from matplotlib import font_manager

import zoo
from zoo.errors import UserError
from zoo.plotting.attention import draw_attention
from zoo.plotting.confusion import draw_confusion
from zoo.plotting.curves import draw_curves, read_curves
from zoo.plotting.fonts import families
from zoo.plotting.lengths import draw_by_length
from zoo.plotting.pictures import COLOURS


def picture(path):
    return matplotlib.image.imread(path)


def test_every_head_of_every_layer_has_its_panel(tmp_path):
    pictures = set()
    for layer, head in np.ndindex(2, 2):
        weights = np.zeros((2, 2, 2, 3), np.float32)
        weights[layer, head, 1, 2] = 1
        path = tmp_path / f"{layer}-{head}.png"
        draw_attention(weights, ["▁a", "▁b", "</s>"], ["▁x", "</s>"], "a b → x", path, [1, 2], [1, 2])
        pictures.add(path.read_bytes())
    assert len(pictures) == 4


def test_dollars_are_not_mathematics(tmp_path):
    pieces = ["$5", "$6^", "</s>"]
    draw_attention(np.eye(3, dtype=np.float32)[None, None], pieces, pieces, "$5 \\frac $6^", tmp_path / "a.png")
    assert picture(tmp_path / "a.png").shape[-1] == 4


@pytest.fixture
def only_matplotlibs_fonts(monkeypatch):
    """As on a machine where none is installed."""
    manager = font_manager.fontManager
    monkeypatch.setattr(manager, "ttflist", [font for font in manager.ttflist if font.name == "DejaVu Sans"])
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    monkeypatch.setattr(logging.getLogger("zoo"), "propagate", True)


@pytest.mark.parametrize(
    ("text", "package"),
    [("\u6211\u306d\uac00", "fonts-noto-cjk"), ("\u0e41\u0939", "fonts-noto-core"), ("\U0003fffd", "fonts-noto-core")],
)
def test_a_character_without_a_glyph_is_reported_with_the_package_that_has_one(
    caplog, only_matplotlibs_fonts, text, package
):
    assert families("abc ▁é →") == ["DejaVu Sans"]
    assert not caplog.records
    assert families(text) == ["DejaVu Sans"]
    assert f"apt install {package}`" in caplog.text


def test_a_font_that_was_installed_since_is_found(caplog, only_matplotlibs_fonts, monkeypatch):
    path = f"{matplotlib.get_data_path()}/fonts/ttf/STIXNonUni.ttf"
    known = font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap()
    character = next(chr(code) for code in font_manager.get_font(path).get_charmap() if code not in known)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [__file__, path])  # the first is no font
    assert families(f"a{character}") == ["DejaVu Sans", font_manager.get_font(path).family_name]
    assert not caplog.records


def test_every_picture_looks_for_the_glyphs_of_what_it_names(tmp_path, caplog, only_matplotlibs_fonts):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "train/loss": 1.0}\n{"step": 2, "train/loss": 0.5}\n')
    draw_curves({"\u6211": tmp_path / "metrics.jsonl"}, tmp_path / "curves.png")
    draw_by_length([(1, 2, 3)], {"\u6211": [1.0]}, "a", "b", tmp_path / "lengths.png")
    draw_confusion([[1, 0], [0, 1]], ["\u6211", "a"], "a", tmp_path / "confusion.png")
    draw_attention(np.eye(1, dtype=np.float32)[None, None], ["\u6211"], ["a"], "a", tmp_path / "attention.png")
    assert caplog.text.count("fonts-noto-cjk") == 4


@pytest.mark.parametrize("name", ["a.png", "a.PDF", "a.svg", "a.jpg", "a"])
def test_a_picture_has_the_format_of_its_name(tmp_path, name):
    draw_attention(np.eye(2, dtype=np.float32)[None, None], ["a", "b"], ["x", "y"], "a", tmp_path / name)
    begins = {"pdf": b"%PDF", "svg": b"<?xml", "jpg": b"\xff\xd8"}
    assert (tmp_path / name).read_bytes().startswith(begins.get(name[2:].lower(), b"\x89PNG"))


LONG = "▁" + "Donaudampfschifffahrtsgesellschaftskapitän" * 2


@pytest.mark.parametrize(
    ("source", "target", "panels"),
    [(["a", LONG, "</s>"], ["x", LONG[:50], "</s>"], 1), (["W" * 30] * 3, ["W" * 30] * 3, 1), (["a"], ["W" * 60], 2)],
)
def test_nothing_is_cut_off_at_the_edges(tmp_path, source, target, panels):
    weights = np.ones((1, panels, len(target), len(source)), np.float32)
    draw_attention(weights, source, target, "a title", tmp_path / "a.png", [1], range(1, panels + 1))
    drawn = picture(tmp_path / "a.png")
    for edge in (drawn[0], drawn[-1], drawn[:, 0], drawn[:, -1]):
        assert (edge == 1).all()


def test_a_long_sentence_stays_a_picture_that_can_be_opened(tmp_path):
    pieces = ["▁word"] * 80
    weights = np.zeros((1, 4, 80, 80), np.float32)
    draw_attention(weights, pieces, pieces, "word " * 300, tmp_path / "long.png", [1], range(1, 5))
    assert max(picture(tmp_path / "long.png").shape) <= 8000


def test_cross_attention_has_a_row_for_each_piece_and_sums_to_one(workdir):
    attention = zoo.load(workdir).cross_attention("in 3 days")
    layers, heads, rows, columns = attention.weights.shape
    assert (layers, heads, rows, columns) == (2, 2, len(attention.target), len(attention.source))
    assert np.allclose(attention.weights.sum(-1), 1, atol=1e-5)


def test_curves_keep_the_splits_apart_and_pass_over_a_cut_line(tmp_path):
    records = [{"step": 1, "train/loss": 3.0, "valid/loss": 4.0}, {"step": 2, "train/loss": None}]
    lines = "\n".join(map(json.dumps, records)) + '\n{"step": 3, "tra'
    (tmp_path / "metrics.jsonl").write_text(lines, encoding="utf-8")
    curves = read_curves(tmp_path / "metrics.jsonl")
    assert curves["loss"]["valid"] == ([1], [4.0])
    assert curves["loss"]["train"][0] == [1, 2]
    assert np.isnan(curves["loss"]["train"][1][1])
    draw_curves({"a run": tmp_path / "metrics.jsonl"}, tmp_path / "curves.png")
    assert picture(tmp_path / "curves.png").size


def test_every_run_has_a_colour_of_its_own_in_one_picture(tmp_path):
    for name, losses in (("one", (3.0, 2.0)), ("two", (4.0, 1.0))):
        lines = [json.dumps({"step": step, "train/loss": loss, "valid/loss": loss}) for step, loss in enumerate(losses)]
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
    draw_curves({name: tmp_path / name for name in ("one", "two")}, tmp_path / "both.png")
    colours = {
        tuple(np.round(255 * pixel).astype(int)) for pixel in picture(tmp_path / "both.png")[:, :, :3].reshape(-1, 3)
    }
    assert {tuple(bytes.fromhex(colour[1:])) for colour in COLOURS[:2]} <= colours


def test_a_line_against_length_is_drawn_for_each_model(tmp_path):
    pictures = set()
    for values in ([30.0, 20.0], [30.0, 10.0]):
        lines = {"a $ b": [40.0, 35.0], "c": values}
        draw_by_length([(1, 3, 25), (4, 9, 1200)], lines, "en→de", "BLEU nrefs:1", tmp_path / "lengths.png")
        pictures.add((tmp_path / "lengths.png").read_bytes())
    assert len(pictures) == 2


def test_without_reports_there_are_no_curves(tmp_path):
    with pytest.raises(UserError, match=r"metrics\.jsonl"):
        read_curves(tmp_path / "metrics.jsonl")


def test_a_run_is_named_whatever_its_name(workdir, tmp_path, monkeypatch):
    names = ["_run", "$a$", "plain"]
    figures = []
    monkeypatch.setattr("zoo.plotting.pictures.save", lambda figure, path: figures.append(figure))
    draw_by_length([(1, 9, 3)], {name: [1.0] for name in names}, "title", "caption", tmp_path / "a.png")
    draw_curves(dict.fromkeys(names, workdir / "metrics.jsonl"), tmp_path / "b.png")
    legends = [figures[0].axes[0].get_legend(), *figures[1].legends]
    named = [[text.get_text() for text in legend.get_texts()] for legend in legends]
    assert named == [names, [*names, "train", "valid"]]
