"""Random demonstrations: right by construction, and distributed as said."""

import functools

import jax
import numpy as np
import pytest

from tensorgame.demonstrations import DemonstrationSampler
from tensorgame.factors import canonicalize
from tensorgame.game import Game
from tensorgame.rings import Z2, integers, modular

COUNT, FACTORS, MOVES, HISTORY, SIDE, DENSITY, LARGE = 2000, 5, 9, 2, 4, 0.3, 0.2


RINGS = {"Z_2": Z2, "Z_5": modular(5), "Z": integers(), "Z up to 3": integers(range(-3, 4))}


@pytest.fixture(scope="module", params=RINGS.values(), ids=RINGS.keys())
def drawn(request):
    """A ring and many demonstrations over it."""
    return request.param, draw(request.param, seed=0)


def draw(ring, seed: int):
    return jax.device_get(draw_many(sampler(ring), jax.random.key(seed)))


def sampler(ring, **fields) -> DemonstrationSampler:
    whole = {"shapes": ((SIDE,) * 3,), "max_factors": (FACTORS,), "shares": (1.0,)}
    usual = {**whole, "density": DENSITY, "varied": False, "large": LARGE}
    return DemonstrationSampler(Game(ring, MOVES, HISTORY), SIDE, **{**usual, **fields})


@functools.partial(jax.jit, static_argnums=0)
def draw_many(sampler: DemonstrationSampler, key: jax.Array):
    return jax.vmap(sampler)(jax.random.split(key, COUNT))


def shown(demonstrations) -> np.ndarray:
    """The factors that count, of all demonstrations: (N, 3, S)."""
    real = np.arange(FACTORS) < demonstrations.count[:, None]
    return demonstrations.actions[real]


def test_the_residual_is_the_sum_of_the_factors_shown(drawn):
    ring, demonstrations = drawn
    factors = np.moveaxis(demonstrations.actions.astype(int), 2, 0)
    total = np.einsum("nri,nrj,nrk->nijk", *factors)
    total = total % ring.modulus if ring.modulus else total
    np.testing.assert_array_equal(demonstrations.state.residual, total)
    assert demonstrations.state.residual.dtype == ring.dtype


def test_the_rest_of_the_factors_are_zero(drawn):
    _, demonstrations = drawn
    rest = np.arange(FACTORS) >= demonstrations.count[:, None]
    assert not demonstrations.actions[rest].any()


def test_factors_are_canonical_legal_and_never_null(drawn):
    ring, demonstrations = drawn
    actions = shown(demonstrations)
    assert actions.any(axis=2).all()
    assert set(np.unique(actions)) == set(ring.coefficients)
    canonical = jax.jit(jax.vmap(lambda action: canonicalize(action, ring)))(actions)
    np.testing.assert_array_equal(canonical, actions)


def test_counts_are_uniform(drawn):
    _, demonstrations = drawn
    counts = np.bincount(demonstrations.count, minlength=FACTORS + 1)
    assert counts[0] == 0
    assert len(counts) == FACTORS + 1
    expected = COUNT / FACTORS
    np.testing.assert_allclose(counts[1:], expected, atol=4 * np.sqrt(expected))


def test_a_solution_fits_into_the_moves_that_are_left(drawn):
    _, demonstrations = drawn
    assert demonstrations.state.moves.min() == 0
    assert (demonstrations.state.moves + demonstrations.count).max() == MOVES


def test_the_history_has_as_many_actions_as_were_made(drawn):
    _, demonstrations = drawn
    made = demonstrations.state.history.any(axis=(2, 3)).sum(axis=1)
    np.testing.assert_array_equal(made, np.minimum(demonstrations.state.moves, HISTORY))
    assert (made == 1).any()


def test_entries_are_independent_given_that_no_factor_is_zero(drawn):
    _, demonstrations = drawn
    nonzero = shown(demonstrations) != 0
    alive = 1 - (1 - DENSITY) ** SIDE
    np.testing.assert_allclose(nonzero.mean(axis=0), DENSITY / alive, atol=0.025)
    together = (nonzero[:, :, 0] & nonzero[:, :, 1]).mean()
    assert abs(together - DENSITY**2 / alive) < 0.015


