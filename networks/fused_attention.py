"""Attention between few tokens as one GPU kernel.

XLA makes several kernels of it and moves queries, keys and values into other layouts for them. At
the sizes of this network that takes several times as long as reading the inputs once, which is all
that these kernels do: a program of theirs holds the scores of one head of the tokens that attend to
each other, or as many of them as fit at a time.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Bool, Float, Float32, Int32

# Tensor cores multiply tiles of at least this side.
SMALLEST_TILE = 16
MOST_QUERIES = 128
_MOST_KEYS = 128
# Scores that a program holds at a time: as float32 they take a quarter of a multiprocessor's
# registers. The gradient holds three numbers for each.
_SCORES = 128 * 128
_SCORES_OF_GRADIENT = 128 * 64

_Sources = tuple[Float[Array, "B _ _ heads d"], ...]


class Lines(NamedTuple):
    """Which cells of two grids attend to each other: a row of the first, that column of the second.

    Attributes:
        count: L, rows of the first grid and columns of the second.
        row: m, cells of a row of the first grid, (L, m).
        column: n, cells of a column of the second grid, (n, L).
    """

    count: int
    row: int
    column: int

    @classmethod
    def of(cls, grids: tuple[Float[Array, "*B L m C"], Float[Array, "*B n L C"]]) -> "Lines":
        """Those of two grids."""
        (count, row, _), (column, columns, _) = (x.shape[-3:] for x in grids)
        assert count == columns, "the grids share no mode there"
        return cls(count, row, column)

    @property
    def tokens(self) -> int:
        """Cells of a line."""
        return self.row + self.column

    @property
    def grids(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Rows and columns of both grids."""
        return (self.count, self.row), (self.column, self.count)


