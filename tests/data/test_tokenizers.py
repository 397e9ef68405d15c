"""Laws of the tokenizers, and the one line that each mistake of a user's earns."""

import itertools
import os
import pickle
import random
import re
import subprocess
import sys
import unicodedata
from io import BytesIO

import numpy as np
import pytest
import sentencepiece

from zoo.data import tokenizers
from zoo.data.tokenizers import BOS, EOS, PAD, SPECIALS, UNK, SentencePiece, WordVocabulary, base, subwords
from zoo.errors import UserError

KINDS = ("unigram", "bpe", "word")
SUBWORDS = ("unigram", "bpe")
SIZE = 120


def sentences(count=600, seed=0):
    """Sentences with capitals, accents, punctuation, numbers and signs, of words made up from syllables."""
    words, draw = random.Random(0), random.Random(seed)
    syllables = ["châ", "teau", "gar", "çon", "Stra", "ße", "naï", "cœu", "win", "dow", "tea", "Ü", "bung", "l'", "ing"]
    lexicon = ["".join(words.choices(syllables, k=words.randint(1, 4))) for _ in range(200)]
    ends = [".", " !", "?", "…", " »", ", 50 % off."]
    return [
        f"{' '.join(draw.choices(lexicon, k=3))} {draw.randint(0, 9999)} ½ “{draw.choice(lexicon)}”{draw.choice(ends)}"
        for _ in range(count)
    ]


LINES = sentences()


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    return tokenizers.train(request.param, LINES, SIZE)


def message(function, *arguments, **options):
    """The single line of the UserError that the call raises."""
    with pytest.raises(UserError) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_size_is_exact_and_every_id_is_below_it(tokenizer):
    ids = {i for line in tokenizer.encode(LINES) for i in line}
    assert tokenizer.size == SIZE
    assert max(ids) < SIZE


def test_the_ids_of_the_specials_are_the_same_everywhere(tokenizer):
    assert (PAD, BOS, EOS, UNK) == (0, 1, 2, 3)
    assert tokenizer.encode(["\u5b57"])[0][-1] == UNK
    # What looks like a special in the text is text, and never ends a sentence.
    assert not {PAD, BOS, EOS} & set(tokenizer.encode(["<pad> <s> </s>"])[0])


@pytest.mark.parametrize("kind", ["bytes", "characters"])
def test_bytes_and_characters_keep_every_text_as_it_stands(kind, tmp_path):
    texts = [*LINES[:50], "  a\n\n\tb c \r\n", "字🦓", ""]
    learned = tokenizers.train(kind, texts, 300)
    learned.save(tmp_path, "text")
    loaded = tokenizers.load(tmp_path, "text")
    ids = loaded.encode(texts)
    assert loaded.decode(ids) == texts and ids == learned.encode(texts) and loaded.size == learned.size
    assert loaded.decode([[BOS, *ids[0], PAD, EOS, *ids[1]]]) == [texts[0]]
    assert all(len(SPECIALS) <= i < loaded.size for row in ids for i in row)
    for line in texts:
        (row,) = loaded.encode([line])
        assert len(loaded.pieces(line)) == len(loaded.words(line)) == len(row)
        if kind == "characters":
            assert joined(loaded, line) == line.split()


def test_the_most_frequent_characters_are_kept_and_others_are_unk(tmp_path):
    few = tokenizers.train("characters", ["abbcc", "cbb"], len(SPECIALS) + 2)
    assert few.encode(["abc"]) == [[UNK, len(SPECIALS), len(SPECIALS) + 1]]
    assert few.decode(few.encode(["abc"])) == ["<unk>bc"]
    assert tokenizers.train("bytes", [], 5).size == 260
    assert "data.vocabulary=4" in message(tokenizers.train, "characters", ["a"], 4)
    (tmp_path / "text.characters").write_text('"aa"')
    assert "can't be read" in message(tokenizers.load, tmp_path, "text")
    (tmp_path / "text.characters").rename(tmp_path / "text.bytes")
    assert "can't be read" in message(tokenizers.load, tmp_path, "text")


@pytest.mark.parametrize("kind", SUBWORDS)
def test_subwords_survive_the_round_trip(kind):
    subwords = tokenizers.train(kind, LINES, SIZE)
    assert subwords.decode(subwords.encode(LINES)) == LINES
    unseen = sentences(50, seed=1)
    assert subwords.decode(subwords.encode(unseen)) == unseen
    assert UNK not in {i for line in subwords.encode(unseen) for i in line}


def test_known_words_survive_the_round_trip_and_others_are_unk():
    words = tokenizers.train("word", ["<unk> <unk> b a a", "<unk> <unk> c a b"], 6)
    assert words.encode(["a b c"]) == [[4, 5, UNK]]
    assert words.decode([[4, 5, UNK]]) == ["a b <unk>"]


