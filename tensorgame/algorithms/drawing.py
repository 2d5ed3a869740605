"""A picture of the three factor matrices of an algorithm."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from tensorgame.algorithms.description import signed
from tensorgame.algorithms.factorization import Factorization, number_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Lengths in inches. The cells of a wide picture shrink until they are two pixels wide.
_WIDTH, _LARGEST_CELL, _SMALLEST_CELL = 14.0, 0.3, 0.014
_NARROWEST, _SIDE, _HEAD, _FOOT, _GAP = 4.4, 0.8, 0.8, 0.6, 0.25
# The largest size of type, for one letter an inch, at which a title stays within the picture.
_TITLE_POINTS = 115
# Below these sizes of cells there are no names of rows, and no lines between cells.
_CELL_WITH_NAME, _CELL_WITH_LINE = 0.12, 0.05
_PIXELS = 150
_LEGEND_ENTRIES, _LEGEND_PATCH, _LEGEND_LETTER = 12, 0.4, 0.08

# For positive multiples of 1, 1+i, i, -1+i and so on, an eighth of a turn each.
_HUES = np.array(
    [
        (0.70, 0.09, 0.17),
        (0.84, 0.25, 0.60),
        (0.49, 0.18, 0.62),
        (0.32, 0.33, 0.78),
        (0.13, 0.40, 0.67),
        (0.00, 0.55, 0.60),
        (0.11, 0.47, 0.22),
        (0.90, 0.58, 0.05),
    ]
)


def draw(factorization: Factorization, path: str | os.PathLike[str]) -> None:
    """Draws u, v and w as matrices of coloured cells, after Fig. 4 of the AlphaTensor paper.

    Rows are the entries of a, b and c, columns the products. Zero is white, positive numbers are
    red and negative ones blue; multiples of i are purple and of -i green, with other colours
    between, and the larger of two numbers is the darker. Residues modulo p stand for the integers
    of smallest size.

    Args:
      factorization: any; it is not checked.
      path: where to. Its ending tells the format: .png, .pdf, .svg and others of matplotlib.

    Raises:
      ValueError: matplotlib has no format with this ending.
      OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    values, counts, indices = _cells(factorization)
    colours = _colours(values)
    rows, rank = sum(map(len, indices)), factorization.rank
    cell = float(np.clip(_WIDTH / max(rank, rows), _SMALLEST_CELL, _LARGEST_CELL))
    width = max(rank * cell + 2 * _SIDE, _NARROWEST)
    height = _HEAD + rows * cell + 2 * _GAP + _FOOT
    figure = Figure(figsize=(width, height))
    title = factorization.summary()
    size = min(11, _TITLE_POINTS * width / len(title))
    figure.text(0.5, 1 - 0.25 / height, title, size=size, ha="center", va="center")
    _draw_legend(figure, values, counts, colours, factorization.denominator)
    left, y = (width - rank * cell) / 2, height - _HEAD
    for letter, index, labels in zip("uvw", indices, factorization.target.labels, strict=True):
        tall = len(index) * cell
        y -= tall
        axes = figure.add_axes((left / width, y / height, rank * cell / width, tall / height))
        _draw_factor(axes, colours[index], labels, cell)
        middle = (left - 0.6) / width, (y + tall / 2) / height
        figure.text(*middle, letter, style="italic", size=14, ha="center", va="center")
        y -= _GAP
    _number_products(axes, rank, cell)
    # Cells of a whole number of pixels are all equally wide.
    figure.savefig(path, dpi=round(cell * _PIXELS) / cell)


