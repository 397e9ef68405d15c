"""The laws of published BPEs: OpenAI's ids four rows on, texts encoded by their words, and no text lost by bytes."""

import json
import pickle
import random
import sys
import unicodedata

import ftfy
import pytest

from zoo.data import tokenizers
from zoo.data.tokenizers import BOS, EOS, PAD, SHIFT, UNK, gpt1, gpt2
from zoo.errors import UserError

MERGES = {
    "gpt1": [
        "t h",
        "th e</w>",
        "c a",
        "ca t</w>",
        "o n</w>",
        "' t</w>",
        "n 't</w>",
        "d o</w>",
        ". .",
        ".. .</w>",
        "- -</w>",
    ],
    "gpt2": ["t h", "th e", "Ġ the", "c a", "ca t", "Ġ cat", "Ġ Ġ", "Ã ©", "' s"],
}


def pieces(kind):
    """As the published vocabularies are ordered: bytes or characters, what is merged, and the special."""
    merged = [merge.replace(" ", "") for merge in MERGES[kind]]
    if kind == "gpt2":
        return [*sorted(gpt2.BYTES), *merged, "<|endoftext|>"]
    letters = "abcdefghijklmnopqrstuvwxyz.,'\"-!?0123456789é&½"
    return ["<unk>", *letters, *(f"{letter}</w>" for letter in letters), *merged, "\n</w>"]


@pytest.fixture(params=["gpt1", "gpt2"])
def kind(request, monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    monkeypatch.setattr(gpt1.importlib.util, "find_spec", lambda name: None)
    return request.param


@pytest.fixture
def directory(kind, tmp_path):
    """The files as OpenAI names them for GPT-1, as Hugging Face does for GPT-2."""
    vocabulary, merges = {"gpt1": ("encoder_bpe_40000.json", "vocab_40000.bpe"), "gpt2": ("vocab.json", "merges.txt")}[
        kind
    ]
    (tmp_path / vocabulary).write_text(json.dumps({piece: i for i, piece in enumerate(pieces(kind))}))
    (tmp_path / merges).write_text("\n".join(["#version: 0.2", *MERGES[kind], ""]), encoding="utf-8")
    return tmp_path


@pytest.fixture
def tokenizer(kind, directory):
    return tokenizers.published(kind, directory)


TEXT = "“The cat,” don't... on\tthé—cat--?\n\n \nThe 1st &amp; the's  "
SPLIT = {
    "gpt1": (
        *('"', "the", "cat", ",", '"', "do", "n't", "...", "on", "th", "é", "-", "cat", "--", "?", "\n"),
        *("the", "1", "s", "t", "&", "the", "'", "s"),
    ),
    "gpt2": ("the", "▁cat", "'s", "é", "▁the", "\n", "\n", "▁▁", "▁"),
}


def test_a_published_id_stands_four_rows_on(kind, tokenizer):
    text, split = (TEXT, SPLIT[kind]) if kind == "gpt1" else ("the cat'sé the\n\n   ", SPLIT[kind])
    assert tokenizer.pieces(text) == list(split)
    order = {piece: i for i, piece in enumerate(pieces(kind))}
    word, published = ("cat", order["cat</w>"]) if kind == "gpt1" else (" cat", order["Ġcat"])
    assert tokenizer.encode([word]) == [[published + SHIFT]]
    assert tokenizer.size == len(order) + SHIFT


def test_what_looks_like_a_special_is_text(tokenizer):
    for text in ("<pad> <s> </s>", "<unk>", "<|endoftext|>", "</w>"):
        (ids,) = tokenizer.encode([text])
        assert not {PAD, BOS, EOS} & set(ids) and tokenizer.size - 1 not in ids


def test_decoding_stops_at_eos_and_drops_padding(tokenizer):
    (ids,) = tokenizer.encode(["the cat"])
    assert tokenizer.decode([[BOS, *ids, PAD, EOS, *ids], ids, []]) == ["the cat", "the cat", ""]
    assert tokenizer.encode([]) == tokenizer.decode([]) == [] and tokenizer.encode([""]) == [[]]


def test_saved_loaded_and_pickled_are_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "run", "text")
    assert len(list((tmp_path / "run").iterdir())) == 1
    for other in (tokenizers.load(tmp_path / "run", "text"), pickle.loads(pickle.dumps(tokenizer))):
        assert (
            other == tokenizer and hash(other) == hash(tokenizer) and other.encode([TEXT]) == tokenizer.encode([TEXT])
        )
    (path,) = (tmp_path / "run").iterdir()
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], whole[:-1], b"[]", b"{}"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="can't be read"):
            tokenizers.load(tmp_path / "run", "text")


def some_text(seed):
    """Any Unicode but surrogates, which are no text; runs of white space and letters more often than chance has it."""
    draw = random.Random(seed)
    often = ["the ", " cat", "'s", "  ", "\n", "\t", " ", "<|endoftext|>", "1", "é", "字", "🦓", "e\u0301", "\u2028"]

    def one():
        code = draw.choice([draw.randrange(0x80), draw.randrange(0x3000), draw.randrange(0x110000)])
        return "" if 0xD800 <= code < 0xE000 else chr(code)

    return "".join(draw.choice(often) if draw.random() < 0.5 else one() for _ in range(draw.randrange(25)))