def fits(count: int, size: int) -> bool:
    """Whether there can be so many queries of so many features: few, and whole tiles."""
    return count <= MOST_QUERIES and size >= SMALLEST_TILE and size == power(size)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def fused_attention(
    sources: _Sources, lines: Lines | None = None, interpret: bool = False
) -> Float[Array, "B N heads d"]:
    """Scaled dot-product attention within each of B sequences, with a float32 softmax.

    Args:
        sources: of sequences that attend to themselves one array (B, N, 3, heads, d) of their
            queries, keys and values; otherwise the queries (B, N, 1, heads, d), and the keys and
            values (B, M, 2, heads, d) of other sequences.
        lines: of two grids, if a sequence is their cells, and only those of a line attend to each
            other; otherwise all of a sequence do.
        interpret: run the kernels' definition by XLA, on any device.

    Returns:
        (B, N, heads, d), of the sources' dtype.
    """
    batch, count, _, heads, size = sources[0].shape
    rows, columns = _tile_sizes(sources, lines, _SCORES)
    return pl.pallas_call(
        functools.partial(_kernel, lines=lines, rows=rows, columns=columns),
        out_shape=jax.ShapeDtypeStruct((batch, count, heads, size), sources[0].dtype),
        grid=(batch, lines.count if lines else 1, heads),
        in_specs=_inputs(sources),
        out_specs=_of_one_head(count, size),
        compiler_params=triton.CompilerParams(num_warps=max(1, rows * columns // 2048)),
        cost_estimate=_costs(sources, lines, products=2),
        interpret=interpret,
    )(sources[0], sources[-1], sources[-1])


def _forward(sources: _Sources, lines: Lines | None, interpret: bool) -> tuple[jax.Array, _Sources]:
    return fused_attention(sources, lines, interpret), sources


def _backward(
    lines: Lines | None, interpret: bool, sources: _Sources, gradient: jax.Array
) -> tuple:
    batch, count, _, heads, size = sources[0].shape
    rows, columns = _tile_sizes(sources, lines, _SCORES_OF_GRADIENT)
    gradients = pl.pallas_call(
        functools.partial(_gradient_kernel, lines=lines, rows=rows, columns=columns),
        out_shape=tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in sources),
        grid=(batch, lines.count if lines else 1, heads),
        in_specs=[*_inputs(sources), _of_one_head(count, size)],
        out_specs=tuple(
            pl.BlockSpec((None, *x.shape[1:3], None, size), lambda b, _, head: (b, 0, 0, head, 0))
            for x in sources
        ),
        compiler_params=triton.CompilerParams(num_warps=max(1, rows * columns // 1024)),
        # The scores and the gradient of the weights are made twice; that counts once.
        cost_estimate=_costs(sources, lines, products=5),
        interpret=interpret,
    )(sources[0], sources[-1], sources[-1], gradient)
    return (tuple(gradients),)


fused_attention.defvjp(_forward, _backward)


def _kernel(query, key, value, out, *, lines: Lines | None, rows: int, columns: int) -> None:
    """One head of tokens that attend to each other.

    Keys come ``columns`` at a time; the sums of the softmax are kept relative to the largest score
    so far.

    Args:
        query: reference to (N, d).
        key: to (M, d).
        value: to (M, d).
        out: to (N, d).
        lines: as in `fused_attention`.
        rows: tile of the queries, which holds all of them.
        columns: tile of the keys.
    """
    line = pl.program_id(1)
    asking = Tile.at(0, rows, query, lines, line)
    questions = asking.load(query)

    def load(step):
        asked = Tile.at(step * columns, columns, key, lines, line)
        return _scaled_scores(questions, asked.load(key), asked), asked.load(value)

    steps = pl.cdiv(_attending(key.shape[0], lines), columns)
    asking.store(out, mixture(load, steps, questions.shape))


def mixture(
    load: Callable[
        [Int32[Array, ""]], tuple[Float32[Array, "rows columns"], Float[Array, "columns d"]]
    ],
    steps: int,
    shape: tuple[int, int],
) -> Float32[Array, "rows d"]:
    """Values mixed by the softmax of scores, inside of a kernel.

    Args:
        load: scores and values of each of so many tiles of tokens.
        steps: how many.
        shape: of the result.
    """

    def add(step, carry):
        largest, total, mixed = carry
        scores, values = load(step)
        above = jnp.maximum(largest, scores.max(axis=1))
        weights = jnp.exp(scores - above[:, None])
        shrink = jnp.exp(largest - above)
        mixed = mixed * shrink[:, None] + triton.dot(weights.astype(values.dtype), values)
        return above, total * shrink + weights.sum(axis=1), mixed

    # A finite number, as the difference of two infinite ones is none.
    carry = jnp.full(shape[0], -1e30), jnp.zeros(shape[0]), jnp.zeros(shape)
    _, total, mixed = jax.lax.fori_loop(0, steps, add, carry)
    return mixed / total[:, None]


def _gradient_kernel(
    query, key, value, gradient, *outputs, lines: Lines | None, rows: int, columns: int
) -> None:
    """The gradients of one head of tokens that attend to each other, for all of its sources.

    With weights w = softmax(scores), the gradient of the scores is w (g - sum of w g) for that of
    the weights, g = gradient values^T. A first pass over the keys makes the sums.

    Args:
        query: reference to (N, d).
        key: to (M, d).
        value: to (M, d).
        gradient: of the output, to (N, d).
        outputs: to (N, 3, d); or to (N, 1, d) and (M, 2, d).
        lines: as in `fused_attention`.
        rows: tile of the queries, which holds all of them.
        columns: tile of the keys.
    """
    line = pl.program_id(1)
    asking = Tile.at(0, rows, query, lines, line)
    questions, received = (asking.load(x) for x in (query, gradient))

    def load(step):
        """A tile of keys, the scores and the gradient of the weights."""
        asked = Tile.at(step * columns, columns, key, lines, line)
        keys, values = (asked.load(x) for x in (key, value))
        return (
            asked,
            keys,
            _scaled_scores(questions, keys, asked),
            triton.dot(received, values, trans_b=True),
        )

    def add(step, carry):
        largest, total, mean = carry
        _, _, scores, of_weights = load(step)
        above = jnp.maximum(largest, scores.max(axis=1))
        weights = jnp.exp(scores - above[:, None])
        shrink = jnp.exp(largest - above)
        mean = mean * shrink + (weights * of_weights).sum(axis=1)
        return above, total * shrink + weights.sum(axis=1), mean

    steps = pl.cdiv(_attending(key.shape[0], lines), columns)
    carry = jnp.full(rows, -1e30), jnp.zeros(rows), jnp.zeros(rows)
    largest, total, mean = jax.lax.fori_loop(0, steps, add, carry)
    mean = mean / total

    def write(step, of_query):
        asked, keys, scores, of_weights = load(step)
        weights = jnp.exp(scores - largest[:, None]) / total[:, None]
        of_scores = weights * (of_weights - mean[:, None]) * questions.shape[1] ** -0.5
        of_scores = of_scores.astype(keys.dtype)
        held = outputs[-1].shape[1]
        of_key = triton.dot(of_scores, questions, trans_a=True)
        asked.store(outputs[-1], of_key, held - 2)
        of_value = triton.dot(weights.astype(keys.dtype), received, trans_a=True)
        asked.store(outputs[-1], of_value, held - 1)
        return of_query + triton.dot(of_scores, keys)

    of_query = jax.lax.fori_loop(0, steps, write, jnp.zeros(questions.shape))
    asking.store(outputs[0], of_query, 0)


class Tile(NamedTuple):
    """Some of the tokens that attend to each other.

    Attributes:
        tokens: their indices in the sequence, (tile,); those past the end lie outside of it.
        exists: whether there are so many, bool (tile,).
    """

    tokens: Int32[Array, "tile"]
    exists: Bool[Array, "tile"]

    @classmethod
    def at(
        cls,
        start: jax.Array | int,
        tile: int,
        reference,
        lines: Lines | None,
        line: jax.Array,
    ):
        """The tile from number ``start`` of a reference whose first axis is the sequence.

        With ``lines`` the numbers count the cells of the one ``line``.
        """
        number = start + jax.lax.iota(jnp.int32, tile)
        exists = number < _attending(reference.shape[0], lines)
        if lines is None:
            return cls(number, exists)
        of_row = line * lines.row + number
        of_column = lines.count * lines.row + (number - lines.row) * lines.count + line
        return cls(jnp.where(number < lines.row, of_row, of_column), exists)

    def load(self, reference) -> Float[Array, "tile d"]:
        """Its rows of a reference to (N, d), zeros past the end."""
        place, mask = self._entries(reference)
        return triton.load(reference.at[place], mask=mask, other=0.0)

    def store(self, reference, values: Float[Array, "tile d"], *index: int) -> None:
        """Writes them to a reference to (N, d), or to (N, n, d) with an index."""
        place, mask = self._entries(reference, *index)
        triton.store(reference.at[place], values.astype(reference.dtype), mask=mask)

    def _entries(self, reference, *index: int) -> tuple[tuple[jax.Array, ...], jax.Array]:
        """Indices of its rows' entries, and which of them exist, (tile, d) each."""
        shape = len(self.tokens), reference.shape[-1]
        rows = jnp.broadcast_to(self.tokens[:, None], shape)
        features = jax.lax.broadcasted_iota(jnp.int32, shape, 1)
        mask = jnp.broadcast_to(self.exists[:, None], shape)
        return (rows, *(jnp.full(shape, i, jnp.int32) for i in index), features), mask


def scores_of(
    questions: Float[Array, "rows d"], keys: Float[Array, "columns d"], asked: Tile
) -> Float32[Array, "rows columns"]:
    """Scores of a tile, -inf past the end of the keys."""
    return jnp.where(asked.exists[None], triton.dot(questions, keys, trans_b=True), -jnp.inf)


def _scaled_scores(
    questions: Float[Array, "rows d"], keys: Float[Array, "columns d"], asked: Tile
) -> Float32[Array, "rows columns"]:
    return scores_of(questions, keys, asked) * questions.shape[1] ** -0.5


def _attending(tokens: int, lines: Lines | None) -> int:
    """How many of the tokens of a sequence attend to each other."""
    return lines.tokens if lines else tokens


def _costs(sources: _Sources, lines: Lines | None, products: int) -> pl.CostEstimate:
    """Of so many products of a size of the scores by the features, padding left out."""
    (batch, count, _, heads, size), length = sources[0].shape, sources[-1].shape[1]
    scores = batch * heads * count * _attending(length, lines)
    numbers = products // 2 * sum(x.size for x in sources)
    return pl.CostEstimate(
        flops=2 * products * scores * size,
        transcendentals=scores,
        bytes_accessed=numbers * sources[0].dtype.itemsize,
    )


def _inputs(sources: _Sources) -> list[pl.BlockSpec]:
    """Queries, keys and values of one head of one sequence."""
    (_, count, _, _, size), (_, length, held, _, _) = sources[0].shape, sources[-1].shape
    parts = (count, 0), (length, held - 2), (length, held - 1)
    return [_of_one_head(tokens, size, index) for tokens, index in parts]


def _of_one_head(tokens: int, size: int, *index: int) -> pl.BlockSpec:
    return pl.BlockSpec(
        (None, tokens, *(None for _ in index), None, size),
        lambda b, _, head: (b, 0, *index, head, 0),
    )


def _tile_sizes(sources: _Sources, lines: Lines | None, scores: int) -> tuple[int, int]:
    """Queries that a program holds, all of them, and keys that it holds at a time."""
    rows, columns = (
        max(SMALLEST_TILE, power(_attending(x.shape[1], lines))) for x in (sources[0], sources[-1])
    )
    return rows, min(columns, _MOST_KEYS, scores // rows)


def power(number: int) -> int:
    """The next power of two."""
    return 1 << (number - 1).bit_length()