def test_decoding_stops_at_eos_and_drops_padding(tokenizer):
    (ids,) = tokenizer.encode(LINES[:1])
    (text,) = tokenizer.decode([ids])
    rows = [[BOS, *ids, EOS, *ids], [PAD, BOS, *ids, EOS, PAD, PAD], ids, [EOS, *ids], []]
    assert tokenizer.decode(rows) == [text, text, text, "", ""]
    assert tokenizer.decode(np.array([[BOS, *ids, EOS]], np.int32)) == [text]


def test_a_batch_equals_its_lines_alone(tokenizer):
    assert tokenizer.encode(LINES[:40]) == [tokenizer.encode([line])[0] for line in LINES[:40]]
    assert tokenizer.encode([]) == [] and tokenizer.encode([""]) == [[]]
    assert tokenizer.decode([]) == [] and tokenizer.decode([[UNK]]) == ["<unk>"]


def test_pieces_and_words_align_with_the_ids(tokenizer):
    strange = ["", " ", "\u5b57\u5b57 a", "tea 12 \u5b57", "  tea   12  "]
    for line in LINES[:40] + strange:
        assert len(tokenizer.encode([line])[0]) == len(tokenizer.pieces(line))
        assert joined(tokenizer, line) == line.split()


def joined(tokenizer, line):
    """The pieces of each word, put together again."""
    words = [""] * len(line.split())
    for piece, word in zip(tokenizer.pieces(line), tokenizer.words(line), strict=True):
        words[word] += piece.replace("▁", "").strip()
    return words


@pytest.mark.parametrize("kind", SUBWORDS)
def test_digits_stand_apart(kind):
    pieces = tokenizers.train(kind, ["tea 2014", *LINES] * 9, SIZE).pieces("2014 tea 20142014")
    assert [piece.strip("▁") for piece in pieces if re.search(r"\d", piece)] == list("201420142014")


@pytest.mark.parametrize("kind", SUBWORDS)
def test_spellings_that_look_alike_are_one(kind):
    subwords = tokenizers.train(kind, LINES, SIZE)
    plain = "tea château wing 12 ½."
    for variant in (
        unicodedata.normalize("NFD", plain),
        plain.replace(" ", "\u00a0"),
        f" {plain}\t",
        "  ".join(plain.split()),
    ):
        assert subwords.encode([variant]) == subwords.encode([plain])


@pytest.mark.parametrize("kind", SUBWORDS)
def test_kept_white_space_and_bytes_lose_nothing(kind):
    lossless = tokenizers.train(kind, LINES, 330, alphabet=tokenizers.LOSSLESS)
    texts = ["  def f(x):\n\n\treturn  x \n", " ", "\n", "\u5b57 \u00a0 \U0001f600", "line\r\n", "a▁b ▁ ▁\n", ""]
    texts += ["".join(each) for each in itertools.product("▁\U0010fffc\U0010fffd", repeat=3)]
    assert lossless.decode(lossless.encode(texts)) == texts
    spaced = tokenizers.train(kind, LINES, SIZE, alphabet=tokenizers.Alphabet(keep_whitespace=True))
    for text in ("  tea  12\n\nwing \t tea ", "\ntea", "tea\twing\n"):
        assert spaced.decode(spaced.encode([text])) == [text]
        assert joined(spaced, text) == text.split()


@pytest.mark.parametrize("kind", KINDS)
def test_symbols_are_one_piece_each(kind):
    symbols = ["<2fr>", "a,b"]
    tokenizer = tokenizers.train(kind, LINES, SIZE, symbols=symbols)
    for symbol in symbols:
        ids, pieces = tokenizer.encode([f"{symbol} tea"])[0], tokenizer.pieces(f"{symbol} tea")
        assert pieces.count(symbol) == 1 and ids[pieces.index(symbol)] in (4, 5)
    again = tokenizers.train(kind, [f"{symbols[0]} {line}" for line in LINES], SIZE, symbols=symbols)
    assert again.size == SIZE and again.decode([range(4, SIZE)])[0].count(symbols[0]) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_deterministic(kind, tmp_path):
    options = {} if kind == "word" else {"sample": 100, "seed": 7}
    for name in "ab":
        tokenizers.train(kind, iter(LINES), 90, **options).save(tmp_path, name)
    first, second = sorted(tmp_path.iterdir())
    assert first.read_bytes() == second.read_bytes()
    if kind != "word":
        tokenizers.train(kind, LINES, 90, sample=100, seed=8).save(tmp_path, "c")
        assert (tmp_path / f"c{first.suffix}").read_bytes() != first.read_bytes()


@pytest.mark.parametrize("kind", SUBWORDS)
def test_the_number_of_cores_leaves_no_trace(kind, tmp_path, monkeypatch):
    for name, cores in (("a", 1), ("b", 5)):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        tokenizers.train(kind, LINES, SIZE).save(tmp_path, name)
    assert (tmp_path / "a.model").read_bytes() == (tmp_path / "b.model").read_bytes()


