"""TensorGame: bring a tensor to zero by subtracting rank-one tensors (paper, "TensorGame").

Functions of ONE game, pure and total: vmap them. A move on a finished game changes nothing and
earns nothing, so a search may run past the end of a game.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int8, Int32, Integer

from tensorgame import factors
from tensorgame.rings import Ring

# Ranks over Q are taken as the larger of the ranks modulo these primes. They agree unless every
# maximal minor is divisible by both, impossible while it is below their product, 4.29e9: always so
# for 4 x 4 slices with entries up to 127 (Hadamard's bound). Products of residues fit 32 bits.
_RANK_PRIMES = (65521, 65519)

# Ranks are taken of this many games at once, or of this share of a large batch.
_SMALLEST_CHUNK = 32
_CHUNKS = 32


class State(NamedTuple):
    """One game.

    Attributes:
        residual: what is left of the target, (S, S, S), the ring's storage type.
        moves: moves made so far, int32 scalar.
        history: the last H actions, newest first, zeros before the first: (H, 3, S), int8. None
            without a history: the compiler of jax 0.11 crashes on a sharded array of size zero.
    """

    residual: Integer[Array, "S S S"]
    moves: Int32[Array, ""]
    history: Int8[Array, "H 3 S"] | None


@dataclasses.dataclass(frozen=True)
class Game:
    """The rules.

    Attributes:
        ring: where the arithmetic happens.
        max_moves: R_limit, after which an unsolved game ends with the penalty of its residual.
        history: H, past actions kept in the state for the network to see.
    """

    ring: Ring
    max_moves: int
    history: int

    @property
    def largest_start(self) -> int:
        """Entries of a target up to this size cannot overflow in a game.

        Over Z_p nothing grows; over Z a move changes an entry by at most the cube of the largest
        coefficient.
        """
        largest = int(jnp.iinfo(self.ring.dtype).max)
        return largest if self.ring.modulus else largest - self.max_moves * self.ring.largest**3

    def init(self, target: Integer[Array, "S S S"]) -> State:
        """A new game on ``target`` (S, S, S), integers."""
        residual = self.ring.reduce(target).astype(self.ring.dtype)
        history = jnp.zeros((self.history, 3, len(target)), jnp.int8) if self.history else None
        return State(residual, jnp.zeros((), jnp.int32), history)

    def solved(self, state: State) -> Bool[Array, ""]:
        """Whether the residual is zero."""
        return ~jnp.any(state.residual)

    def done(self, state: State) -> Bool[Array, ""]:
        """Whether the game is solved or out of moves."""
        return self.solved(state) | (state.moves >= self.max_moves)

    def step(self, state: State, action: Integer[Array, "3 S"]) -> tuple[State, Float32[Array, ""]]:
        """Subtracts the rank-one tensor of ``action`` (3, S).

        Returns:
            The next state and the reward, a float32 scalar: -1, and at the move limit also minus an
            upper bound on the rank of what is left.
        """
        ended = self.done(state)
        residual = self.ring.reduce(state.residual.astype(jnp.int32) - factors.outer(action))
        history = state.history
        if history is not None:
            history = jnp.concatenate([action[None].astype(jnp.int8), history[:-1]])
        new = State(residual.astype(self.ring.dtype), state.moves + 1, history)
        new = jax.tree.map(lambda old, moved: jnp.where(ended, old, moved), state, new)
        penalty = self._penalty(new.residual, ~ended & (new.moves >= self.max_moves))
        return new, jnp.where(ended, 0.0, -1.0 - penalty.astype(jnp.float32))

    def after(
        self,
        start: Integer[Array, "S S S"],
        actions: Int8[Array, "R 3 S"],
        moves: Int32[Array, ""],
    ) -> State:
        """The position after the first ``moves`` of the actions (R, 3, S) of a game."""
        past = jnp.arange(len(actions)) < moves
        played = jnp.where(past[:, None, None], actions, 0)
        residual = self.ring.reduce(start.astype(jnp.int32) - factors.outer_sum(played))
        history = None
        if self.history:
            recent = moves - 1 - jnp.arange(self.history)
            history = jnp.where((recent >= 0)[:, None, None], actions[recent], 0)
        return State(residual.astype(self.ring.dtype), moves, history)

    def _penalty(
        self, residual: Integer[Array, "S S S"], failed: Bool[Array, ""]
    ) -> Int32[Array, ""]:
        """The rank bound of the residual if the game has failed, otherwise 0.

        Ranks over other fields than F_2 cost far more than a move, and few games of a batch fail at
        once: there a batch computes those of its failed games only.
        """
        if self.ring.modulus == 2:
            return jnp.where(failed, rank_bound(residual, self.ring), 0)

        @jax.custom_batching.custom_vmap
        def penalty(residual: jax.Array, failed: jax.Array) -> jax.Array:
            return jnp.where(failed, rank_bound(residual, self.ring), 0)

        @penalty.def_vmap
        def _(size: int, batched: list[bool], residual: jax.Array, failed: jax.Array):
            residual, failed = (
                x if is_batched else jnp.broadcast_to(x, (size, *x.shape))
                for x, is_batched in zip((residual, failed), batched, strict=True)
            )
            return self._penalties(residual, failed), True

        return penalty(residual, failed)

    def _penalties(
        self, residuals: Integer[Array, "B S S S"], failed: Bool[Array, "B"]
    ) -> Int32[Array, "B"]:
        """`_penalty` of B games: gathers the failed ones and takes them a chunk at a time."""
        games = len(failed)
        chunk = min(games, max(_SMALLEST_CHUNK, games // _CHUNKS))
        # Past the last failed game the places are out of range: reads are clipped, writes dropped.
        places = jnp.nonzero(failed, size=games + chunk, fill_value=games)[0]

        def rank_next(carry):
            start, penalties = carry
            chosen = jax.lax.dynamic_slice_in_dim(places, start, chunk)
            ranks = jax.vmap(lambda x: rank_bound(x, self.ring))(
                residuals.at[chosen].get(mode="clip")
            )
            return start + chunk, penalties.at[chosen].set(ranks, mode="drop")

        count = failed.sum()
        carry = (jnp.zeros((), count.dtype), jnp.zeros(games, jnp.int32))
        return jax.lax.while_loop(lambda carry: carry[0] < count, rank_next, carry)[1]


def rank_bound(tensor: Integer[Array, "S S S"], ring: Ring) -> Int32[Array, ""]:
    """An upper bound on the rank of ``tensor`` (S, S, S): the sum of the ranks of its slices.

    Slices are taken along the last mode and ranks over the ring's own field (Q for Z): a rank over
    another field would be no bound. Returns an int32 scalar; zero only for the zero tensor.
    """
    slices = jnp.moveaxis(tensor, -1, 0)
    if ring.modulus == 2:
        return jax.vmap(_rank_modulo_two)(slices).sum()
    primes = (ring.modulus,) if ring.modulus else _RANK_PRIMES
    ranks = [jax.vmap(lambda m, p=p: _rank_modulo(m, p))(slices) for p in primes]
    return jnp.max(jnp.stack(ranks), axis=0).sum()


def _rank_modulo_two(matrix: Integer[Array, "M N"]) -> Int32[Array, ""]:
    """Rank of a matrix (M, N) over F_2, N <= 32: rows as bits, without a loop on the device.

    What is left of a row lacks the leading bits of what is left of those before it: the smaller of
    it with and without another lacks that one's, and so does all that is added later.
    """
    assert matrix.shape[1] <= 32, "a row is one number"
    places = jnp.arange(matrix.shape[1], dtype=jnp.uint32)
    rows = ((matrix.astype(jnp.uint32) & 1) << places).sum(axis=1, dtype=jnp.uint32)
    left: list[jax.Array] = []
    for row in rows:
        for other in left:
            row = jnp.minimum(row, row ^ other)
        left.append(row)
    return (jnp.stack(left) != 0).sum(dtype=jnp.int32)


def _rank_modulo(matrix: Integer[Array, "M N"], prime: int) -> Int32[Array, ""]:
    """Rank of an integer matrix (M, N) over F_prime, by fraction-free elimination in uint32."""
    rows = jnp.mod(matrix.astype(jnp.int32), prime).astype(jnp.uint32)

    def eliminate(column, carry):
        rows, free, rank = carry
        candidates = (rows[:, column] != 0) & free
        pivot = jnp.argmax(candidates)
        found = candidates[pivot]
        # row * pivot_entry + pivot_row * (p - entry): both products are below p^2 < 2^32, so each
        # is reduced before they are added.
        scaled = (rows * rows[pivot, column]) % prime
        cancel = (rows[pivot][None, :] * ((prime - rows[:, column]) % prime)[:, None]) % prime
        reduced = (scaled + cancel) % prime
        is_free = free & (jnp.arange(rows.shape[0]) != pivot)
        rows = jnp.where((found & is_free)[:, None], reduced, rows)
        return rows, jnp.where(found, is_free, free), rank + found

    carry = (rows, jnp.ones(rows.shape[0], bool), jnp.zeros((), jnp.int32))
    return jax.lax.fori_loop(0, rows.shape[1], eliminate, carry)[2]