def test_large_coefficients_have_their_share(drawn):
    ring, demonstrations = drawn
    entries = shown(demonstrations)
    entries = entries[entries != 0]
    if ring.modulus:
        w = shown(demonstrations)[:, 2]
        counts = np.bincount(w[w != 0], minlength=ring.modulus)[1:] / (w != 0).sum()
        np.testing.assert_allclose(counts, 1 / (ring.modulus - 1), atol=0.02)
        return
    share = LARGE if ring.largest > 1 else 0.0
    assert abs((np.abs(entries) > 1).mean() - share) < 0.01
    if ring.largest > 1:
        large = entries[np.abs(entries) > 1]
        np.testing.assert_allclose([(np.abs(large) == c).mean() for c in (2, 3)], 0.5, atol=0.03)


def test_signs_are_fair(drawn):
    ring, demonstrations = drawn
    if not ring.modulus:
        w = shown(demonstrations)[:, 2]
        assert abs((w[w != 0] > 0).mean() - 0.5) < 0.02


def test_each_corner_has_its_share_and_its_number_of_factors():
    shapes, most = ((4, 2, 3), (1, 4, 4)), (2, FACTORS)
    corners = sampler(Z2, shapes=shapes, max_factors=most, shares=(0.25, 0.75))
    demonstrations = jax.device_get(draw_many(corners, jax.random.key(0)))
    residuals = demonstrations.state.residual
    assert demonstrations.actions.shape == (COUNT, FACTORS, 3, SIDE)
    # Only those of the second corner reach the last columns, only those of the first the last rows.
    is_first, is_second = residuals[:, 1:].any(axis=(1, 2, 3)), residuals[..., 3].any(axis=(1, 2))
    assert not (is_first & is_second).any()
    assert not residuals[is_first][:, :, 2:].any()
    assert abs(is_first.mean() - 0.25) < 0.05
    assert demonstrations.count[is_first].max() == 2
    assert demonstrations.count[is_second].max() == FACTORS
    assert (shown(demonstrations).any(axis=2)).all()
    nonzero = (demonstrations.actions != 0)[is_second & (demonstrations.count == FACTORS)]
    alive = 1 - (1 - DENSITY) ** 4
    np.testing.assert_allclose(nonzero[:, :, 1:].mean(axis=(0, 1)), DENSITY / alive, atol=0.05)
    np.testing.assert_array_equal(nonzero[:, :, 0].all(axis=(0, 1)), [True, False, False, False])


def test_demonstrations_depend_on_the_key_alone():
    ring = integers()
    first, again, other = draw(ring, 1), draw(ring, 1), draw(ring, 2)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert (first.actions != other.actions).any()
    assert len({actions.tobytes() for actions in first.actions}) > 0.9 * COUNT


def test_each_demonstration_may_have_a_density_of_its_own():
    def shares(varied: bool) -> np.ndarray:
        """Of the non-zero entries of each demonstration with many factors, behind the first."""
        found = jax.device_get(draw_many(sampler(Z2, varied=varied), jax.random.key(0)))
        real = np.arange(FACTORS) < found.count[:, None]
        behind = np.cumsum(found.actions, axis=-1) - found.actions > 0
        counts = (behind & real[..., None, None]).sum(axis=(1, 2, 3))
        ones = (behind & real[..., None, None] & (found.actions > 0)).sum(axis=(1, 2, 3))
        return (ones / np.maximum(counts, 1))[counts > 20]

    fixed, varied = shares(False), shares(True)
    assert abs(fixed.mean() - DENSITY) < 0.05
    assert varied.mean() < 0.8 * DENSITY
    assert (varied < DENSITY / 4).mean() > 2 * (fixed < DENSITY / 4).mean() + 0.05