def test_a_sample_is_uniform_bounded_and_the_whole_when_it_fits():
    lines = [str(i) for i in range(200)]
    assert subwords._sample(lines, 200, 0) == lines
    counts = np.zeros(200)
    for seed in range(400):
        sample = subwords._sample(lines, 50, seed)
        assert len(set(sample)) == 50
        counts[[int(line) for line in sample]] += 1
    # Each count is binomial, 400 draws of 1/4: 100 ± 8.7.
    assert abs(counts[:50].mean() - 100) < 5 and abs(counts[150:].mean() - 100) < 5
    assert counts.min() > 60 and counts.max() < 140


@pytest.mark.parametrize("kind", SUBWORDS)
def test_a_long_line_is_not_dropped(kind):
    assert tokenizers.train(kind, [" ".join(LINES)], SIZE).size == SIZE


@pytest.mark.parametrize("kind", SUBWORDS)
def test_a_long_line_is_cut_where_it_makes_no_difference(kind, monkeypatch):
    few = LINES[:20]  # of thousands the library rounds a unigram model's sum of log-probabilities
    lines = ["  ".join(few) + " ", " ".join(few), "\t" + "\n".join(few), "", LINES[0]]
    for size, alphabet in ((150, tokenizers.Alphabet()), (400, tokenizers.LOSSLESS)):
        learned = tokenizers.train(kind, LINES, size, alphabet=alphabet)
        monkeypatch.setattr(base, "PART", 50)
        assert learned.encode(lines) == learned._model.encode(lines)


def test_saved_and_loaded_is_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "new" / "tokenizer", "source")
    assert len(list((tmp_path / "new" / "tokenizer").iterdir())) == 1
    loaded = tokenizers.load(tmp_path / "new" / "tokenizer", "source")
    assert type(loaded) is type(tokenizer) and loaded.size == tokenizer.size
    for other in (loaded, pickle.loads(pickle.dumps(tokenizer))):
        assert other.encode(LINES) == tokenizer.encode(LINES)
        assert other.decode(other.encode(LINES)) == tokenizer.decode(tokenizer.encode(LINES))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("asked", [1_000_000, 4, 3, 0])
def test_an_impossible_size_names_the_nearest_that_works(kind, asked):
    line = message(tokenizers.train, kind, LINES, asked)
    assert f"data.vocabulary={asked} is too {'large' if asked > SIZE else 'small'}" in line
    works = int(re.search(r"at (?:most|least) (\d+)$", line)[1])
    assert tokenizers.train(kind, LINES, works).size == works
    beyond = works + 1 if asked > SIZE else works - 1
    assert f"at {'most' if asked > SIZE else 'least'} {works}" in message(tokenizers.train, kind, LINES, beyond)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lines", [[], ["", "  "]])
def test_no_text_is_said(kind, lines):
    assert "text is empty" in message(tokenizers.train, kind, lines, SIZE)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_of_the_text_itself_comes_through(kind):
    def unequal():
        yield "a line"
        raise UserError("the files differ in length")

    assert message(tokenizers.train, kind, unequal(), SIZE) == "the files differ in length"


def test_an_unknown_kind_is_named():
    assert "did you mean 'unigram'?" in message(tokenizers.train, "unigramm", LINES, SIZE)


def test_a_missing_or_doubled_file_is_named(tmp_path):
    for kind, ending in {"word": "words", "bpe": "model", "unigram": "model"}.items():
        assert f"no tokenizer {tmp_path}/joint.{ending}:" in message(tokenizers.load, tmp_path, "joint", kind)
    for kind in ("word", "bpe"):
        tokenizers.train(kind, LINES, SIZE).save(tmp_path, "joint")
    assert "are all there" in message(tokenizers.load, tmp_path, "joint")


def test_a_damaged_or_foreign_file_is_named(tokenizer, tmp_path):
    tokenizer.save(tmp_path, "joint")
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for content in (b"", whole[:10], whole[: len(whole) // 2], whole[:-1], b"a line of text\n"):
        path.write_bytes(content)
        line = message(tokenizers.load, tmp_path, "joint")
        assert str(path) in line and "train again" in line


def test_a_model_with_other_specials_is_foreign(tmp_path):
    foreign = BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=foreign, vocab_size=SIZE, minloglevel=2
    )
    (tmp_path / "joint.model").write_bytes(foreign.getvalue())
    assert "its first pieces are <unk>, <s>, </s>" in message(tokenizers.load, tmp_path, "joint")
    (tmp_path / "joint.model").write_bytes(b"")
    assert "it is empty" in message(tokenizers.load, tmp_path, "joint")


def test_training_says_nothing():
    code = (
        "from zoo.data import tokenizers as t; lines = ['abc def ghi'] * 9; "
        "m = t.train('unigram', lines, 14); t.SentencePiece.load(m._model.serialized_model_proto()).encode(lines)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ}, check=True)
    assert done.stdout == done.stderr == ""


def test_the_classes_are_what_train_gives(tokenizer):
    assert isinstance(tokenizer, SentencePiece | WordVocabulary)
    first = tokenizer._words if isinstance(tokenizer, WordVocabulary) else map(tokenizer._model.id_to_piece, range(4))
    assert tuple(first)[:4] == SPECIALS
