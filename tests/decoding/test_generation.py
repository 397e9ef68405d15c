"""The laws of generation: each token drawn from what the whole text before it predicts, whatever is beside it."""

from dataclasses import replace
from itertools import pairwise

import jax
import numpy as np
import pytest
from flax import linen as nn

from zoo.data.batches.base import LanguageBatch
from zoo.data.tokenizers import EOS, SPECIALS, Bytes
from zoo.decoding import generation
from zoo.decoding.generation import NEVER_SAID, GenerationConfig, Generator
from zoo.decoding.sampling import HOTTEST
from zoo.errors import UserError
from zoo.models.gpt import GPT, GPTConfig

MODEL = GPT(
    GPTConfig(
        vocabulary=Bytes().size,
        layers=2,
        width=16,
        ffn=32,
        heads=2,
        max_length=16,
        dropout=0.0,
        attention_dropout=0.0,
        norm="pre",
    )
)
GREEDY = GenerationConfig(temperature=0, max_new_tokens=6)
PROMPTS = ["ab", "b", "cdefg"]


@pytest.fixture(scope="module")
def params():
    """Never trained, at several times their size, so that predictions differ; EOS is never likely."""
    made = jax.jit(lambda: nn.unbox(MODEL.init(jax.random.key(0), LanguageBatch.example())))()["params"]
    made = jax.tree.map(lambda x: 8 * x, made)
    table = made["embedding"]["table"]
    return {**made, "embedding": {"table": table.at[EOS].set(0)}}


def generator(params, config=GREEDY, **start):
    return Generator(MODEL, params, Bytes(), config, **start)


def ids_of(prompts):
    return [[1, *row] for row in Bytes().encode(prompts)]


@pytest.fixture(scope="module")
def logits(params):
    """The logits behind a text of at most 16 ids, by the full forward pass."""
    forward = jax.jit(lambda inputs: MODEL.apply({"params": params}, LanguageBatch(inputs, inputs)).logits)

    def last(ids):
        inputs = np.zeros((1, 16), np.int32)
        inputs[0, : len(ids)] = ids
        found = np.array(forward(inputs)[0, len(ids) - 1])
        found[list(NEVER_SAID)] = -np.inf
        return found

    return last


@pytest.mark.smoke
def test_without_temperature_each_token_is_the_most_likely_behind_the_whole_text(params, logits):
    for prompt, new in zip(ids_of(PROMPTS), generator(params).continuations(ids_of(PROMPTS)), strict=True):
        assert len(new) == 6
        for t, token in enumerate(new):
            assert token == logits(prompt + new[:t]).argmax()


def test_beyond_the_context_each_text_continues_from_its_own_last_half_or_more(params, logits):
    prompts, most = ids_of(["ab", "0123456789", "long" * 6]), 20
    for prompt, new in zip(
        prompts, generator(params, replace(GREEDY, max_new_tokens=most)).continuations(prompts), strict=True
    ):
        text, first = list(prompt), 0
        for _ in range(most):
            if len(text) - first >= 16:  # it is full: room for half of it
                first = len(text) - 8
            text.append(logits(text[first:]).argmax())
        assert new == text[len(prompt) :]


def test_a_larger_limit_does_not_change_the_beginning(params):
    """Within the context, past it, and for prompts that fill it."""
    prompts = ids_of(["ab", "0123456789abc", "long" * 6])
    whole = generator(params, replace(GREEDY, max_new_tokens=24)).continuations(prompts)
    for most in (1, 2, 3, 8, 13, 14, 20):
        first = generator(params, replace(GREEDY, max_new_tokens=most)).continuations(prompts)
        assert first == [row[:most] for row in whole]


def test_a_row_draws_the_same_alone_and_among_others(params):
    drawing = generator(params, GenerationConfig(temperature=1.5, top_k=50, max_new_tokens=6))
    together = drawing.continuations(ids_of(PROMPTS), seed=3)
    assert drawing.continuations(ids_of(PROMPTS[:1]), seed=3) == together[:1]
    assert drawing.continuations(ids_of(PROMPTS), seed=4) != together
    same = drawing.continuations(ids_of(["ab", "ab"]), seed=3)
    assert same[0] == together[0] and same[0] != same[1]


