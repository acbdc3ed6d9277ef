"""The figures of a run, drawn with Matplotlib's object interface: no global state, no window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlock.metrics import Stage

_COLOURS = {
    "train": "#4c72b0",
    "quantise": "#8c8c8c",
    "encrypt": "#dd8452",
    "aggregate": "#55a868",
    "decrypt": "#c44e52",
    "step": "#937860",
    "evaluate": "#8172b3",
    "track": "#da8bc3",
    "other": "#cccccc",
}


def accuracy_figure(
    accuracies: Mapping[int, float], title: str, target: float | None = None
) -> Any:
    """Test accuracy by round, of those that were evaluated, and the target if there is one."""
    figure, axes = _figure(title)
    axes.plot(
        list(accuracies),
        list(accuracies.values()),
        marker="o" if len(accuracies) <= 50 else "",
        color=_COLOURS["train"],
    )
    last = max(accuracies)
    axes.annotate(
        f"{accuracies[last]:.4f}",
        (last, accuracies[last]),
        textcoords="offset points",
        xytext=(0, 8),
        ha="right",
    )
    if target is not None:
        axes.axhline(target, linestyle="--", color=_COLOURS["quantise"])
        axes.annotate(
            f"target {target:g}",
            (min(accuracies), target),
            textcoords="offset points",
            xytext=(0, 4),
        )
    axes.set(xlabel="round", ylabel="test accuracy")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.margins(y=0.15)
    axes.grid(alpha=0.3)
    return figure


def stages_figure(seconds: Mapping[Stage, float], title: str) -> Any:
    """Seconds of each stage, summed over rounds and clients."""
    figure, axes = _figure(title, height=3.4)
    names = list(seconds)
    bars = axes.barh(
        names,
        [seconds[name] for name in names],
        color=[_COLOURS.get(name, "#cccccc") for name in names],
    )
    axes.bar_label(bars, fmt="%.2f s", padding=4)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set(xlabel="seconds, all rounds and clients")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def bytes_figure(uplink: float, parameters: int, scheme: str, title: str) -> Any:
    """One client's upload in one round, against the same update as plain float32."""
    figure, axes = _figure(title, height=2.6)
    sizes = {"float32, not encrypted": 4 * parameters, f"this run ({scheme})": uplink}
    bars = axes.barh(
        [f"{name}\n{size / parameters:.2f} bytes per parameter" for name, size in sizes.items()],
        [size / 1000 for size in sizes.values()],
        color=[_COLOURS["other"], _COLOURS["encrypt"]],
    )
    axes.bar_label(bars, labels=[f"{size / 1000:,.0f} kB" for size in sizes.values()], padding=4)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set(xlabel="kB uploaded by a client in a round")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def split_figure(counts: NDArray[np.int64], title: str) -> Any:
    """Who has what: each client's samples of each class, and above them its size.

    Args:
        counts: int64[clients, classes].
        title: above all.
    """
    from matplotlib.figure import Figure

    clients, classes = counts.shape
    height = min(max(1.2 + 0.28 * classes, 2.6), 7.0)
    figure = Figure(figsize=(8.5, 1.4 + height), dpi=120, layout="constrained")
    sizes, cells = figure.subplots(2, 1, sharex=True, height_ratios=[1, height])
    sizes.set_title(title, fontsize=11)
    sizes.bar(
        range(clients),
        counts.sum(axis=1),
        width=0.8 if clients <= 50 else 1.0,
        color=_COLOURS["train"],
    )
    sizes.set(ylabel="samples")
    sizes.yaxis.get_major_locator().set_params(nbins=2, integer=True)
    sizes.spines[["top", "right"]].set_visible(False)
    image = cells.imshow(counts.T, aspect="auto", cmap="Blues", vmin=0, interpolation="nearest")
    figure.colorbar(image, ax=cells, label="samples of the class", fraction=0.04, pad=0.01)
    cells.set(xlabel="client", ylabel="class")
    for axis in (cells.xaxis, cells.yaxis):
        axis.get_major_locator().set_params(integer=True)
    if clients <= 20:
        cells.set_xticks(range(clients))
    if classes <= 20:
        cells.set_yticks(range(classes))
    if clients * classes <= 200 and clients <= 20:
        for client, row in enumerate(counts):
            for label, count in enumerate(row):
                dark = count > counts.max() / 2
                cells.text(
                    client,
                    label,
                    count,
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="w" if dark else "k",
                )
    return figure


def confusion_figure(counts: NDArray[np.int64], title: str) -> Any:
    """What was taken for what: of each class (row), the share of its samples that was given each
    answer (column).

    Args:
        counts: int64[classes, classes].
        title: above all.
    """
    from matplotlib.figure import Figure

    classes = len(counts)
    side = min(max(2.5 + 0.45 * classes, 4.0), 9.0)
    figure = Figure(figsize=(side + 1, side), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=11)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # A square root shows the few mistakes beside the many right answers.
    image = axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, label="share of the class", fraction=0.045, pad=0.02)
    ticks = [0, 0.01, 0.1, 0.25, 0.5, 1]
    bar.set_ticks([tick**0.5 for tick in ticks], labels=[f"{tick:g}" for tick in ticks])
    axes.set(xlabel="answer", ylabel="class")
    if classes <= 20:
        axes.set_xticks(range(classes))
        axes.set_yticks(range(classes))
        for row in range(classes):
            for column in range(classes):
                colour = "w" if shares[row, column] > 0.25 else "k"
                axes.text(
                    column,
                    row,
                    counts[row, column],
                    ha="center",
                    va="center",
                    fontsize=7,
                    color=colour,
                )
    return figure


def _figure(title: str, height: float = 4.0) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, height), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=11)
    return figure, axes
