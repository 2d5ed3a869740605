"""The kernels for Hopper: their tiles and weights by NumPy, when they are used, and on such a GPU.

Pallas' interpreter knows neither their copies nor their sums, so that a CPU cannot run them.
"""

import dataclasses
import functools
import importlib.util
import os
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from networks import fused_stage, hopper_stage
from networks.attention import BlockConfig, FromHeads, ToHeads
from networks.fused_attention import Lines
from networks.hopper_tiles import ROWS, LineTiles, line_marks, line_of_row, pieces

# Features of a cell, for which there are kernels: of heads a quarter.
WIDTHS = 64, 128
# Some lines of a game a tile; of two games, with short columns and with short rows; one line; all
# rows of a tile.
LINES = [Lines(9, 9, 9), Lines(6, 9, 4), Lines(8, 3, 7), Lines(2, 30, 20), Lines(16, 8, 8)]
NINE = LINES[0]


def block(width, dtype="bfloat16"):
    return BlockConfig(heads=4, head_dim=width // 4, mlp_factor=2, dtype=jnp.dtype(dtype))


def random_inputs(width, lines, games, agents=()):
    """Parameters of no special value, of so many agents, and the grids of some games."""
    exact = block(width, "float32")
    cells = jnp.zeros((2, width))
    attended = jnp.zeros((2, exact.heads, exact.head_dim))
    rng = np.random.default_rng(0)

    def draw(x):
        scale = 0.3 if x.ndim == 1 else 2 / np.sqrt(width)
        return jnp.asarray(scale * rng.normal(size=(*agents, *x.shape)), jnp.float32)

    inits = (
        functools.partial(ToHeads(exact, 3).init, x=cells),
        functools.partial(FromHeads(exact).init, x=cells, attended=attended),
    )
    params = tuple(
        jax.tree.map(draw, jax.eval_shape(x, jax.random.key(0))["params"]) for x in inits
    )
    grids = tuple(
        jnp.asarray(rng.normal(size=(*agents, games, *size, width)), jnp.bfloat16)
        for size in lines.grids
    )
    return params, grids


@functools.partial(jax.jit, static_argnums=0)
def layers(block, params, grids):
    return jax.vmap(functools.partial(fused_stage.layers, block), (None, 0))(params, grids)


def float32(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float32), tree)


def all_pieces(tiles, tile):
    """Of all threads, (part, cell, features, where they lie), as the copies of a tile make them."""
    for piece in pieces(tiles, np.arange(128), np.int64(tile * tiles.held)):
        exists = slice(None) if piece.exists is None else piece.exists
        of_eight = np.arange(8)
        features, places = piece.feature[exists, None] + of_eight, piece.place[exists, None]
        yield piece.part, piece.cell[exists, None], features, places // 2 + of_eight


def places_of(width):
    """As tensor cores find it: tiles of 8 rows of 128 bytes, in which 16 bytes change places."""
    row, feature = np.indices((ROWS, width))
    place = row // 8 * (16 * width) + feature // 64 * 1024 + row % 8 * 128 + feature % 64 * 2
    return (place ^ ((place >> 7 & 7) << 4)) // 2


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("lines", LINES)
def test_tiles_hold_the_tokens_of_their_lines(width, lines):
    games = 3
    tiles = LineTiles(lines, games, width)
    # Each cell has a number, the same of its line; each feature another.
    of_line = np.arange(games * lines.count).reshape(games, lines.count)
    owners = [
        np.broadcast_to(of_line[:, :, None], (games, *lines.grids[0])).reshape(-1),
        np.broadcast_to(of_line[:, None], (games, *lines.grids[1])).reshape(-1),
    ]
    times = [np.zeros((len(x), width), int) for x in owners]
    for tile in range(tiles.count):
        memory = np.full(ROWS * width, -1)
        for part, cell, features, places in all_pieces(tiles, tile):
            memory[places] = owners[part][cell] * width + features
            np.add.at(times[part], (cell, features), 1)
        matrix = memory[places_of(width)]
        found = matrix[:, 0] // width
        exists = matrix[:, 0] >= 0
        assert (matrix[exists] % width == np.arange(width)).all()
        assert (matrix[~exists] == -1).all()
        row = np.arange(ROWS)
        expected = tile * tiles.held + line_of_row(tiles, row)
        np.testing.assert_array_equal(found[exists], expected[exists])
        count = min(tiles.held, tiles.total - tile * tiles.held)
        assert exists.sum() == count * lines.tokens
        assert not set(line_of_row(tiles, row[exists])) & set(line_of_row(tiles, row[~exists]))
    assert all((x == 1).all() for x in times), "each cell is copied once"