def grown(params, monkeypatch, piece, stops=()):
    """What is shown of each prompt's continuation, again and again, where one looks every `piece` tokens."""
    monkeypatch.setattr(generation, "PIECE", piece)
    drawing = generator(params, GenerationConfig(temperature=0.7, max_new_tokens=24))
    return list(zip(*drawing.stream(PROMPTS, 3, stops), strict=True))


def test_a_text_that_is_shown_while_it_is_made_is_the_whole_one_however_often_one_looks(params, monkeypatch):
    often, seldom = grown(params, monkeypatch, 1), grown(params, monkeypatch, 7)
    assert [shown[-1] for shown in often] == [shown[-1] for shown in seldom]
    assert {shown[-1].ended for shown in often} == {"length"}
    for shown in often:
        assert len({continuation.text for continuation in shown}) > 3
        assert all(after.text.startswith(before.text) for before, after in pairwise(shown))


def test_a_text_ends_before_the_stop_string_that_is_complete_first_and_shows_none_of_it(params, monkeypatch):
    plain = [shown[-1].text for shown in grown(params, monkeypatch, 7)]
    whole, other = plain[0], plain[2]
    stop, longer, part = whole[6:9], whole[5:12], other[3:5]  # each token is a byte
    assert len(whole) > 12 and whole.find(stop) == 6 and whole.find(longer) == 5
    expected = [text[: min(at for at in (text.find(stop), text.find(part), len(text)) if at >= 0)] for text in plain]
    for piece in (1, 7):
        ended = grown(params, monkeypatch, piece, [longer, stop, part])
        assert [shown[-1].text for shown in ended] == expected
        assert [ended[0][-1].ended, ended[2][-1].ended] == ["stop", "stop"]
        assert all(text.startswith(each.text) for text, shown in zip(expected, ended, strict=True) for each in shown)


def test_stop_strings_end_the_work_too(params, monkeypatch):
    whole = grown(params, monkeypatch, 1)
    ended = grown(params, monkeypatch, 1, [shown[-1].text[2:4] for shown in whole])
    assert [len(shown) for shown in whole] == [1 + 24] * 3 and all(len(shown) < 12 for shown in ended)


def test_an_end_of_the_text_ends_it_and_no_other(params):
    rows = ids_of(PROMPTS)
    before = generator(params).continuations(rows)
    # The positions of the first prompt's third step make EOS likely there and nowhere else.
    table = params["embedding"]["table"]
    state = MODEL.apply({"params": params}, LanguageBatch(*2 * (np.array([rows[0] + before[0][:2]]),))).readout.states
    ending = {**params, "embedding": {"table": table.at[EOS].set(20 * state[0, -1])}}
    after = generator(ending).continuations(rows)
    assert len(after[0]) <= 2 and after[0] == before[0][: len(after[0])]
    assert all(EOS not in row for row in after)


def test_what_was_said_is_not_said_again_under_a_penalty(params):
    (prompt,) = ids_of(["ab"])
    config = replace(GREEDY, max_new_tokens=12)
    (plain,) = generator(params, config).continuations([prompt])
    (penalized,) = generator(params, replace(config, repetition_penalty=1e6)).continuations([prompt])
    assert len(set(plain)) < 12
    assert len(set(penalized)) == 12 and not set(prompt) & set(penalized)


def test_specials_are_never_said(params):
    drawing = generator(params, GenerationConfig(temperature=HOTTEST, max_new_tokens=10))
    assert all(token >= len(SPECIALS) for row in drawing.continuations(ids_of(PROMPTS * 5)) for token in row)


def test_the_text_is_what_follows_the_prompt(params):
    (new,) = generator(params).continuations(ids_of(["ab"]))
    assert generator(params)(["ab"]) == Bytes().decode([new])
    (new,) = generator(params).continuations([[EOS]])
    assert generator(params, blank=(EOS,))([""]) == Bytes().decode([new])


@pytest.mark.parametrize("wrong", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}])
def test_a_config_that_cannot_be_is_one_line(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        GenerationConfig(**wrong)
