"""How pictures look, those of a run and those of a sweep: colours, sizes, and what axes have in
common. Matplotlib's object interface is used throughout: no global state, no window.

A run's pictures have margins that are stated, in inches: Matplotlib's own layout measures every
text several times, and took half of the time of drawing them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlock.metrics import Stage

BLUE = "#4c72b0"
ORANGE = "#dd8452"
GREEN = "#55a868"
RED = "#c44e52"
PURPLE = "#8172b3"
BROWN = "#937860"
PINK = "#da8bc3"
GREY = "#8c8c8c"
CYAN = "#64b5cd"
PALE = "#b8b8b8"
FAINT = "#cccccc"

_BESIDE_BAR = 1.15  # inches to the right of axes that have a colour bar there
_BAR_GAP = 0.1
_BAR_WIDTH = 0.2
_TOP = 0.32  # a line of title
_BOTTOM = 0.52  # numbers, and a line of label
_RIGHT = 0.25
_BETWEEN = 0.14
_PAGE = 12.0
_TILE_GAP = 0.08
_LARGEST_TILE = 1.25
_DPI = 120
_TITLE = 11  # points
_STAGES: Mapping[Stage, str] = {
    Stage.TRAIN: BLUE,
    Stage.QUANTISE: GREY,
    Stage.ENCRYPT: ORANGE,
    Stage.AGGREGATE: GREEN,
    Stage.VERIFY: CYAN,
    Stage.DECRYPT: RED,
    Stage.STEP: BROWN,
    Stage.EVALUATE: PURPLE,
    Stage.TRACK: PINK,
}


Drawn = tuple[Any, Any]  # a figure and its axes


def stage_colour(stage: Stage) -> str:
    """A stage's colour in every picture; a stage that was given none is drawn, faintly."""
    return _STAGES.get(stage, FAINT)


def figure(title: str, height: float = 4.0, width: float = 7.5, left: float = 0.95) -> Drawn:
    """One plot with a title above it: the figure and its axes. Sizes are in inches, `left` that of
    what is written beside the axes."""
    drawing = _canvas(width, height)
    axes = _axes(drawing, left, _BOTTOM, width - left - _RIGHT, height - _BOTTOM - _TOP)
    axes.set_title(title, fontsize=_TITLE)
    return drawing, axes


def matrix(title: str, height: float) -> Drawn:
    """Square axes that leave room for a colour bar: the figure and its axes."""
    left = 0.6
    side = height - _BOTTOM - _TOP
    drawing = _canvas(left + side + _BESIDE_BAR, height)
    axes = _axes(drawing, left, _BOTTOM, side, side)
    axes.set_title(title, fontsize=_TITLE)
    return drawing, axes


def panels(title: str, count: int = 1, height: float = 4.0) -> tuple[Any, Any]:
    """Plots beside each other under one title: the figure and the axes of each.

    Matplotlib lays these out, since what a sweep searches has names of any length.
    """
    drawing = _canvas(7.5 if count == 1 else 5.2 * count, height, layout="constrained")
    axes = drawing.subplots(1, count, squeeze=False)[0]
    drawing.suptitle(title, fontsize=_TITLE)
    return drawing, axes


def tiles(title: str, rows: int, columns: int, left: float, below: float) -> tuple[Any, Any]:
    """Square pictures in rows on a page, with this much room (inches) to the left of each row and
    below all: the figure and its axes[row][column], without frames."""
    side = min((_PAGE - left - _RIGHT) / columns, _LARGEST_TILE)
    inner = side - _TILE_GAP
    height = below + rows * side + _TOP
    drawing = _canvas(_PAGE, height)
    drawing.text(0.5, 1 - _TOP / 2 / height, title, fontsize=_TITLE, ha="center", va="center")
    grid = []
    for row in range(rows):
        bottom = below + (rows - 1 - row) * side
        line = [_axes(drawing, left + at * side, bottom, inner, inner) for at in range(columns)]
        for axes in line:
            axes.set_axis_off()
        grid.append(line)
    return drawing, grid


def stacked(title: str, heights: tuple[float, float], width: float) -> tuple[Any, Any]:
    """Two plots over one horizontal axis, of these heights, the title above, with room for a colour
    bar beside the lower one: the figure and the axes of each."""
    left = 0.95
    upper, lower = heights
    inner = width - left - _BESIDE_BAR
    drawing = _canvas(width, _BOTTOM + lower + _BETWEEN + upper + _TOP)
    above = _axes(drawing, left, _BOTTOM + lower + _BETWEEN, inner, upper)
    below = _axes(drawing, left, _BOTTOM, inner, lower, sharex=above)
    above.tick_params(labelbottom=False)
    above.set_title(title, fontsize=_TITLE)
    return drawing, (above, below)


def colour_bar(axes: Any, image: Any, label: str) -> Any:
    """What an image's colours mean, beside its axes."""
    drawing = axes.figure
    width, height = drawing.get_size_inches()
    box = axes.get_position()
    place = _axes(
        drawing, box.x1 * width + _BAR_GAP, box.y0 * height, _BAR_WIDTH, box.height * height
    )
    return drawing.colorbar(image, cax=place, label=label)


def logarithmic(axes: Any, which: str) -> None:
    """Make the x or the y axis logarithmic, with plain numbers on it."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:g}")


def epsilon_axis(axes: Any, unit: str, delta: float) -> None:
    """The horizontal axis of what privacy costs, for whom in words."""
    logarithmic(axes, "x")
    axes.set(xlabel=f"epsilon of one {unit}, at delta {delta:g} (less is more private)")


def whole_numbers(axis: Any) -> None:
    """Ticks at integers only, for what is counted."""
    axis.get_major_locator().set_params(integer=True)


def open_frame(axes: Any) -> None:
    """No line on top and on the right, where bars end in free space."""
    axes.spines[["top", "right"]].set_visible(False)


def write_cells(axes: Any, texts: NDArray[Any], dark: NDArray[np.bool_]) -> None:
    """A text in each cell of a drawn matrix, white where the cell is dark.

    Args:
        axes: where the matrix is drawn, a unit a cell.
        texts: any[rows, columns].
        dark: bool[rows, columns].
    """
    rows, columns = texts.shape
    for column in range(columns):
        for row in range(rows):
            axes.text(
                column,
                row,
                texts[row, column],
                ha="center",
                va="center",
                fontsize=7,
                color="w" if dark[row, column] else "k",
            )


def _canvas(width: float, height: float, layout: Any = None) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI, layout=layout)


def _axes(
    drawing: Any, left: float, bottom: float, width: float, height: float, sharex: Any = None
) -> Any:
    """Axes at a place in inches."""
    whole, high = drawing.get_size_inches()
    place = (left / whole, bottom / high, width / whole, height / high)
    return drawing.add_axes(place, sharex=sharex)