@pytest.mark.parametrize("lines", [*LINES, Lines(5, 1, 1)])
def test_marks_leave_scores_within_lines_alone(lines):
    tiles = LineTiles(lines, 3, 64)
    of_queries, of_keys = float32(tuple(jnp.asarray(x, jnp.bfloat16) for x in line_marks(tiles)))
    products = of_queries @ of_keys.T
    line = line_of_row(tiles, np.arange(ROWS))
    exists = line < tiles.held
    same = (line[:, None] == line) & exists
    assert (products[exists][same[exists]] == 0).all()
    assert (products[exists][~same[exists]] < -1e30).all()
    assert (products[~exists] == 0).all()


def as_the_kernels(params, grids):
    """What the kernels compute, in float32, from their weights and tiles."""
    games, *_, width = grids[0].shape
    tiles, heads = LineTiles(Lines.of(grids), games, width), 4
    weights = hopper_stage.attention_weights(*params), hopper_stage.mlp_weights(params[1])
    (maps, projection, biases), (up, down, mlp_biases) = float32(weights)
    cells = [x.reshape(-1, width).copy() for x in grids]
    lines_of_rows = line_of_row(tiles, np.arange(ROWS))
    same = lines_of_rows[:, None] == lines_of_rows

    def normed(x):
        centered = x - x.mean(axis=1, keepdims=True)
        return centered / np.sqrt((centered**2).mean(axis=1, keepdims=True) + 1e-6)

    for tile in range(tiles.count):
        memory = np.zeros(ROWS * width, np.float32)
        for part, cell, features, places in all_pieces(tiles, tile):
            memory[places] = cells[part][cell, features]
        x = memory[places_of(width)]
        total = x + biases[-width:]
        units = (normed(x) @ maps.T).reshape(ROWS, heads, 3, -1)
        for head in range(heads):
            own = slice(head * width // heads, (head + 1) * width // heads)
            query, key, value = units[:, head].swapaxes(0, 1)
            scores = np.where(same, (query + biases[own]) @ key.T, -np.inf)
            weights = np.exp2(scores - scores.max(axis=1, keepdims=True))
            seen = weights / weights.sum(axis=1, keepdims=True) @ value
            total += seen @ projection[own]
        memory[places_of(width)] = total
        for part, cell, features, places in all_pieces(tiles, tile):
            cells[part][cell, features] = memory[places]
    of_units, of_cells = np.split(mlp_biases, [up.shape[1]])
    for index, x in enumerate(cells):
        units = 2 * jax.nn.gelu(normed(x) @ up + of_units)
        cells[index] = x + np.asarray(units) @ down + of_cells
    return tuple(x.reshape(grid.shape) for x, grid in zip(cells, grids, strict=True))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("lines", LINES[:2])
def test_its_weights_and_tiles_make_a_stage(width, lines):
    params, grids = random_inputs(width, lines, games=3)
    grids = float32(grids)
    expected = layers(block(width, "float32"), params, grids)
    for own, other, grid in zip(as_the_kernels(params, grids), expected, grids, strict=True):
        np.testing.assert_allclose(own, other, atol=0.05, rtol=0.02)
        assert np.abs(own - grid).mean() > 0.2, "not for want of anything done"


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("lines", LINES)
@pytest.mark.parametrize("agents", [(), (3,)])
def test_the_kernels_are_a_stage(width, lines, agents):
    if not fused_stage.is_for_hopper(block(width), random_inputs(width, lines, games=8)[1]):
        pytest.skip("needs a GPU of the Hopper generation")
    # So many that a warpgroup has several tiles.
    params, grids = random_inputs(width, lines, games=1000, agents=agents)
    run, expect = hopper_stage.hopper_stage, functools.partial(layers, block(width, "float32"))
    if agents:
        run, expect = jax.vmap(run), jax.vmap(expect)
    with jax.default_matmul_precision("highest"):
        expected = expect(params, tuple(x.astype(jnp.float32) for x in grids))
    for own, other in zip(jax.jit(run)(params, grids), expected, strict=True):
        assert own.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.asarray(own, np.float32), other, atol=0.1, rtol=0.05)


def fits(lines=NINE, games=64, width=128, **sizes):
    grids = tuple(jnp.zeros((games, *size, width), jnp.bfloat16) for size in lines.grids)
    return hopper_stage.applies(dataclasses.replace(block(width), **sizes), grids)


