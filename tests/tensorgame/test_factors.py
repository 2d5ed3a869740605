"""Canonical actions and their tokens, exhaustively on small spaces."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tensorgame.factors import ActionSpace, canonicalize, outer, outer_sum
from tensorgame.rings import Z2, integers

RINGS = {"z2": Z2, "z": integers(1), "z up to 2": integers(2)}
SPACES = {
    f"{name}, tokens of {size}": ActionSpace(ring, side=2, token_size=size)
    for name, ring in RINGS.items()
    for size in (1, 2)
}
every_ring = pytest.mark.parametrize("ring", RINGS.values(), ids=RINGS.keys())
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())


def all_triples(ring) -> np.ndarray:
    """All (N, 3, 2), null ones included."""
    entries = np.arange(ring.low, ring.high + 1)
    return np.array(list(itertools.product(entries, repeat=6)), np.int8).reshape(-1, 3, 2)


@functools.partial(jax.jit, static_argnums=1)
def canonical(triples: jax.Array, ring) -> jax.Array:
    return jax.vmap(lambda triple: canonicalize(triple, ring))(triples)


def rank_one(triples: np.ndarray) -> np.ndarray:
    """The tensors (N, S, S, S), by NumPy."""
    return np.einsum("ni,nj,nk->nijk", *triples.astype(int).transpose(1, 0, 2))


def as_set(arrays: np.ndarray) -> set[bytes]:
    return {array.tobytes() for array in arrays}


@every_ring
def test_outer_is_the_rank_one_tensor(ring):
    triples = all_triples(ring)
    np.testing.assert_array_equal(jax.jit(jax.vmap(outer))(triples), rank_one(triples))


def test_outer_sum_adds_up_and_ignores_padding():
    actions = np.random.default_rng(0).integers(-2, 3, (5, 3, 4)).astype(np.int8)
    padded = np.concatenate([actions, np.zeros((3, 3, 4), np.int8)])
    np.testing.assert_array_equal(jax.jit(outer_sum)(padded), rank_one(actions).sum(axis=0))


@every_ring
def test_canonicalize_keeps_the_tensor_and_the_type(ring):
    triples = all_triples(ring)
    found = np.asarray(canonical(triples, ring))
    np.testing.assert_array_equal(rank_one(found), rank_one(triples))
    assert found.dtype == np.int8


@every_ring
def test_canonicalize_twice_is_canonicalize_once(ring):
    once = canonical(all_triples(ring), ring)
    np.testing.assert_array_equal(canonical(once, ring), once)


@pytest.mark.parametrize("signs", [(1, -1, -1), (-1, 1, -1), (-1, -1, 1)])
def test_canonicalize_undoes_changes_of_sign(signs):
    ring = integers(2)
    triples = all_triples(ring)
    triples = triples[triples.any(axis=2).all(axis=1)]
    changed = triples * np.array(signs, np.int8)[:, None]
    np.testing.assert_array_equal(canonical(changed, ring), canonical(triples, ring))


@every_ring
def test_canonical_actions_are_the_images_of_canonicalize(ring, every_action):
    triples = all_triples(ring)
    triples = triples[triples.any(axis=2).all(axis=1)]
    space = ActionSpace(ring, side=2, token_size=1)
    assert as_set(np.asarray(canonical(triples, ring))) == as_set(every_action(space))


def test_canonical_actions_with_coefficients_in_minus_one_to_one_are_distinct_moves(every_action):
    actions = every_action(ActionSpace(integers(1), side=2, token_size=1))
    assert len(as_set(rank_one(actions))) == len(actions)


@every_space
def test_encode_then_decode_changes_nothing(space, every_action):
    actions = every_action(space)
    tokens = space.encode(jnp.asarray(actions))
    assert tokens.shape == (len(actions), space.num_tokens)
    assert tokens.min() >= 0
    assert tokens.max() < space.vocabulary
    np.testing.assert_array_equal(space.decode(tokens), actions)
    # Leading axes are kept.
    np.testing.assert_array_equal(space.encode(jnp.asarray(actions[None])), tokens[None])
    np.testing.assert_array_equal(space.decode(tokens[None]), actions[None])


@every_space
def test_the_masks_allow_exactly_the_canonical_actions(space, every_action):
    sequences = np.array(list(itertools.product(range(space.vocabulary), repeat=space.num_tokens)))
    started = np.asarray(space.started(jnp.asarray(sequences, jnp.int32))).astype(int)
    allowed = space.legal[np.arange(space.num_tokens), started, sequences].all(axis=1)
    decoded = np.asarray(space.decode(jnp.asarray(sequences[allowed], jnp.int32)))
    assert allowed.sum() == space.size
    assert as_set(decoded) == as_set(every_action(space))


@every_space
def test_started_says_whether_the_factor_has_an_entry_before_the_token(space, every_action):
    actions = every_action(space)
    started = np.asarray(space.started(space.encode(jnp.asarray(actions))))
    for position in range(space.num_tokens):
        factor, place = divmod(position, space.tokens_per_factor)
        before = actions[:, factor, : place * space.token_size].any(axis=1)
        np.testing.assert_array_equal(started[:, position], before)
        assert bool(space.starts_factor(position)) == (place == 0)


def test_sizes_of_the_standard_space():
    space = ActionSpace(integers(2), side=4, token_size=2)
    assert (space.tokens_per_factor, space.num_tokens, space.vocabulary) == (2, 6, 25)
    assert space.size == (5**4 - 1) ** 3 // 4
