"""The pictures of an audit."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from hyperlock.audit import inversion, membership
from hyperlock.audit.inversion import Row
from hyperlock.audit.membership import FALSE_ALARMS, Membership
from hyperlock.tracking import style

_LEFT = 2.7  # inches, for what a row is of
_COLOURS = (style.BLUE, style.ORANGE)
_LEAST = 1e-3  # rate of false alarms, on the logarithmic axis


def inversion_figure(rows: Sequence[Row], title: str) -> Any:
    """The originals, and under each what every message gave away of it."""
    columns = len(rows[0].images)
    figure, grid = style.tiles(title, len(rows), columns, _LEFT, below=0.55)
    height = figure.get_size_inches()[1]
    for row, line in zip(rows, grid, strict=True):
        for axes, image in zip(line, row.images, strict=True):
            axes.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        box = line[0].get_position()
        middle = (box.y0 + box.y1) / 2
        figure.text(0.016, middle, _said(row), fontsize=10, va="center", linespacing=1.35)
    wrapped = textwrap.fill(inversion.WORST_CASE, 160)
    figure.text(0.016, 0.1 / height, wrapped, fontsize=9, va="bottom")
    return figure


def membership_figure(found: Membership, title: str) -> Any:
    """The curve of each attack with its interval, as it is and where false alarms are few."""
    figure, (whole, few) = style.panels(title, 2, height=5.2)
    for axes in (whole, few):
        axes.plot([_LEAST / 10, 1], [_LEAST / 10, 1], "--", color=style.GREY, label="guessing")
        for (attack, curve), colour in zip(found.curves.items(), _COLOURS, strict=True):
            label = f"{attack}: area {curve.area}"
            axes.plot(curve.false, curve.true, color=colour, label=label)
            axes.fill_between(curve.false, *curve.band, color=colour, alpha=0.2, linewidth=0)
        axes.set(xlabel="held-out samples that are called members", ylabel="members that are found")
        axes.grid(alpha=0.3)
    whole.set(xlim=(0, 1), ylim=(0, 1))
    whole.legend(loc="lower right", fontsize=8.5)

    # On the right, what a few certain accusations are worth.
    few.set(xscale="log", yscale="log", xlim=(_LEAST, 1), ylim=(_LEAST, 1))
    few.axvline(FALSE_ALARMS, color=style.GREY, linewidth=0.8, linestyle=":")
    said = "\n".join(f"{attack}: {curve.few}" for attack, curve in found.curves.items())
    few.text(
        0.03,
        0.97,
        f"found at {FALSE_ALARMS:.0%} false alarms (dotted)\n{said}",
        transform=few.transAxes,
        fontsize=8.5,
        va="top",
    )
    asked = f"Asked about {found.words}. Shaded: 95% of resampled curves."
    said = textwrap.fill(f"{asked} {membership.WORST_CASE}", 130)
    figure.supxlabel(said, fontsize=9)
    return figure


def _said(row: Row) -> str:
    if row.name == "original":
        return row.meaning
    return f"{row.meaning}\nSSIM {row.median:.2f}"