def test_it_is_for_certain_sizes(monkeypatch):
    monkeypatch.setattr(hopper_stage, "finds_libdevice", lambda: True)
    assert all(fits(lines, width=width) for lines in LINES for width in WIDTHS)
    assert fits(games=8)
    assert not fits(games=9), "cells that are not eights"
    assert not fits(Lines(4, 1, 1), games=8), "too few cells"
    assert fits(games=9, width=64), "any number of cells"
    assert fits(Lines(4, 1, 1), games=1, width=64)
    assert fits(Lines(2, 40, 24))
    assert not fits(Lines(2, 40, 25)), "longer than the tile"
    for sizes in ({"heads": 8}, {"heads": 2, "head_dim": 64}, {"mlp_factor": 4}):
        assert not fits(**sizes)
        assert not fits(width=64, **sizes)
    assert not fits(width=32)
    monkeypatch.setattr(hopper_stage, "finds_libdevice", lambda: False)
    assert not fits()


@pytest.fixture
def on_hopper(monkeypatch):
    """A GPU and libraries that the kernels are for, by what they say of themselves."""
    monkeypatch.setattr(fused_stage, "generation", lambda: 9)
    monkeypatch.setattr(jax, "__version_info__", (0, 11, 2))
    monkeypatch.setattr(hopper_stage, "finds_libdevice", lambda: True)


def test_it_is_for_hopper_and_versions_of_jax(on_hopper, monkeypatch):
    _, grids = random_inputs(128, NINE, games=8)
    fits = functools.partial(fused_stage.is_for_hopper, block(128), grids)
    assert fits()
    for version, expected in {(0, 10, 2): False, (0, 11, 3): True, (0, 12, 0): False}.items():
        monkeypatch.setattr(jax, "__version_info__", version)
        assert fits() == expected
    monkeypatch.setattr(jax, "__version_info__", (0, 11, 2))
    monkeypatch.setattr(fused_stage, "generation", lambda: 10)
    assert not fits()


@pytest.mark.parametrize(
    ("folders", "files", "expected"),
    [
        ([], [], False),
        ([], ["libdevice.10.bc"], True),
        (["/usr/local/cuda"], ["/usr/local/cuda"], True),
        (["/site/nvidia/cu13"], ["/site/nvidia/cu13"], True),
        (["/site/jax_plugins/xla_cuda13/cuda"], ["/site/jax_plugins/xla_cuda13/cuda"], True),
        (["/opt/cuda", "/site/nvidia/cu13"], ["/site/nvidia/cu13"], False),
    ],
)
def test_libdevice_is_sought_where_mosaic_seeks_it(monkeypatch, folders, files, expected):
    def inside(places, *names):
        return {
            x if x.endswith(".bc") else os.path.join(x, "nvvm", "libdevice", *names) for x in places
        }

    spec = SimpleNamespace(submodule_search_locations=["/site/jax_plugins"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    monkeypatch.setattr(os.path, "isdir", lambda x: os.path.normpath(x) in inside(folders))
    existing = inside(files, "libdevice.10.bc")
    monkeypatch.setattr(os.path, "isfile", lambda x: os.path.normpath(x) in existing)
    assert hopper_stage.finds_libdevice.__wrapped__() == expected


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("agents", [(), (2,)])
def test_a_fused_stage_is_made_of_it_where_it_applies(on_hopper, monkeypatch, width, agents):
    calls, config = [], block(width)

    def stage(params, grids):
        calls.append(grids[0].shape)
        return layers(config, params, grids)

    monkeypatch.setattr(hopper_stage, "hopper_stage", stage)
    params, grids = random_inputs(width, NINE, games=8, agents=agents)
    run = jax.vmap(functools.partial(fused_stage.fused_stage, config), (None, 0))
    expect = functools.partial(layers, config)
    if agents:
        run, expect = jax.vmap(run), jax.vmap(expect)
    found, expected = jax.jit(run)(params, grids), expect(params, grids)
    assert calls == [(8, 9, 9, width)], "all games of an agent together"
    for own, other in zip(float32(found), float32(expected), strict=True):
        np.testing.assert_allclose(own, other, atol=0.05, rtol=0.05)


@pytest.mark.skipif(jax.__version_info__ < (0, 11, 2), reason="needs Mosaic as of JAX 0.11.2")
@pytest.mark.parametrize(("width", "kernels"), [(64, 1), (128, 2)])
@pytest.mark.parametrize("agents", [(), (2,)])
def test_it_translates_once_for_all_stages(width, kernels, agents):
    params, grids = random_inputs(width, LINES[1], games=8, agents=agents)
    run = jax.vmap(hopper_stage.hopper_stage) if agents else hopper_stage.hopper_stage
    repeated = jax.jit(lambda params, grids: run(params, run(params, run(params, grids))))
    program = repeated.trace(params, grids).lower(lowering_platforms=("cuda",)).as_text()
    assert program.count("@mosaic_gpu") == kernels
    assert program.count("call @hopper_stage") == 3
