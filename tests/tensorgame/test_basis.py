"""Changes of basis and the way back."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tensorgame import targets
from tensorgame.basis import Basis, BasisSampler, change_basis, to_canonical
from tensorgame.factors import outer_sum
from tensorgame.rings import Z2, integers

NUM_KEYS = 50
CASES = [
    (ring, target, shared)
    for ring in (Z2, integers(2))
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
    bases = draw(sampler(ring, target.shape, shared=shared), NUM_KEYS)
    return ring, target, shared, bases


def sampler(ring, shape, *, density=0.4, canonical=0.0, shared=True) -> BasisSampler:
    return BasisSampler(ring, shape, density=density, canonical=canonical, shared=shared)


@functools.partial(jax.jit, static_argnums=(0, 1))
def draw(sampler: BasisSampler, count: int, seed: int = 0) -> Basis:
    return jax.vmap(sampler)(jax.random.split(jax.random.key(seed), count))


def reduced(x: np.ndarray, ring) -> np.ndarray:
    return x % 2 if ring.modulus else x


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
    if ring.modulus:
        assert (determinants % 2 == 1).all()
    else:
        assert set(np.unique(determinants)) == {-1, 1}


def test_modes_share_a_matrix_or_have_one_each(case):
    _, _, shared, bases = case
    first, second, third = np.moveaxis(np.asarray(bases.matrices), 1, 0)
    assert np.array_equal(first, second) == shared
    assert np.array_equal(second, third) == shared


def test_independent_modes_leave_the_padding_alone(case):
    _, target, shared, bases = case
    inside = np.arange(target.side) < np.array(target.shape)[:, None]
    touched = np.asarray(bases.matrices != np.eye(target.side)).any(axis=0)
    outside = ~(inside[:, :, None] & inside[:, None, :])
    if shared:
        assert touched.all(axis=0).any()
    else:
        assert not (touched & outside).any()
        assert (touched | outside).sum() > 0.9 * touched.size


def test_factors_of_the_changed_tensor_map_back_to_those_of_the_original(case):
    ring, target, _, bases = case
    rng = np.random.default_rng(0)
    inside = np.arange(target.side) < np.array(target.shape)[:, None]
    shape = (NUM_KEYS, 5, 3, target.side)
    originals = np.where(inside, rng.integers(ring.low, ring.high + 1, shape), 0)
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
        entries = change_basis(jnp.asarray(target.tensor()), basis, ring).reshape(-1)
        actions = jnp.asarray(units).at[:, 2].multiply(entries[:, None])
        return to_canonical(actions, basis, ring)

    tensor = target.tensor()
    for factors in np.asarray(back(bases)):
        u, v, w = (factors[:, mode, :size] for mode, size in enumerate(target.shape))
        found = reduced(np.einsum("ri,rj,rk->ijk", u, v, w), ring)
        np.testing.assert_array_equal(found, tensor[tuple(map(slice, target.shape))])


def test_the_canonical_basis_comes_with_its_probability():
    always = draw(sampler(Z2, (4, 4, 4), canonical=1.0), 20)
    assert identities(always.matrices).all()
    assert identities(always.inverses).all()
    often = draw(sampler(Z2, (4, 4, 4), density=0.9, canonical=0.3), 2000)
    assert 0.26 < identities(often.matrices).mean() < 0.34


def test_the_density_is_that_of_the_triangular_factors():
    # The first row of P L is that of P times L; with P = 1 at density 0 only signs are left.
    signs = draw(sampler(integers(1), (4, 4, 4), density=0.0), 200)
    assert (np.abs(signs.matrices) == np.eye(4)).all()
    assert not identities(signs.matrices).all()
    # The last row of P has only its diagonal, so the last row of P L is that of L up to sign.
    some = draw(sampler(integers(1), (4, 4, 4), density=0.3), 2000)
    share = (np.asarray(some.matrices)[:, 0, 3, :3] != 0).mean()
    assert 0.28 < share < 0.32


def test_the_same_key_gives_the_same_basis():
    first, again, other = (draw(sampler(integers(1), (4, 4, 4)), 9, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.matrices, again.matrices)
    assert np.any(first.matrices != other.matrices)
