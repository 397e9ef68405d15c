"""The laws of beam search: greedy with one beam, exact with enough, and rows that never see each other."""

import itertools
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.data.batches.base import Seq2SeqBatch
from zoo.data.tokenizers import BOS, EOS, PAD, UNK
from zoo.decoding.beam import NEVER, BeamConfig, Request, beam_search, best_tokens, normalizer, stages
from zoo.errors import UserError

LENGTH = 8
SOURCE = np.array(
    [[5, 6, 7, EOS, 0, 0], [9, EOS, 0, 0, 0, 0], [4, 13, 4, 8, 12, EOS], [10, 11, EOS, 0, 0, 0]], np.int32
)
LIMITS = np.array([7, 5, 7, 2], np.int32)
REQUEST = Request(SOURCE, LIMITS, LENGTH)
FOUR = BeamConfig(beam_size=4)


class Table:
    """A model that is a table of log-probabilities: `params[source's first id - 1, history, token]`, the history being
    the tokens from BOS on as digits of a number."""

    vocabulary = 6

    def apply(self, variables, *arguments, method):
        return getattr(self, method)(variables["params"], *arguments)

    def prefill(self, table, source, length, beams):
        return {"source": source, "history": jnp.zeros((len(source), beams), jnp.int32)}

    def decode_step(self, table, cache, tokens):
        history = cache["history"] * self.vocabulary + tokens
        looked = jnp.broadcast_to(cache["source"][:, None] * 1.0, (*tokens.shape, cache["source"].shape[1]))
        return cache | {"history": history}, table[cache["source"][:, :1] - 1, history], looked

    def grow(self, table, cache, more):
        return cache

    def reorder(self, table, cache, parents):
        return cache | {"history": jnp.take_along_axis(cache["history"], parents, axis=1)}


TABLE = Table()
ENTRIES = np.random.default_rng(0).normal(size=(3, 6**4, 6)).astype(np.float32) * 2
LOG_PROBS = np.asarray(jax.nn.log_softmax(ENTRIES))


def every_hypothesis(row, alpha, shortest, longest):
    """All translations and their scores, best first, by enumeration."""
    scored = []
    for size in range(shortest, longest + 1):
        for words in itertools.product((UNK, 4, 5), repeat=size):
            history, total = BOS, 0.0
            for token in (*words, EOS):
                total += LOG_PROBS[row, history, token]
                history = history * 6 + token
            scored.append((total / ((5 + size + 1) / 6) ** alpha, [*words, EOS]))
    return sorted(scored, reverse=True)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.5])
@pytest.mark.parametrize("shortest", [0, 2])
def test_with_enough_beams_every_hypothesis_is_found_in_order(alpha, shortest):
    config = BeamConfig(beam_size=40, length_penalty=alpha, min_length=shortest)
    limits = np.array([3, 2, 3])
    found = beam_search(TABLE, ENTRIES, Request(np.array([[1], [2], [3]]), limits, 4), config)
    for row, longest in enumerate(limits):
        assert_found(found, row, every_hypothesis(row, alpha, shortest, longest))


def assert_found(found, row, expected):
    """All of `expected` in their order, and nothing else."""
    n = len(expected)
    np.testing.assert_allclose(found.scores[row, :n], [score for score, _ in expected], rtol=1e-5)
    assert [[t for t in h if t != PAD] for h in found.tokens[row, :n].tolist()] == [words for _, words in expected]
    assert (found.scores[row, n:] <= NEVER / 2).all()


def test_a_prefix_leaves_those_that_begin_with_it_at_their_own_scores():
    prefixes = [[5, UNK], [], [4]]
    prefix = np.array([[*forced, *[PAD] * (4 - len(forced))] for forced in prefixes])
    config = BeamConfig(beam_size=40, forbid_unknown=True)
    found = beam_search(TABLE, ENTRIES, Request(np.array([[1], [2], [3]]), np.full(3, 3), 4, prefix), config)
    for row, forced in enumerate(prefixes):
        every = every_hypothesis(row, 0.6, 0, 3)
        begun = [(s, words) for s, words in every if words[: len(forced)] == forced and UNK not in words[len(forced) :]]
        assert_found(found, row, begun)


