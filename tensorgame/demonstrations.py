"""Synthetic demonstrations: random tensors whose factors are known (paper, Methods).

They hold no known algorithm: every factor is drawn at random. They are made on the device and never
run out.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int8, Int32, Key

from tensorgame import factors
from tensorgame.game import Game, State
from tensorgame.rings import Ring


class Demonstration(NamedTuple):
    """A position of a random game, with the moves that solve it.

    Attributes:
        state: the position.
        actions: canonical actions that sum to its residual, (R, 3, S), int8. Any order solves it.
        count: how many of them are real, int32 scalar; the rest are zeros.
    """

    state: State
    actions: Int8[Array, "R 3 S"]
    count: Int32[Array, ""]


@dataclasses.dataclass(frozen=True)
class DemonstrationSampler:
    """Draws positions.

    Attributes:
        game: the rules.
        side: S.
        shapes: corners of the cube that positions are drawn in, a random one for each.
        max_factors: for each of them the most factors left in a position, at most R; their number
            is uniform from 1.
        shares: for each of them how often it is drawn; they sum to 1.
        density: probability that an entry of a factor is non-zero, before null factors are thrown
            away. Non-zero entries are uniform over the coefficients, except that over Z those
            beyond +-1 have the share ``large`` together.
        varied: whether each position has its own density, uniform between 0 and that one.
        large: share of coefficients beyond +-1 among the non-zero entries; no effect over Z_p.
    """

    game: Game
    side: int
    shapes: tuple[tuple[int, int, int], ...]
    max_factors: tuple[int, ...]
    shares: tuple[float, ...]
    density: float
    varied: bool
    large: float

    def __call__(self, key: Key[Array, ""]) -> Demonstration:
        """A random position; the key is consumed."""
        corner_key, count_key, moves_key, action_key = jax.random.split(key, 4)
        corner = jax.random.choice(corner_key, len(self.shapes), p=jnp.asarray(self.shares))
        shape, most = jnp.asarray(self.shapes)[corner], jnp.asarray(self.max_factors)[corner]
        length = max(self.max_factors)
        actions = self._factors(action_key, length + self.game.history, shape)
        actions = jax.vmap(factors.canonicalize, in_axes=(0, None))(actions, self.game.ring)
        played, left = actions[: self.game.history], actions[self.game.history :]
        count = jax.random.randint(count_key, (), 1, most + 1)
        moves = jax.random.randint(moves_key, (), 0, self.game.max_moves - count + 1)
        left = jnp.where((jnp.arange(length) < count)[:, None, None], left, 0)
        played = jnp.where((jnp.arange(self.game.history) < moves)[:, None, None], played, 0)
        history = played if self.game.history else None
        residual = self.game.ring.reduce(factors.outer_sum(left))
        state = State(residual.astype(self.game.ring.dtype), moves, history)
        return Demonstration(state, left, count)

    def _factors(
        self, key: Key[Array, ""], rows: int, shape: Int32[Array, "3"]
    ) -> Int8[Array, "rows 3 S"]:
        """Non-null triples (rows, 3, S), int8, entries i.i.d. given their density and that no
        factor is zero.

        Given that a factor is not zero, the place of its first non-zero entry is a truncated
        geometric variable and the entries after it are i.i.d.: no rejection is needed.
        """
        density_key, first_key, nonzero_key, value_key = jax.random.split(key, 4)
        density = jnp.asarray(self.density)
        if self.varied:
            density *= jax.random.uniform(density_key)
        places = jnp.arange(self.side)
        inside = places < shape[:, None]
        logits = jnp.where(inside, places * jnp.log1p(-density), -jnp.inf)
        first = jax.random.categorical(first_key, logits, shape=(rows, 3))[..., None]
        size = (rows, 3, self.side)
        nonzero = jax.random.bernoulli(nonzero_key, density, size) & inside
        nonzero = jnp.where(places == first, True, nonzero & (places > first))
        return jnp.where(nonzero, self._coefficients(value_key, size), 0).astype(jnp.int8)

    def _coefficients(self, key: Key[Array, ""], shape: tuple[int, ...]) -> Int32[Array, "..."]:
        """Random non-zero coefficients, int32."""
        ring: Ring = self.game.ring
        values = np.array([c for c in ring.coefficients if c])
        is_large = (np.abs(values) > 1) & (ring.modulus == 0)
        shares = np.where(is_large, self.large, 1 - self.large) if is_large.any() else 1.0
        weights = shares / np.where(is_large, is_large.sum(), (~is_large).sum())
        return jax.random.choice(key, jnp.asarray(values), shape, p=jnp.asarray(weights))
