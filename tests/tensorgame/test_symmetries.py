"""Every symmetry keeps what it should: factors of the one look are factors of the other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorgame import targets
from tensorgame.factors import ActionSpace, canonicalize, outer_sum
from tensorgame.game import Game
from tensorgame.rings import Z2, integers, modular
from tensorgame.symmetries import (
    Basis,
    BasisSampler,
    SignedPermutation,
    change_basis,
    permute_state,
    permute_tokens,
    signed_permutations,
    swap_with_last,
    to_canonical,
)

NUM_KEYS = 50
CASES = [
    (ring, target, shared)
    for ring in (Z2, modular(17), integers(range(-2, 3)))
    for target in ("matmul:2,2,2", "matmul:1,2,3")
    for shared in (True, False)
]


@pytest.fixture(
    scope="module", params=CASES, ids=lambda c: f"{c[0].name}-{c[1]}-{'one' if c[2] else 'three'}"
)
def case(request):
    """A ring, a target, whether the modes share a matrix, and many bases."""
    ring, name, shared = request.param
    target = targets.parse(name)
    bases = draw(sampler(ring, target.side, shared=shared), NUM_KEYS, target.shape)
    return ring, target, shared, bases


def sampler(ring, side=4, *, density=0.4, canonical=0.0, **fields) -> BasisSampler:
    fields = {"varied": False, "shared": True, **fields}
    return BasisSampler(ring, side, density=density, canonical=canonical, **fields)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def draw(sampler: BasisSampler, count: int, shape=(4, 4, 4), seed: int = 0) -> Basis:
    keys = jax.random.split(jax.random.key(seed), count)
    return jax.vmap(sampler, in_axes=(0, None))(keys, jnp.array(shape, jnp.int32))


def reduced(x: np.ndarray, ring) -> np.ndarray:
    return x % ring.modulus if ring.modulus else x


def identities(matrices) -> np.ndarray:
    """Which bases (B, 3, S, S) are the identity in all modes."""
    return np.asarray(matrices == np.eye(matrices.shape[-1])).all(axis=(1, 2, 3))


def test_inverses_are_exact(case):
    ring, target, _, bases = case
    product = reduced(np.asarray(bases.matrices) @ np.asarray(bases.inverses), ring)
    expected = np.broadcast_to(np.eye(target.side), product.shape)
    np.testing.assert_array_equal(product, expected)
    assert not identities(bases.matrices).all()


def test_determinants_are_one_or_minus_one(case):
    ring, _, _, bases = case
    determinants = np.linalg.det(np.asarray(bases.matrices, float)).round().astype(int)
    if ring.modulus != 17:  # where determinants as floats are too large to be exact
        assert set(np.unique(reduced(determinants, ring))) == set(reduced(np.array([-1, 1]), ring))


def test_modes_share_a_matrix_or_have_one_each(case):
    ring, target, shared, bases = case
    for mode, side in enumerate(target.shape):
        one_side = draw(sampler(ring, target.side, shared=shared), NUM_KEYS, (side,) * 3)
        matrices = np.asarray(one_side.matrices)
        np.testing.assert_array_equal(matrices[:, mode], bases.matrices[:, mode])
        for other in (1, 2):
            assert np.array_equal(matrices[:, 0], matrices[:, other]) == shared


def test_bases_leave_the_padding_alone(case):
    _, target, _, bases = case
    inside = np.arange(target.side) < np.array(target.shape)[:, None]
    touched = np.asarray(bases.matrices != np.eye(target.side)).any(axis=0)
    outside = ~(inside[:, :, None] & inside[:, None, :])
    assert not (touched & outside).any()
    assert (touched | outside).sum() > 0.9 * touched.size


@pytest.mark.parametrize("varied", [False, True])
def test_a_density_is_that_of_all_bases_or_the_largest_of_many(varied):
    side = 12
    bases = draw(sampler(Z2, side, varied=varied, shared=False), NUM_KEYS, (side,) * 3)
    # The last column of P L is that of P, the last row that of L: 22 entries of each mode.
    matrices = np.asarray(bases.matrices)
    entries = np.concatenate([matrices[..., :-1, -1], matrices[..., -1, :-1]], axis=-1)
    shares = entries.reshape(NUM_KEYS, -1).mean(axis=1)
    noise = np.sqrt(0.4 * 0.6 / 66)
    spread = np.hypot(noise, 0.4 / np.sqrt(12)) if varied else noise
    assert abs(shares.mean() - (0.2 if varied else 0.4)) < 4 * spread / np.sqrt(NUM_KEYS)
    assert abs(shares.std() / spread - 1) < 0.3


def test_factors_of_the_changed_tensor_map_back_to_those_of_the_original(case):
    ring, target, _, bases = case
    rng = np.random.default_rng(0)
    inside = np.arange(target.side) < np.array(target.shape)[:, None]
    shape = (NUM_KEYS, 5, 3, target.side)
    originals = np.where(inside, rng.choice(ring.coefficients, shape), 0)
    moved = reduced(np.einsum("bxij,brxj->brxi", bases.matrices, originals), ring)

    @jax.jit
    @jax.vmap
    def check(basis, original, moved):
        changed = change_basis(outer_sum(original), basis, ring)
        return changed - ring.reduce(outer_sum(moved)), to_canonical(moved, basis, ring)

    difference, back = check(bases, originals, jnp.asarray(moved))
    assert not np.any(difference)
    np.testing.assert_array_equal(back, originals)


def test_any_factors_of_the_changed_target_give_the_target_once_the_padding_is_cut_off(case):
    ring, target, _, bases = case
    side = target.side
    units = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    units = np.eye(side, dtype=np.int32)[units]

    @jax.jit
    @jax.vmap
    def back(basis):
        entries = change_basis(jnp.asarray(target.padded(side)), basis, ring).reshape(-1)
        actions = jnp.asarray(units).at[:, 2].multiply(entries[:, None])
        return to_canonical(actions, basis, ring)

    for factors in np.asarray(back(bases)):
        u, v, w = (factors[:, mode, :size] for mode, size in enumerate(target.shape))
        found = reduced(np.einsum("ri,rj,rk->ijk", u, v, w), ring)
        np.testing.assert_array_equal(found, target.tensor)


def test_the_canonical_basis_comes_with_its_probability():
    always = draw(sampler(Z2, canonical=1.0), 20)
    assert identities(always.matrices).all()
    assert identities(always.inverses).all()
    often = draw(sampler(Z2, density=0.9, canonical=0.3), 2000)
    assert 0.26 < identities(often.matrices).mean() < 0.34


def test_the_density_is_that_of_the_triangular_factors():
    # The first row of P L is that of P times L; with P = 1 at density 0 only signs are left.
    signs = draw(sampler(integers(), density=0.0), 200)
    assert (np.abs(signs.matrices) == np.eye(4)).all()
    assert not identities(signs.matrices).all()
    # The last row of P has only its diagonal, so the last row of P L is that of L up to sign.
    some = draw(sampler(integers(), density=0.3), 2000)
    share = (np.asarray(some.matrices)[:, 0, 3, :3] != 0).mean()
    assert 0.28 < share < 0.32


def test_the_same_key_gives_the_same_basis():
    first, again, other = (draw(sampler(integers()), 9, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.matrices, again.matrices)
    assert np.any(first.matrices != other.matrices)


@pytest.mark.parametrize("shared", [True, False])
def test_a_small_target_keeps_to_its_corner_of_a_larger_cube(shared):
    bases = draw(sampler(integers(), side=6, density=0.9, shared=shared), 50, (4, 2, 3))
    for mode, size in enumerate((4, 2, 3)):
        matrices = np.asarray(bases.matrices[:, mode])
        outside = np.eye(6, dtype=bool) | (np.arange(6) < size) & (np.arange(6) < size)[:, None]
        assert not matrices[:, ~outside].any()
        assert (matrices[:, range(size, 6), range(size, 6)] == 1).all()
        assert (matrices[:, :size, :size] != np.eye(size)).any()


def test_the_identity_changes_nothing():
    basis = sampler(integers()).identity()
    tensor = jnp.asarray(targets.parse("matmul:2,2,2").tensor)
    np.testing.assert_array_equal(change_basis(tensor, basis, integers()), tensor)


def test_entries_of_bases_modulo_p_are_all_units():
    bases = draw(sampler(modular(5), density=0.9), 200)
    assert set(np.unique(bases.matrices)) == set(range(5))


# Signed permutations -----------------------------------------------------------------------------

SPACES = {
    ring.name + str(ring.largest): ActionSpace(ring, side=4, token_size=2)
    for ring in (Z2, modular(3), modular(17), integers(), integers(range(-2, 3)))
}


@st.composite
def scenes(draw):
    """A space, canonical actions of it as tokens (5, k), and a signed permutation."""
    space = SPACES[draw(st.sampled_from(sorted(SPACES)))]
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    actions = rng.choice(space.ring.coefficients, (5, 3, 4)).astype(np.int8)
    actions[..., 0] = np.where(actions.any(axis=-1), actions[..., 0], 1)
    every = signed_permutations(jax.random.key(seed), 3, 4, space.ring)
    return space, tokens_of(actions, space), jax.tree.map(lambda x: x[1], every)


@functools.partial(jax.jit, static_argnums=1)
def tokens_of(actions: jax.Array, space: ActionSpace) -> jax.Array:
    return space.encode(jax.vmap(lambda action: canonicalize(action, space.ring))(actions))


@functools.partial(jax.jit, static_argnums=2)
def seen(tokens: jax.Array, by: SignedPermutation, space: ActionSpace) -> jax.Array:
    return permute_tokens(tokens, by, space)


@functools.partial(jax.jit, static_argnums=2)
def seen_state(tokens: jax.Array, by: SignedPermutation, space: ActionSpace):
    """The game whose factors the tokens are, after one move, seen directly and by its factors."""
    game = Game(space.ring, max_moves=9, history=2)

    def after_a_move(tokens):
        actions = space.decode(tokens)
        return game.step(game.init(outer_sum(actions)), actions[0])[0]

    direct = permute_state(after_a_move(tokens), by, space.ring)
    return direct, after_a_move(permute_tokens(tokens, by, space))


@settings(deadline=None, max_examples=60)
@given(scenes())
def test_a_permuted_game_is_the_game_of_the_permuted_factors(scene):
    space, tokens, by = scene
    direct, by_factors = seen_state(tokens, by, space)
    np.testing.assert_array_equal(direct.residual, by_factors.residual)
    assert direct.residual.dtype == space.ring.dtype
    assert direct.moves == 1
    # The history is the same sum of rank-one tensors, not the same triples.
    np.testing.assert_array_equal(
        space.ring.reduce(outer_sum(direct.history)),
        space.ring.reduce(outer_sum(by_factors.history)),
    )


@settings(deadline=None, max_examples=60)
@given(scenes())
def test_permuted_tokens_are_legal_and_come_back(scene):
    space, tokens, by = scene
    permuted = seen(tokens, by, space)
    started = np.asarray(space.started(permuted)).astype(int)
    assert space.legal[np.arange(space.num_tokens), started, np.asarray(permuted)].all()
    np.testing.assert_array_equal(seen(permuted, by.inverse, space), tokens)


def test_signed_permutations_are_different_and_without_signs_over_z2():
    drawn = signed_permutations(jax.random.key(0), 100, 5, integers())
    assert (np.sort(drawn.places) == np.arange(5)).all()
    assert len({row.tobytes() for row in np.asarray(drawn.places)}) > 50
    assert abs(np.asarray(drawn.signs).mean()) < 0.2
    assert set(np.unique(drawn.signs)) == {-1, 1}
    assert (signed_permutations(jax.random.key(0), 100, 5, Z2).signs == 1).all()


# Order of the factors ----------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(count=st.integers(1, 6), place=st.integers(0, 5), seed=st.integers(0, 2**32 - 1))
def test_swapping_a_factor_with_the_last_keeps_the_others_and_the_sum(count, place, seed):
    place %= count
    actions = np.zeros((6, 3, 4), np.int8)
    actions[:count] = np.random.default_rng(seed).integers(-2, 3, (count, 3, 4))
    swapped = np.asarray(jax.jit(swap_with_last)(actions, place, count))
    expected = actions.copy()
    expected[[place, count - 1]] = actions[[count - 1, place]]
    np.testing.assert_array_equal(swapped, expected)
    np.testing.assert_array_equal(outer_sum(jnp.asarray(swapped)), outer_sum(jnp.asarray(actions)))