def test_the_beginning_of_the_greedy_translation_changes_nothing_as_a_prefix(wild):
    greedy = np.asarray(beam_search(*wild, REQUEST, BeamConfig(beam_size=1)).tokens)[:, 0]
    whole = np.where(greedy == EOS, PAD, greedy)
    half = np.where(np.arange(LENGTH) < (whole != PAD).sum(axis=1, keepdims=True) // 2, whole, PAD)
    again = beam_search(*wild, REQUEST.replace(prefix=half), BeamConfig(beam_size=1))
    assert (np.asarray(again.tokens)[:, 0] == greedy).all()


@pytest.mark.parametrize("beams", [1, 2, 3])
def test_no_beam_finds_more_than_there_is(beams):
    """A narrow beam may miss the best; what it gives is among all hypotheses, at its own score."""
    found = beam_search(
        TABLE, ENTRIES, Request(np.array([[1], [2], [3]]), np.full(3, 3), 4), BeamConfig(beam_size=beams)
    )
    for row in range(3):
        scores = {tuple(words): score for score, words in every_hypothesis(row, 0.6, 0, 3)}
        for tokens, score in zip(found.tokens[row].tolist(), found.scores[row], strict=True):
            assert scores[tuple(t for t in tokens if t != PAD)] == pytest.approx(float(score), rel=1e-5)


def test_a_row_that_has_ended_takes_no_more_while_others_continue():
    """With a penalty that prefers long ones, what other rows' further steps would bring is better: it is not taken."""
    tables = np.random.default_rng(1).normal(size=(16, 6**4, 6)).astype(np.float32)
    config = BeamConfig(beam_size=2, length_penalty=3.0)
    rows = np.arange(1, 17)[:, None]
    together = jax.device_get(beam_search(TABLE, tables, Request(rows, np.full(16, 3), 4), config))
    for row in range(16):
        alone = jax.device_get(beam_search(TABLE, tables, Request(rows[row : row + 1], np.array([3]), 4), config))
        assert (together.tokens[row] == alone.tokens[0]).all()
        np.testing.assert_allclose(together.scores[row], alone.scores[0], rtol=1e-5)


def test_the_length_penalty_is_gnmts():
    """Wu et al. 2016, eq. 14."""
    for length, penalty, expected in ((1, 0.6, 1), (7, 1.0, 2), (19, 0.5, 2), (50, 0.0, 1)):
        assert normalizer(jnp.int32(length), BeamConfig(length_penalty=penalty)) == expected


@pytest.fixture(scope="module")
def forward(wild):
    """The whole pass over any targets of `SOURCE`'s rows, padded to one shape; logits and attention."""
    model, params = wild
    run = jax.jit(
        lambda source, inputs: model.apply({"params": params}, Seq2SeqBatch(source, inputs, inputs), weights=True)
    )

    def padded(source, histories):
        inputs = np.zeros((4, LENGTH), np.int32)
        for row, history in enumerate(histories):
            inputs[row, : len(history) + 1] = [BOS, *history]
        return run(source, inputs)

    return padded


@pytest.fixture(scope="module")
def found(wild):
    return jax.device_get(beam_search(*wild, REQUEST, FOUR, keep_attention=True))


def until_eos(tokens):
    """The tokens up to EOS, which must be there, with nothing but padding behind."""
    tokens = tokens.tolist()
    end = tokens.index(EOS)
    assert set(tokens[end + 1 :]) <= {PAD} and not {PAD, BOS} & set(tokens[:end])
    return tokens[: end + 1]


@pytest.mark.smoke
def test_one_beam_is_greedy_search(wild, forward):
    found = beam_search(*wild, REQUEST, BeamConfig(beam_size=1))
    histories = [[] for _ in SOURCE]
    for t in range(LENGTH):
        logits = np.array(forward(SOURCE, histories).logits[:, t])
        logits[:, [PAD, BOS]] = -np.inf
        for row, history in enumerate(histories):
            if EOS not in history:
                history.append(EOS if t == LIMITS[row] else int(logits[row].argmax()))
        if all(EOS in h for h in histories):
            break
    assert [until_eos(tokens[0]) for tokens in np.asarray(found.tokens)] == histories


def test_the_best_are_in_order_and_differ(found):
    assert (np.diff(found.scores, axis=1) <= 0).all()
    for row in found.tokens:
        assert len({tuple(until_eos(tokens)) for tokens in row}) == FOUR.beam_size


@pytest.mark.parametrize("beam", range(4))
def test_a_score_is_the_normalized_log_probability_by_teacher_forcing(found, forward, beam):
    hypotheses = [until_eos(tokens) for tokens in found.tokens[:, beam]]
    log_probs = jax.nn.log_softmax(forward(SOURCE, [h[:-1] for h in hypotheses]).logits)
    for row, hypothesis in enumerate(hypotheses):
        total = sum(float(log_probs[row, t, token]) for t, token in enumerate(hypothesis))
        expected = total / ((5 + len(hypothesis)) / 6) ** 0.6
        assert found.scores[row, beam] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("beam", range(4))
def test_attention_is_that_of_the_full_pass_and_sums_to_one(found, forward, beam):
    hypotheses = [until_eos(tokens) for tokens in found.tokens[:, beam]]
    cross = forward(SOURCE, [h[:-1] for h in hypotheses]).attention["cross"][0].mean(axis=1)
    for row, hypothesis in enumerate(hypotheses):
        looked = found.attention[row, beam, : len(hypothesis)]
        np.testing.assert_allclose(looked, cross[row, : len(hypothesis)], atol=3e-5)
        np.testing.assert_allclose(looked.sum(axis=-1), 1, atol=1e-5)
        assert (looked[:, SOURCE[row] == PAD] == 0).all()


def test_the_coverage_penalty_is_gnmts(wild, forward):
    """Wu et al. 2016, eq. 14, with the attention of all target tokens, to the words of the source alone."""
    config = BeamConfig(beam_size=4, coverage_penalty=0.8)
    found = jax.device_get(beam_search(*wild, REQUEST, config, keep_attention=True))
    assert (np.diff(found.scores, axis=1) <= 0).all()
    hypotheses, penalties = [until_eos(tokens) for tokens in found.tokens[:, 0]], []
    log_probs = jax.nn.log_softmax(forward(SOURCE, [h[:-1] for h in hypotheses]).logits)
    for row, hypothesis in enumerate(hypotheses):
        total = sum(float(log_probs[row, t, token]) for t, token in enumerate(hypothesis))
        words = SOURCE[row].tolist().index(EOS)
        looked = found.attention[row, 0, : len(hypothesis), :words].sum(axis=0)
        penalties.append(0.8 * np.log(np.minimum(looked, 1)).sum())
        normalized = total / ((5 + len(hypothesis)) / 6) ** 0.6
        assert found.scores[row, 0] == pytest.approx(normalized + penalties[-1], rel=1e-4)
    assert min(penalties) < -1e-3


def test_attention_is_kept_only_on_request(wild, found):
    quiet = beam_search(*wild, REQUEST, FOUR)
    assert quiet.attention is None
    assert (quiet.tokens == found.tokens).all()


def in_another_order(source, limits):
    order = np.array([2, 0, 3, 1])
    return source[order], limits[order], order


def with_more_padding(source, limits):
    return np.pad(source, ((0, 3), (0, 5))), np.pad(limits, (0, 3)), np.arange(4)


def alone(source, limits):
    return source[3:, :3], limits[3:], np.array([3])


@pytest.mark.parametrize("change", [in_another_order, with_more_padding, alone])
def test_the_batch_never_changes_a_rows_result(wild, found, change):
    source, limits, rows = change(SOURCE, LIMITS)
    again = jax.device_get(beam_search(*wild, Request(source, limits, LENGTH), FOUR))
    for new, old in enumerate(rows):
        assert (again.tokens[new] == found.tokens[old]).all()
        np.testing.assert_allclose(again.scores[new], found.scores[old], rtol=1e-4)


def test_room_that_is_not_used_changes_nothing(wild, found):
    roomy = jax.device_get(beam_search(*wild, Request(SOURCE, LIMITS, LENGTH + 6), FOUR))
    assert (roomy.tokens[:, :, :LENGTH] == found.tokens).all() and (roomy.tokens[:, :, LENGTH:] == PAD).all()


def test_a_search_in_stages_finds_what_one_loop_finds(wild, found, monkeypatch):
    monkeypatch.setattr("zoo.decoding.beam.SHORTEST_STAGE", 3)
    assert stages(LENGTH) == [2, 4, 8]
    staged = jax.device_get(beam_search(*wild, REQUEST, FOUR, keep_attention=True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), staged, found)


@pytest.mark.parametrize("vocabulary", [300, 256, 100])
def test_the_best_tokens_are_those_of_a_stable_sort(vocabulary):
    """With many equal logits, and rows in which fewer may come than are asked for."""
    random = np.random.default_rng(0)
    logits = random.integers(0, 4, (2, 3, vocabulary)).astype(np.float32)
    may = np.stack([random.random((1, vocabulary)) < 0.8, np.arange(vocabulary)[None] == vocabulary - 1])
    best, tokens = best_tokens(jnp.asarray(logits), jnp.asarray(may), 2)
    masked = np.where(may, logits, NEVER)
    expected = np.argsort(-masked, axis=-1, kind="stable")[..., :2]
    np.testing.assert_array_equal(best, np.take_along_axis(masked, expected, axis=-1))
    np.testing.assert_array_equal(tokens[0], expected[0])
    np.testing.assert_array_equal(tokens[1, :, 0], vocabulary - 1)


@pytest.mark.parametrize("beams", [1, 4])
def test_lengths_are_kept(wild, beams):
    config = BeamConfig(beam_size=beams, min_length=2)
    tokens = np.asarray(beam_search(*wild, REQUEST, config).tokens)
    for row, limit in zip(tokens, LIMITS, strict=True):
        assert all(2 <= len(until_eos(hypothesis)) - 1 <= limit for hypothesis in row)


def test_a_limit_binds(found):
    assert all(
        len(until_eos(tokens)) - 1 <= limit for row, limit in zip(found.tokens, LIMITS, strict=True) for tokens in row
    )
    assert any(
        len(until_eos(tokens)) - 1 == limit for row, limit in zip(found.tokens, LIMITS, strict=True) for tokens in row
    )


@lru_cache
def sure_model():
    """A table that ends every sentence at once, but for its beginning."""
    table = np.full((1, 6**4, 6), -9.0, np.float32)
    table[..., EOS] = 0
    return table


def test_minimum_length_overrides_a_sure_end():
    config = BeamConfig(beam_size=2, min_length=3)
    tokens = np.asarray(beam_search(TABLE, sure_model(), Request(np.array([[1]]), np.array([3]), 4), config).tokens)
    assert all(len(until_eos(hypothesis)) == 4 for hypothesis in tokens[0])


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"beam_size": 0}, "decoding.beam_size=0"),
        ({"max_length": 0}, "max_length=0"),
        ({"coverage_penalty": -0.5}, "coverage_penalty=-0.5"),
        ({"max_extra": -1}, "max_extra=-1"),
        ({"min_length": -1}, "min_length=-1"),
        ({"min_length": 9, "max_length": 8}, "min_length=9, max_length=8"),
    ],
)
def test_a_search_that_cannot_be_is_one_line(wrong, named):
    with pytest.raises(UserError, match=named) as error:
        BeamConfig(**wrong)
    assert "\n" not in str(error.value)