@pytest.fixture(scope="module")
def any_lines():
    return [some_text(seed) for seed in range(10_000)]


@pytest.mark.parametrize("name", ["bytes", "bpe", "gpt2"])
@pytest.mark.parametrize("kind", ["gpt2"], indirect=True)
def test_any_unicode_survives_the_round_trip_in_bytes(name, tokenizer, any_lines):
    lines = any_lines
    if name != "gpt2":
        options = {"alphabet": tokenizers.LOSSLESS} if name == "bpe" else {}
        tokenizer = tokenizers.train(name, ["the cat and the cats"] * 9, 290, **options)
    if name == "bpe":  # which writes canonical compositions, and ▁ for spaces
        lines = [unicodedata.normalize("NFC", line).replace("▁", "") for line in lines if "\0" not in line]
        lines = [line for line in lines if tokenizer._model.normalize(line).replace("▁", " ").removeprefix(" ") == line]
        assert len(lines) > 5000
    assert tokenizer.decode(tokenizer.encode(lines)) == lines
    assert not any(UNK in row for row in tokenizer.encode(lines))


@pytest.mark.parametrize("kind", ["gpt2"], indirect=True)
def test_the_words_of_a_text_alone_have_the_ids_that_the_whole_text_has(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizers.base, "PART", 5)
    for seed in range(500):
        text = some_text(seed)
        assert tokenizer.encode([text]) == tokenizer._encode([text])


@pytest.mark.parametrize("kind", ["gpt1"], indirect=True)
def test_only_lines_that_ftfy_leaves_as_they_are_pass_it_by(tokenizer):
    draw = random.Random(0)
    signs = [
        "‘",
        "’",
        "“",
        "”",
        "–",
        "—",
        "…",
        "a",
        "é",
        "Ã©",
        "â€™",
        "&lt;",
        "&",
        "<b>",
        "\n",
        "\r",
        " ",
        "\x07",
        "\t",
        "ﬁ",
    ]
    for _ in range(2000):
        text = "".join(draw.choices(signs, k=9))
        mended, expected = (text.translate(gpt1.ALIKE).strip() for text in (gpt1._mended(text), ftfy.fix_text(text)))
        assert mended == expected


def test_a_memory_that_is_full_begins_again(kind, tokenizer, monkeypatch):
    texts = [TEXT, "the cat", "a" * 50, TEXT, "cat the"]
    expected = tokenizer.encode(texts)
    monkeypatch.setattr(tokenizers.base.WordMemory, "MOST", 3)
    tokenizer._memory._known.clear()
    assert tokenizer.encode(texts) == expected
    tokenizer.encode(texts[:1])
    assert not tokenizer._memory._known


def test_pieces_and_words_align_with_the_ids(tokenizer):
    for line in ("the cat's é", "  the  cat ", ""):
        pieces, words = tokenizer.pieces(line), tokenizer.words(line)
        assert len(pieces) == len(words) == len(tokenizer.encode([line])[0])
        joined = [""] * len(line.split())
        for piece, word in zip(pieces, words, strict=True):
            joined[word] += piece.replace("▁", "")
        assert [word.replace("\\xc3\\xa9", "é") for word in joined] == line.split()


@pytest.mark.parametrize("kind", ["gpt1"], indirect=True)
def test_without_spacy_one_line_says_that_words_differ_and_with_it_they_must_be_spacys(kind, directory, caplog):
    made = tokenizers.published(kind, directory)
    assert [record.message for record in caplog.records if "spaCy is not installed" in record.message]
    caplog.clear()
    pickle.loads(pickle.dumps(made)).encode(["the cat"])
    assert not caplog.records
    made.splitter = "spacy"
    with pytest.raises(UserError, match=r"pip install 'seqzoo\[spacy\]'"):
        type(made).load(made.content())


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda vocabulary, merges: vocabulary.unlink(), "vocabulary_files=.* holds no"),
        (lambda vocabulary, merges: merges.unlink(), "vocabulary_files=.* holds no"),
        (lambda vocabulary, merges: vocabulary.write_bytes(vocabulary.read_bytes()[:-9]), "truncated"),
        (lambda vocabulary, merges: merges.write_bytes(merges.read_bytes()[:-3]), "truncated"),
        (lambda vocabulary, merges: merges.write_bytes(b"#version: 0.2\nt h\n"), "truncated.*made by no merge"),
        (lambda vocabulary, merges: vocabulary.write_text('{"a": 0, "b": 2}'), "number its pieces from 0"),
        (lambda vocabulary, merges: vocabulary.write_text('{"a": 0, "b</w>": 1}'), "truncated or not of gpt"),
        (lambda vocabulary, merges: vocabulary.write_bytes(b"\xff\xfe"), "not UTF-8"),
    ],
)
def test_files_that_are_not_right_are_one_line(kind, directory, spoil, told):
    spoil(*sorted(directory.iterdir(), key=lambda path: path.suffix != ".json"))
    with pytest.raises(UserError, match=told) as error:
        tokenizers.published(kind, directory)
    assert "\n" not in str(error.value)


def test_a_directory_that_is_not_named_is_asked_for(kind):
    with pytest.raises(UserError, match="vocabulary_files is not set: name the directory that holds"):
        tokenizers.published(kind, "")
