"""CTranslate2 says of an exported model what the zoo says."""

import jax
import numpy as np
import pytest

from zoo.cli import main
from zoo.workdirs import load

ctranslate2 = pytest.importorskip("ctranslate2", reason="the counterpart of these tests: pip install 'seqzoo[hf]'")

KINDS = {
    "post": {},
    "pre, halves": {"norm": "pre", "positions": "halves", "activation": "gelu"},
    "learned, biased": {"positions": "learned", "attention_bias": "true", "activation": "swish"},
}


@pytest.fixture(scope="module", params=KINDS)
def trained(request, tmp_path_factory, pairs_in_files):
    """A translation model after two steps, its parameters at three times their size, so that hypotheses differ."""
    from conftest import TINY

    changes = TINY | {f"data.{split}": str(pairs_in_files) for split in ("train", "valid")}
    changes |= {"train.steps": "2", "decoding.length_penalty": "1.0", "decoding.normalization": "power"}
    changes |= {"model.output_bias": "true"}
    changes |= {f"model.{key}": value for key, value in KINDS[request.param].items()} | {"data.test": ""}
    directory = tmp_path_factory.mktemp("ct2") / "run"
    assert (
        main(["train", f"--workdir={directory}", *(f"--config.{key}={value}" for key, value in changes.items())]) == 0
    )
    run = load(directory)
    params = jax.tree.map(lambda x: 2.0 * x, run.params)
    # A likely end: a translation that reaches the limit ends without EOS there, and with EOS here.
    run._loaded = 2, params | {"output_bias": params["output_bias"].at[2].set(4.0)}
    return run


def translations(folder, run, lines, beams, **options):
    source, target = run.task.tokenizers
    engine = ctranslate2.Translator(str(folder), device="cpu", intra_threads=1, **options)
    limits = [min(len(ids) + run.experiment.decoding.max_extra, 12) for ids in source.encode(lines)]
    how = {"beam_size": beams, "length_penalty": 1.0, "min_decoding_length": 0}  # as the zoo, it may say nothing
    found = [
        engine.translate_batch([source.pieces(line)], max_decoding_length=limit, **how)[0]
        for line, limit in zip(lines, limits, strict=True)
    ]
    return [[target_row(target, piece) for piece in result.hypotheses[0]] for result in found]


def target_row(tokenizer, piece):
    return next(row for row in range(tokenizer.size) if tokenizer.piece(row) == piece)


@pytest.mark.parametrize("beams", [1, 4])
def test_an_exported_transformer_translates_as_the_zoo_does(trained, tmp_path, beams):
    lines = [f"in {n} days" for n in (3, 14, 25, 39)]
    changed = load(trained.path, changes=[("decoding.beam_size", str(beams))])
    changed._loaded = trained._loaded
    ours = [best[0].tokens for best in changed.translator()(lines)]
    theirs = translations(changed.save(tmp_path / "out", "ctranslate2"), trained, lines, beams)
    # At the limit of its length a translation ends with EOS here, and without it there: scores differ then.
    whole = [pair for pair in zip(ours, theirs, strict=True) if max(map(len, pair)) < 8]
    assert whole and all(one == other for one, other in whole)


def test_int8_is_smaller_and_close(trained, tmp_path):
    whole = trained.save(tmp_path / "whole", "ctranslate2")
    small = trained.save(tmp_path / "small", "ctranslate2", "int8")
    assert (small / "model.bin").stat().st_size < 0.8 * (whole / "model.bin").stat().st_size
    assert translations(small, trained, ["in 3 days"], 1)


def test_an_exported_gpt_continues_as_the_zoo_does(tmp_path):
    from foreign_models import TEXT, gpt2_folder

    run = load(
        gpt2_folder(tmp_path / "gpt2"), changes=[("decoding.temperature", "0"), ("decoding.max_new_tokens", "8")]
    )
    engine = ctranslate2.Generator(str(run.save(tmp_path / "out", "ctranslate2")), device="cpu", intra_threads=1)
    tokenizer = run.task.tokenizer
    prompt = tokenizer.encode([TEXT])[0]
    pieces = [tokenizer.piece(row) for row in prompt]
    (found,) = engine.generate_batch(
        [pieces], max_length=8, beam_size=1, sampling_topk=1, include_prompt_in_result=False
    )
    ids = [row if row != 2 else 2 for row in found.sequences_ids[0]]
    assert run.generate([TEXT]) == tokenizer.decode([np.array(ids)])
