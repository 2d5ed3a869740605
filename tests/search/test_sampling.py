"""Beam search samples exactly without replacement, and equal independent samples are merged."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from search.sampling import SampledActions, largest, sample_actions

# More beams than tokens in the vocabulary: at first most of them are dead.
FEW, MANY_KEYS = 4, 4000
DEAD = -1e8


@pytest.fixture(scope="module")
def policy(bits) -> np.ndarray:
    """The log-probability of each of the 27 actions by its `code`; -inf for what is none."""
    tokens = np.asarray(bits.network.space.encode(jnp.asarray(bits.actions)))
    by_code = np.full(2**6, -np.inf)
    by_code[code(tokens)] = bits.log_probs(bits.params(), tokens)
    return by_code


@pytest.fixture(scope="module")
def sample(bits):
    """``sample(params, count, keys, sampling)`` for one state: the actions and the quantiles."""

    @functools.partial(jax.jit, static_argnums=(1, 3))
    def run(params, count, keys, sampling):
        state = bits.network.game.init(jnp.ones((2, 2, 2), jnp.int8))
        draw = functools.partial(sample_actions, bits.network, params, sampling=sampling)
        return jax.vmap(lambda key: draw(key, state, count))(keys)

    def sample(params, count: int, number: int, sampling: str = "beam"):
        keys = jax.random.split(jax.random.key(count), number)
        return jax.device_get(run(params, count, keys, sampling))

    return sample


def code(tokens: np.ndarray) -> np.ndarray:
    """One number for each action (..., k)."""
    return tokens @ (2 ** np.arange(tokens.shape[-1]))


@pytest.fixture(scope="module")
def few(bits, sample) -> SampledActions:
    """Four actions for each of many keys."""
    return sample(bits.params(), FEW, MANY_KEYS)[0]


@pytest.fixture(scope="module")
def all_of_them(bits, sample) -> SampledActions:
    """All 27 actions for each of some keys, five slots being left over."""
    return sample(bits.params(), 32, 500)[0]


@pytest.fixture(scope="module")
def independent(bits, sample) -> SampledActions:
    """Eight independent samples for each of many keys."""
    return sample(bits.params(), 8, MANY_KEYS, "independent")[0]


def first_27(sampled: SampledActions) -> SampledActions:
    return jax.tree.map(lambda x: x[:, :27], sampled)


def chi_square(counts: np.ndarray, probabilities: np.ndarray) -> float:
    """The statistic over its degrees of freedom: about 1, and seldom above 2 for 27 cells."""
    expected = counts.sum() * probabilities[probabilities > 0]
    assert expected.min() > 5
    assert not counts[probabilities == 0].any()
    differences = counts[probabilities > 0] - expected
    return float((differences**2 / expected).sum() / (len(expected) - 1))


def test_the_probabilities_of_all_actions_sum_to_one(policy):
    assert np.isfinite(policy).sum() == 27
    assert np.exp(policy).sum() == pytest.approx(1.0)


# Beam search -------------------------------------------------------------------------------------


def test_actions_are_distinct_legal_and_sorted_by_their_perturbed_log_probability(
    policy, few, all_of_them
):
    for sampled in (few, first_27(all_of_them)):
        codes = np.sort(code(sampled.tokens), axis=1)
        assert (np.diff(codes, axis=1) > 0).all()
        assert np.isfinite(policy[codes]).all()
        assert (np.diff(sampled.log_probs + sampled.gumbels, axis=1) < 0).all()


def test_log_probabilities_are_those_of_the_policy(policy, few, all_of_them, independent):
    for sampled in (few, first_27(all_of_them), independent):
        np.testing.assert_allclose(sampled.log_probs, policy[code(sampled.tokens)], atol=1e-4)


def test_the_prior_of_beams_is_the_policy(few):
    np.testing.assert_array_equal(few.prior_logits, few.log_probs)


def test_the_first_action_is_drawn_from_the_policy(policy, few):
    counts = np.bincount(code(few.tokens[:, 0]), minlength=len(policy))
    assert chi_square(counts, np.exp(policy)) < 1.8


def test_the_later_actions_are_drawn_from_what_the_earlier_ones_leave(policy, few):
    """The places of all four, and with them how often an action is among them."""
    probabilities = np.exp(policy[np.isfinite(policy)])
    joint = probabilities
    for place in range(1, FEW):
        axes = np.indices((27,) * place)
        left = 1.0 - sum(probabilities[axis] for axis in axes)
        joint = joint[..., None] * probabilities / np.maximum(left, 1e-9)[..., None]
        for axis in range(place):
            shape = [27 if i in (axis, place) else 1 for i in range(place + 1)]
            joint = joint * (1.0 - np.eye(27)).reshape(shape)
        marginal = np.zeros(len(policy))
        marginal[np.isfinite(policy)] = joint.sum(axis=tuple(range(place)))
        assert marginal.sum() == pytest.approx(1.0)
        counts = np.bincount(code(few.tokens[:, place]), minlength=len(policy))
        assert chi_square(counts, marginal) < 1.8


def test_slots_that_there_are_no_actions_for_are_dead(policy, all_of_them):
    expected = np.flatnonzero(np.isfinite(policy))
    codes = np.sort(code(first_27(all_of_them).tokens), axis=1)
    np.testing.assert_array_equal(codes, np.broadcast_to(expected, codes.shape))
    assert (all_of_them.prior_logits[:, :27] > -50).all()
    assert (all_of_them.prior_logits[:, 27:] < DEAD).all()
    assert (all_of_them.gumbels[:, 27:] == 0).all()


@pytest.mark.parametrize("sampling", ["beam", "independent"])
def test_a_policy_with_one_likely_action_gives_no_nan(bits, sample, sampling):
    """The others underflow: their probability is e^-300, e^-600, and so on."""
    params = bits.params()
    params["params"]["logits"] = jnp.broadcast_to(jnp.array([0.0, 300.0]), (6, 2))
    sampled, quantiles = sample(params, {"beam": 32, "independent": 8}[sampling], 500, sampling)
    for leaf in (*sampled, quantiles):
        assert np.isfinite(leaf).all()
    assert (sampled.tokens[:, 0] == 1).all()
    alive = sampled.prior_logits > DEAD
    assert (alive.sum(axis=1) == {"beam": 27, "independent": 1}[sampling]).all()


def assert_standard_gumbel(samples: np.ndarray) -> None:
    """The test of Kolmogorov and Smirnov, whose limit is exceeded once in a thousand times."""
    samples = np.sort(samples, axis=None)
    places = (np.arange(samples.size) + 0.5) / samples.size
    distance = np.abs(np.exp(-np.exp(-samples)) - places).max()
    assert distance * np.sqrt(samples.size) < 1.95


def test_the_gumbels_are_standard_ones(few, all_of_them, independent):
    assert_standard_gumbel(first_27(all_of_them).gumbels)
    assert_standard_gumbel(independent.gumbels)
    # So is the largest of the perturbed log-probabilities of a distribution.
    for sampled in (few, all_of_them):
        assert_standard_gumbel(sampled.log_probs[:, 0] + sampled.gumbels[:, 0])


# Independent samples -----------------------------------------------------------------------------


def test_each_sample_is_drawn_from_the_policy(policy, independent):
    for samples in (independent.tokens, independent.tokens[:, 3]):
        counts = np.bincount(code(samples).ravel(), minlength=len(policy))
        assert chi_square(counts, np.exp(policy)) < 1.8


def test_two_samples_are_equal_as_often_as_by_chance(policy, independent):
    probability = np.exp(2 * policy).sum()
    codes = code(independent.tokens)
    for place in range(1, 8):
        equal = (codes[:, 0] == codes[:, place]).mean()
        assert abs(equal - probability) < 4 * np.sqrt(probability / MANY_KEYS)


def test_equal_samples_share_the_slot_of_the_first(independent):
    alive = independent.prior_logits > DEAD
    shares = np.where(alive, np.exp(independent.prior_logits), 0.0)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-5)
    assert (~alive).any(axis=1).mean() > 0.5
    for codes, share in zip(code(independent.tokens)[:500], shares, strict=False):
        for place, mine in enumerate(codes):
            is_first = mine not in codes[:place]
            expected = (codes == mine).sum() / 8 if is_first else 0.0
            assert share[place] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("total", "count"), [(16, 16), (45, 5), (1024, 3), (8192, 16), (3125, 32)])
def test_the_largest_of_groups_are_the_largest(total, count):
    values = jax.random.normal(jax.random.key(total), (total,))
    values = values.at[:: total // 16].set(-1e9)
    found, indices = largest(values, count)
    np.testing.assert_array_equal(found, jnp.sort(values)[::-1][:count])
    np.testing.assert_array_equal(values[indices], found)
    assert len(set(indices.tolist())) == count
