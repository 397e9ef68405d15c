"""The zoo's tokenizers as `tokenizer.json`, which the library `tokenizers` reads."""

from jaxtyping import Int
from numpy import ndarray
from sentencepiece import sentencepiece_model_pb2 as spm
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Library

from zoo.data.specials import EOS, SPECIALS
from zoo.data.tokenizers import GPT1, GPT2, SHIFT, Bytes, Characters, SentencePiece, Tokenizer
from zoo.data.tokenizers.gpt1 import WORD
from zoo.data.tokenizers.gpt2 import BYTES
from zoo.errors import UserError

Rows = Int[ndarray, "W"]


def as_tokenizer_json(tokenizer: Tokenizer, rows: Rows) -> str:
    """The file's content. `rows` are the zoo's rows of all rows there; where the zoo's specials are not predicted, they
    are those of the published vocabulary.

    Raises UserError for a kind of tokenizer that the library cannot express.
    """
    for kind, write in WRITERS.items():
        if type(tokenizer) is kind:
            library = write(tokenizer, rows)
            special = [name for name in (*SPECIALS, "<|endoftext|>") if library.token_to_id(name) is not None]
            library.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in special])
            return library.to_str()
    raise UserError(f"--to=huggingface: a vocabulary of kind {type(tokenizer).__name__} has no form there")


def _bpe_ids(tokenizer: GPT1 | GPT2, rows: Rows) -> dict[str, int]:
    """{piece: row there}. Rows that stand for published ones have the names of those."""
    surfaces = [tokenizer.piece(row) for row in rows.tolist()]
    if len(rows) < tokenizer.size:
        published = tokenizer.size - SHIFT
        surfaces = [tokenizer.piece(i + SHIFT) if i < published else SPECIALS[EOS] for i in range(len(rows))]
    return {surface: i for i, surface in reversed(list(enumerate(surfaces)))}


def _gpt2(tokenizer: GPT2, rows: Rows) -> Library:
    library = Library(models.BPE(_bpe_ids(tokenizer, rows), tokenizer.pairs()))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    return library


def _gpt1(tokenizer: GPT1, rows: Rows) -> Library:
    ids = _bpe_ids(tokenizer, rows)
    library = Library(models.BPE(ids, tokenizer.pairs(), unk_token="<unk>", end_of_word_suffix=GPT1.END))
    library.normalizer = normalizers.Lowercase()
    library.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), "removed", invert=True)
    library.decoder = decoders.BPEDecoder(suffix=GPT1.END)
    return library


def _sentencepiece(tokenizer: SentencePiece, rows: Rows) -> Library:
    proto = spm.ModelProto.FromString(tokenizer.model())
    scored = [(piece.piece, piece.score) for piece in proto.pieces]
    fallback = proto.trainer_spec.byte_fallback
    if proto.trainer_spec.model_type == spm.TrainerSpec.UNIGRAM:
        library = Library(models.Unigram(scored, SPECIALS.index("<unk>"), fallback))
    else:
        ids = {piece: i for i, (piece, _) in enumerate(scored)}
        merges = _merges(dict(scored), ids)
        library = Library(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=fallback))
    spec, steps = proto.normalizer_spec, []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    library.normalizer = normalizers.Sequence(steps)
    scheme = "always" if spec.add_dummy_prefix else "never"
    library.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    library.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=scheme)])
    symbols = [p.piece for p in proto.pieces if p.type == spm.ModelProto.SentencePiece.USER_DEFINED]
    library.add_tokens([AddedToken(symbol, normalized=False) for symbol in symbols])
    return library


def _merges(scores: dict[str, float], ids: dict[str, int]) -> list[tuple[str, str]]:
    """The pairs that make the pieces of a BPE, best first: the library of SentencePiece keeps their scores alone."""
    found = []
    for piece, score in scores.items():
        splits = ((piece[:i], piece[i:]) for i in range(1, len(piece)))
        pairs = [pair for pair in splits if pair[0] in ids and pair[1] in ids]
        found += [(score, pair) for pair in sorted(pairs, key=lambda pair: (ids[pair[0]], ids[pair[1]]))]
    return [pair for _, pair in sorted(found, key=lambda item: -item[0])]


def _bytes(tokenizer: Bytes, rows: Rows) -> Library:
    ids = {name: i for i, name in enumerate(SPECIALS)} | {c: SHIFT + byte for c, byte in BYTES.items()}
    library = Library(models.BPE(ids, []))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    return library


def _characters(tokenizer: Characters, rows: Rows) -> Library:
    library = Library(models.WordLevel({tokenizer.piece(i): i for i in range(tokenizer.size)}, unk_token="<unk>"))
    library.pre_tokenizer = pre_tokenizers.Split(Regex("(?s)."), "isolated")
    library.decoder = decoders.Fuse()
    return library


WRITERS = {GPT1: _gpt1, GPT2: _gpt2, SentencePiece: _sentencepiece, Bytes: _bytes, Characters: _characters}
