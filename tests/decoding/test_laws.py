"""What holds for every model that translates and every way to decode: a translation has one score, and rows that hold
nothing change nothing."""

import dataclasses

import jax
import numpy as np
import pytest
from toys import SHAPES, WORDS, untrained

from zoo.data.tokenizers import EOS, PAD
from zoo.decoding.ancestral import Draws, sample
from zoo.decoding.beam import NEVER, BeamConfig, Request, beam_search
from zoo.decoding.ensemble import Ensemble
from zoo.decoding.sampling import SamplingConfig
from zoo.decoding.scoring import Scorer
from zoo.models import registry

SOURCE = np.array([[5, 6, 7, EOS, 0, 0], [9, EOS, 0, 0, 0, 0], [4, 13, 4, 8, 12, EOS], [10, 11, EOS, 0, 0, 0]])
LIMITS = np.array([7, 5, 7, 2])
REQUEST = Request(SOURCE, LIMITS, 8)
NO_ROW, DRAWS = np.zeros((1, 6), int), Draws(SamplingConfig(1.5), 3, seed=1)


def words(tokens):
    """A translation without EOS and padding."""
    return np.array([token for token in tokens if token not in (PAD, EOS)], np.int32)


def searched(model, params, request, config, prefixes):
    """The scores of the best that begin with `prefixes`."""
    prefix = np.zeros((len(prefixes), request.length), np.int32)
    for row, forced in enumerate(prefixes):
        prefix[row, : len(forced)] = forced
    limits = np.array([len(forced) for forced in prefixes])
    request = dataclasses.replace(request, prefix=prefix, limits=limits)
    return np.asarray(beam_search(model, params, request, config).scores)[:, 0]


# The other recurrent models take the same paths as RNNsearch.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in ("cho", "seq2seq") else []) for name in SHAPES]
)
def test_every_path_to_a_score_gives_the_same_score(name):
    """That which found a translation by search or by drawing, the search that is forced to it, alone or in an ensemble,
    and teacher forcing."""
    model, params = untrained(name)
    twice = Ensemble.of([model, model], [params, params])
    config = BeamConfig(3, length_penalty=1.5, coverage_penalty=0.8 if registry.family(name).attends else 0.0)
    found = beam_search(model, params, REQUEST, config)
    drawn = sample(model, params, REQUEST, DRAWS.keys(np.arange(4)), config, DRAWS.sampling)
    for hypotheses in jax.device_get((found, drawn)):
        said = [words(tokens) for tokens in hypotheses.tokens[:, 1]]
        pairs = [(words(source), target) for source, target in zip(SOURCE, said, strict=True)]
        others = {
            "forced": searched(model, params, REQUEST, config, said),
            "ensemble": searched(*twice, REQUEST, config, said),
            "taught": [scored.score for scored in Scorer(model, params, WORDS, WORDS, config).of_ids(pairs)],
        }
        for path, scores in others.items():
            np.testing.assert_allclose(scores, hypotheses.scores[:, 1], atol=2e-4, err_msg=path)


class Counted:
    """A model that counts the steps that it is asked for."""

    def __init__(self, model):
        self.model, self.steps = model, 0

    def apply(self, variables, *arguments, method):
        if method == "decode_step":
            jax.debug.callback(self._count)
        return self.model.apply(variables, *arguments, method=method)

    def _count(self):
        self.steps += 1

    prefill = decode_step = grow = reorder = apply  # the contract, for those who look for it


def beam(model, params, request, numbers):
    return beam_search(model, params, request, BeamConfig(3), True)


def draws(model, params, request, numbers):
    return sample(model, params, request, DRAWS.keys(numbers), BeamConfig(), DRAWS.sampling, True)


def counted(decode, name, request, numbers):
    model, params = untrained(name)
    found = jax.device_get(decode(model := Counted(model), params, request, numbers))
    jax.effects_barrier()
    return found, model.steps


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("decode", [beam, draws])
def test_rows_that_hold_nothing_change_no_result_and_no_number_of_steps(decode, name):
    """Wherever they stand, and however much room there is behind the longest translation."""
    rows = np.array([3, 1])
    request = Request(SOURCE[rows], LIMITS[rows], 12)
    alone, steps = counted(decode, name, request, rows)
    assert 1 < steps <= LIMITS[rows].max() + 1
    with_empty = Request(
        np.concatenate([NO_ROW, SOURCE[rows[:1]], NO_ROW, NO_ROW, SOURCE[rows[1:]], NO_ROW]),
        np.array([0, LIMITS[3], 9, 0, LIMITS[1], 0]),
        12,
    )
    among, with_them = counted(decode, name, with_empty, np.array([7, 3, 8, 9, 1, 5]))
    assert with_them == steps
    for one, other in zip(jax.tree.leaves(alone), jax.tree.leaves(among), strict=True):
        np.testing.assert_allclose(one, other[[1, 4]], atol=1e-5)
    assert (among.tokens[[0, 2, 3, 5]] == PAD).all()


@pytest.mark.parametrize("decode", [beam, draws])
def test_a_batch_of_nothing_takes_no_step(decode):
    assert counted(decode, "rnnsearch", Request(NO_ROW, np.zeros(1, int), 12), np.zeros(1, int))[1] == 0


def test_a_row_ends_when_there_is_nothing_more_to_find():
    """One hypothesis alone fits a prefix as long as the limit: the beam does not wait for others."""
    prefix = np.zeros((4, 12), int)
    prefix[:, :2] = [[5, 6], [4, 0], [7, 7], [9, 0]]
    request = Request(SOURCE, (prefix != PAD).sum(axis=1), 12, prefix)
    found, steps = counted(beam, "rnnsearch", request, np.arange(4))
    assert steps == 3
    assert ((found.scores > NEVER / 2).sum(axis=1) == 1).all()
