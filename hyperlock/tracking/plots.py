"""The figures of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlock.metrics import Stage
from hyperlock.tracking import style

_MARKED_ROUNDS = 50  # with more, a mark a round would hide the line
_NAMED = 20  # clients or classes; with more, each one's number on the axis would overlap
_WRITTEN_CELLS = 200  # with more, numbers in the cells could not be read


def accuracy_figure(
    accuracies: Mapping[int, float], title: str, target: float | None = None
) -> Any:
    """Test accuracy by round, of those that were evaluated, and the target if there is one."""
    figure, axes = style.figure(title)
    axes.plot(
        list(accuracies),
        list(accuracies.values()),
        marker="o" if len(accuracies) <= _MARKED_ROUNDS else "",
        color=style.BLUE,
    )

    # The last one by its value, and the target as a line across.
    last = max(accuracies)
    axes.annotate(
        f"{accuracies[last]:.4f}",
        (last, accuracies[last]),
        textcoords="offset points",
        xytext=(0, 8),
        ha="right",
    )
    if target is not None:
        axes.axhline(target, linestyle="--", color=style.GREY)
        axes.annotate(
            f"target {target:g}",
            (min(accuracies), target),
            textcoords="offset points",
            xytext=(0, 4),
        )

    axes.set(xlabel="round", ylabel="test accuracy")
    style.whole_numbers(axes.xaxis)
    axes.margins(y=0.15)
    axes.grid(alpha=0.3)
    return figure


def privacy_figure(
    points: Sequence[tuple[float, float, float]], unit: str, delta: float, title: str
) -> Any:
    """Test accuracy against what had been spent by then, to who knows who took part and, where that
    is less, to who does not.

    Args:
        points: epsilon, known and hidden, and accuracy, round by round.
        unit: whose presence is hidden.
        delta: of both.
        title: of the picture.
    """
    figure, axes = style.figure(title)
    known, hidden, accuracies = zip(*points, strict=True)
    marker = "o" if len(points) <= _MARKED_ROUNDS else ""
    curves = [(known, style.BLUE, "who took part is known")]
    if hidden != known:
        curves.append((hidden, style.ORANGE, "who took part is hidden"))
    for spent, colour, label in curves:
        axes.plot(spent, accuracies, marker=marker, color=colour, label=label)
    style.epsilon_axis(axes, unit, delta)
    axes.set(ylabel="test accuracy")
    axes.margins(y=0.15)
    axes.grid(alpha=0.3)
    if len(curves) > 1:
        axes.legend(frameon=False)
    return figure


def stages_figure(seconds: Mapping[Stage, float], title: str) -> Any:
    """Seconds of each stage, summed over rounds and clients."""
    figure, axes = style.figure(title, height=3.4, left=0.9)
    bars = axes.barh(
        list(seconds),
        list(seconds.values()),
        color=[style.stage_colour(stage) for stage in seconds],
    )
    axes.bar_label(bars, fmt="%.2f s", padding=4)
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set(xlabel="seconds, all rounds and clients")
    style.open_frame(axes)
    return figure


def bytes_figure(uplink: float, parameters: int, scheme: str, title: str) -> Any:
    """One client's upload in one round, against the same update as plain float32."""
    figure, axes = style.figure(title, height=2.6, left=2.3)
    sizes = {"float32, not encrypted": 4 * parameters, f"this run ({scheme})": uplink}
    bars = axes.barh(
        [f"{name}\n{size / parameters:.2f} bytes per parameter" for name, size in sizes.items()],
        [size / 1000 for size in sizes.values()],
        color=[style.FAINT, style.stage_colour(Stage.ENCRYPT)],
    )
    axes.bar_label(bars, labels=[f"{size / 1000:,.0f} kB" for size in sizes.values()], padding=4)
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set(xlabel="kB uploaded by a client in a round")
    style.open_frame(axes)
    return figure


def split_figure(counts: NDArray[np.int64], title: str) -> Any:
    """Who has what: each client's samples of each class, and above them its size.

    Args:
        counts: int64[clients, classes].
        title: above all.
    """
    clients, classes = counts.shape
    height = min(max(0.8 + 0.28 * classes, 2.0), 7.0)
    figure, (sizes, cells) = style.stacked(title, (0.9, height), width=8.6)

    # Above: how many samples each client has.
    width = 0.8 if clients <= 50 else 1.0
    sizes.bar(range(clients), counts.sum(axis=1), width=width, color=style.BLUE)
    sizes.set(ylabel="samples")
    sizes.yaxis.get_major_locator().set_params(nbins=2, integer=True)
    style.open_frame(sizes)

    # Below: of which classes.
    image = cells.imshow(counts.T, aspect="auto", cmap="Blues", vmin=0, interpolation="nearest")
    style.colour_bar(cells, image, "samples of the class")
    cells.set(xlabel="client", ylabel="class")
    style.whole_numbers(cells.xaxis)
    style.whole_numbers(cells.yaxis)
    if clients <= _NAMED:
        cells.set_xticks(range(clients))
    if classes <= _NAMED:
        cells.set_yticks(range(classes))
    if clients * classes <= _WRITTEN_CELLS and clients <= _NAMED:
        half = counts.max() / 2
        style.write_cells(cells, counts.T, dark=(counts > half).T)
    return figure


def confusion_figure(counts: NDArray[np.int64], title: str) -> Any:
    """What was taken for what: of each class (row), the share of its samples that was given each
    answer (column).

    Args:
        counts: int64[classes, classes].
        title: above all.
    """
    classes = len(counts)
    side = min(max(2.5 + 0.45 * classes, 4.0), 9.0)
    figure, axes = style.matrix(title, side)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    # A square root shows the few mistakes beside the many right answers.
    image = axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    bar = style.colour_bar(axes, image, "share of the class")
    ticks = [0, 0.01, 0.1, 0.25, 0.5, 1]
    bar.set_ticks([tick**0.5 for tick in ticks], labels=[f"{tick:g}" for tick in ticks])
    axes.set(xlabel="answer", ylabel="class")
    if classes <= _NAMED:
        axes.set_xticks(range(classes))
        axes.set_yticks(range(classes))
        style.write_cells(axes, counts, dark=shares > 0.25)
    return figure
