"""Canonical actions and their tokens, exhaustively on small spaces."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tensorgame.factors import ActionSpace, canonicalize, outer, outer_sum
from tensorgame.rings import Z2, integers, modular

RINGS = {
    "z2": Z2,
    "z3": modular(3),
    "z5": modular(5),
    "z": integers(),
    "z up to 2": integers(range(-2, 3)),
    "z with a gap": integers((-3, -1, 0, 1, 3)),
}
SPACES = {
    f"{name}, tokens of {size}": ActionSpace(ring, side=2, token_size=size)
    for name, ring in RINGS.items()
    for size in (1, 2)
}
# The last token of v is half inside; u and w have one token and v two.
SPACES |= {
    f"{ring.name}, in a corner": ActionSpace(ring, side=4, token_size=2, corner=(1, 3, 2))
    for ring in (Z2, modular(3))
}
every_ring = pytest.mark.parametrize("ring", RINGS.values(), ids=RINGS.keys())
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())


def all_triples(ring) -> np.ndarray:
    """All (N, 3, 2), null ones included."""
    triples = itertools.product(ring.coefficients, repeat=6)
    return np.array(list(triples), np.int8).reshape(-1, 3, 2)


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
    difference = rank_one(found) - rank_one(triples)
    assert not (difference % ring.modulus if ring.modulus else difference).any()
    assert found.dtype == np.int8


@every_ring
def test_canonicalize_twice_is_canonicalize_once(ring):
    once = canonical(all_triples(ring), ring)
    np.testing.assert_array_equal(canonical(once, ring), once)


@pytest.mark.parametrize("signs", [(1, -1, -1), (-1, 1, -1), (-1, -1, 1)])
def test_canonicalize_undoes_changes_of_sign(signs):
    ring = integers(range(-2, 3))
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


@pytest.mark.parametrize("ring", [Z2, modular(3), modular(5), integers()], ids=lambda r: r.name)
def test_canonical_actions_are_distinct_moves(ring, every_action):
    """But for coefficients beyond +-1, where 2 u (x) v and u (x) 2 v are the same."""
    actions = every_action(ActionSpace(ring, side=2, token_size=1))
    moves = rank_one(actions)
    assert len(as_set(moves % ring.modulus if ring.modulus else moves)) == len(actions)


def test_units_modulo_p_move_to_the_last_factor():
    ring = modular(7)
    units = [(a, b, pow(a * b, -1, 7)) for a, b in itertools.product(range(1, 7), repeat=2)]
    triple = np.array([[0, 1, 4], [1, 0, 6], [2, 5, 3]])
    images = np.array([triple * np.array(u)[:, None] % 7 for u in units], np.int8)
    np.testing.assert_array_equal(canonical(images, ring), np.broadcast_to(triple, images.shape))


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


def tokens_of(space: ActionSpace) -> list[tuple[int, int]]:
    """Factor and place of each token."""
    counts = [-(-side // space.token_size) for side in space.sides]
    return [(factor, place) for factor in range(3) for place in range(counts[factor])]


@every_space
def test_started_says_whether_the_factor_has_an_entry_before_the_token(space, every_action):
    actions = every_action(space)
    started = np.asarray(space.started(space.encode(jnp.asarray(actions))))
    tokens = tokens_of(space)
    assert len(tokens) == space.num_tokens
    for position, (factor, place) in enumerate(tokens):
        before = actions[:, factor, : place * space.token_size].any(axis=1)
        np.testing.assert_array_equal(started[:, position], before)
        assert bool(space.starts_factor(position)) == (place == 0)


def test_sizes_of_the_standard_space():
    space = ActionSpace(integers(range(-2, 3)), side=4, token_size=2)
    assert (space.num_tokens, space.vocabulary) == (6, 25)
    assert space.size == (5**4 - 1) ** 3 // 4
    corner = ActionSpace(Z2, side=16, token_size=8, corner=(8, 16, 8))
    assert (corner.num_tokens, corner.size) == (4, 255 * 65535 * 255)
