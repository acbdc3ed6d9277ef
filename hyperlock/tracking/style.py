"""How pictures look, those of a run and those of a sweep: colours, sizes, and what axes have in
common. Matplotlib's object interface is used throughout: no global state, no window."""

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
PALE = "#b8b8b8"
FAINT = "#cccccc"

_DPI = 120
_TITLE = 11  # points
_STAGES: Mapping[Stage, str] = {
    Stage.TRAIN: BLUE,
    Stage.QUANTISE: GREY,
    Stage.ENCRYPT: ORANGE,
    Stage.AGGREGATE: GREEN,
    Stage.DECRYPT: RED,
    Stage.STEP: BROWN,
    Stage.EVALUATE: PURPLE,
    Stage.TRACK: PINK,
}


def stage_colour(stage: Stage) -> str:
    """A stage's colour in every picture; a stage that was given none is drawn, faintly."""
    return _STAGES.get(stage, FAINT)


def figure(title: str, height: float = 4.0, width: float = 7.5) -> tuple[Any, Any]:
    """One plot with a title above it: the figure and its axes. Sizes are in inches."""
    drawing = _canvas(width, height)
    axes = drawing.subplots()
    axes.set_title(title, fontsize=_TITLE)
    return drawing, axes


def panels(title: str, count: int = 1, height: float = 4.0) -> tuple[Any, Any]:
    """Plots beside each other under one title: the figure and the axes of each."""
    drawing = _canvas(7.5 if count == 1 else 5.2 * count, height)
    axes = drawing.subplots(1, count, squeeze=False)[0]
    drawing.suptitle(title, fontsize=_TITLE)
    return drawing, axes


def stacked(title: str, heights: tuple[float, float], width: float) -> tuple[Any, Any]:
    """Two plots over one horizontal axis, as high as `heights` relate, the title above: the figure
    and the axes of each."""
    drawing = _canvas(width, 0.4 + sum(heights))
    axes = drawing.subplots(2, 1, sharex=True, height_ratios=heights)
    axes[0].set_title(title, fontsize=_TITLE)
    return drawing, axes


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


def _canvas(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