def _cells(factorization: Factorization) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """The distinct numerators (N, 2), how often each occurs, and the factors as indices of them."""
    factors = [
        signed(factor, factorization.modulus)
        for factor in (factorization.u, factorization.v, factorization.w)
    ]
    if not factorization.is_complex:
        factors = [np.stack([factor, np.zeros_like(factor)], axis=-1) for factor in factors]
    flat = np.concatenate([factor.reshape(-1, 2) for factor in factors])
    values, inverse, counts = np.unique(flat, axis=0, return_inverse=True, return_counts=True)
    ends = np.cumsum([factor.size // 2 for factor in factors])[:-1]
    parts = np.split(inverse.reshape(-1), ends)
    return (
        values,
        counts,
        [part.reshape(f.shape[:2]) for part, f in zip(parts, factors, strict=True)],
    )


def _colours(values: np.ndarray) -> np.ndarray:
    """Colours of Gaussian integers (N, 2): RGB (N, 3), uint8."""
    numbers = values[:, 0] + 1j * values[:, 1]
    turn = np.angle(numbers) / (np.pi / 4) % 8
    before = turn.astype(int) % 8
    share = (turn % 1)[:, None]
    hues = (1 - share) * _HUES[before] + share * _HUES[(before + 1) % 8]
    # By order of size: next to a single large number all others would fade otherwise.
    sizes, order = np.unique(np.abs(numbers[numbers != 0]).round(6), return_inverse=True)
    strengths = np.zeros(len(numbers))
    strengths[numbers != 0] = 1 - 0.65 * (1 - (order.reshape(-1) + 1) / len(sizes))
    return (255 * (1 - strengths[:, None] * (1 - hues))).round().astype(np.uint8)


def _draw_legend(
    figure: Figure, values: np.ndarray, counts: np.ndarray, colours: np.ndarray, denominator: int
) -> None:
    """What the colours mean: for all numbers if they fit, or else for those that occur most."""
    from matplotlib.patches import Patch

    width, height = figure.get_size_inches()
    texts = [number_text(*value, denominator) for value in values.tolist()]
    nonzero = np.flatnonzero(values.any(axis=1))
    room = int(width / (_LEGEND_PATCH + _LEGEND_LETTER * max(map(len, texts))))
    most = min(_LEGEND_ENTRIES, room)
    if len(nonzero) > most:
        most = max(1, most - 1)
    handles = []
    for n in np.sort(nonzero[np.argsort(-counts[nonzero], kind="stable")][:most]):
        style = {"facecolor": colours[n] / 255, "edgecolor": "0.6", "linewidth": 0.5}
        handles.append(Patch(label=texts[n].replace("-", "\N{MINUS SIGN}"), **style))
    if more := len(nonzero) - len(handles):
        handles.append(Patch(alpha=0, label=f"and {more} more"))
    figure.legend(
        handles=handles,
        loc="center",
        bbox_to_anchor=(0.5, 1 - 0.55 / height),
        ncols=max(1, len(handles)),
        frameon=False,
        fontsize=9,
        handlelength=0.9,
        handleheight=0.9,
        columnspacing=1.2,
        handletextpad=0.4,
    )


def _draw_factor(axes: Axes, image: np.ndarray, labels: tuple[str, ...], cell: float) -> None:
    """One matrix: an image (rows, R, 3), uint8, with the names of its rows, where there is room."""
    rows, rank = image.shape[:2]
    axes.imshow(image, aspect="auto", interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set(color="0.4", linewidth=0.8)
    if cell >= _CELL_WITH_LINE:
        style = {"colors": "0.85", "linewidth": 0.5}
        axes.hlines(np.arange(0.5, rows - 1), -0.5, rank - 0.5, **style)
        axes.vlines(np.arange(0.5, rank - 1), -0.5, rows - 0.5, **style)
    if cell >= _CELL_WITH_NAME:
        axes.set_yticks(range(rows), labels, size=min(9, 46 * cell))
        axes.tick_params(axis="y", length=0, pad=2)


def _number_products(axes: Axes, rank: int, cell: float) -> None:
    """Numbers below the last matrix, as many as there is room for."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100) if step * cell >= 0.24)
    numbers = range(step, rank + 1, step)
    axes.set_xticks([number - 1 for number in numbers], map(str, numbers), size=8)
    axes.tick_params(axis="x", length=2, pad=2)
    axes.set_xlabel("products", size=9)
