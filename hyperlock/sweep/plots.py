"""The pictures of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from hyperlock.sweep.trials import FAILED, FINISHED, Trial, front
from hyperlock.tracking import style

_SERIES = (style.BLUE, style.ORANGE, style.GREEN, style.PURPLE)  # an objective each
_LOG_FROM = 10.0  # ratio of the largest to the smallest value from which an axis is logarithmic
_LABEL_WIDTH = 14  # pixels within which two labels would overlap
_LABEL_HEIGHT = 18
_EDGE = 60  # pixels from the right within which a label stands on its point's left
_NAMES_IN_LABEL = 6

Place = tuple[float, float]


def history_figure(
    trials: Sequence[Trial], index: int, objective: str, maximise: bool, title: str
) -> Any:
    """Each trial's value of one objective, and the best so far."""
    figure, [axes] = style.panels(f"{title}: {objective} by trial")
    better = max if maximise else min

    # The finished trials, and the best of those up to each.
    finished = [trial for trial in trials if trial.state == FINISHED]
    numbers = [trial.number for trial in finished]
    values = [trial.values[index] for trial in finished]
    so_far = [better(values[: i + 1]) for i in range(len(values))]
    axes.plot(
        numbers,
        so_far,
        drawstyle="steps-post",
        color=style.ORANGE,
        label="best so far",
        zorder=1,
    )
    axes.scatter(numbers, values, color=style.BLUE, label="trial", zorder=2)

    # The best of all by its value, on the side where nothing is better.
    top = values.index(better(values))
    axes.annotate(
        f"{values[top]:.5g}",
        (numbers[top], values[top]),
        textcoords="offset points",
        xytext=(0, 9) if maximise else (0, -15),
        ha="center",
    )

    _mark_failed(axes, trials)
    axes.set(xlabel="trial", ylabel=objective)
    style.whole_numbers(axes.xaxis)
    if not maximise:
        _scale(axes, "y", values)
    axes.margins(y=0.15)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def importance_figure(shares: Mapping[str, Mapping[str, float]], title: str) -> Any:
    """How much each parameter explains of each objective; shares of one objective add up to 1."""
    params = _by_importance(shares)
    height = 1.6 + 0.3 * len(params) * len(shares)
    figure, [axes] = style.panels(f"{title}: parameter importance", height=height)
    thickness = 0.8 / len(shares)
    for i, (objective, each) in enumerate(shares.items()):
        shift = (i - (len(shares) - 1) / 2) * thickness
        bars = axes.barh(
            [row + shift for row in range(len(params))],
            [each.get(param, 0.0) for param in params],
            thickness,
            label=objective,
            color=_SERIES[i % len(_SERIES)],
        )
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes.set_yticks(range(len(params)), params)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set(xlabel="share of the variation explained")
    style.open_frame(axes)
    axes.legend(frameon=False, loc="lower right")
    return figure


def front_figure(
    trials: Sequence[Trial], objectives: Sequence[str], maximise: Sequence[bool], title: str
) -> Any:
    """The Pareto front, each of its trials labelled by number, in one panel for each pair of
    objectives."""
    best = front(trials, maximise)
    leading = {trial.number for trial in best}
    others = [trial for trial in trials if trial.state == FINISHED and trial.number not in leading]
    axis_names = [
        f"{objective} ({'more' if more else 'less'} is better)"
        for objective, more in zip(objectives, maximise, strict=True)
    ]
    pairs = list(combinations(range(len(objectives)), 2))
    figure, panels = style.panels(f"{title}: Pareto front", len(pairs), height=4.6)
    for axes, (y, x) in zip(panels, pairs, strict=True):
        axes.set(xlabel=axis_names[x], ylabel=axis_names[y])
        _draw_front(axes, best, others, x, y, line=len(objectives) == 2)
    panels[0].legend(frameon=False, loc="best", fontsize=9)
    return figure


def _draw_front(
    axes: Any, best: Sequence[Trial], others: Sequence[Trial], x: int, y: int, line: bool
) -> None:
    """The values of two objectives; `line` joins the front, which only two objectives have as a
    line."""
    _scale(axes, "x", [trial.values[x] for trial in (*best, *others)])
    _scale(axes, "y", [trial.values[y] for trial in (*best, *others)])
    axes.scatter(
        [trial.values[x] for trial in others],
        [trial.values[y] for trial in others],
        color=style.PALE,
        s=18,
        label="other trials",
    )
    ordered = sorted(best, key=lambda trial: trial.values[x])
    places = [(trial.values[x], trial.values[y]) for trial in ordered]
    columns = list(zip(*places, strict=True))
    axes.scatter(*columns, color=style.ORANGE, s=34, zorder=3, label="Pareto front")
    if line:
        axes.plot(*columns, drawstyle="steps-post", color=style.ORANGE, alpha=0.5)
    axes.margins(0.12)
    axes.grid(alpha=0.3)
    _label(axes, places, [trial.number for trial in ordered])


def _mark_failed(axes: Any, trials: Sequence[Trial]) -> None:
    """Crosses at the bottom, where they are values of nothing."""
    failed = [trial.number for trial in trials if trial.state == FAILED]
    if failed:
        axes.scatter(
            failed,
            [0.02] * len(failed),
            transform=axes.get_xaxis_transform(),
            marker="x",
            color=style.RED,
            label="failed",
            clip_on=False,
        )


def _by_importance(shares: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The parameters that explain something, first what explains most of any objective."""
    most: dict[str, float] = {}
    for each in shares.values():
        for param, share in each.items():
            if share > 0:
                most[param] = max(share, most.get(param, 0.0))
    return sorted(most, key=lambda param: -most[param])


def _label(axes: Any, places: Sequence[Place], numbers: Sequence[int]) -> None:
    """Write trials' numbers at their places, one label for all that would overlap."""
    axes.figure.draw_without_rendering()  # before that, no place is known in pixels
    pixels = [(x, y) for x, y in axes.transData.transform(places)]
    right = axes.get_window_extent().x1
    for pixel, group in _neighbours(pixels, numbers):
        names = [str(number) for number in sorted(group)]
        text = ", ".join(names[:_NAMES_IN_LABEL])
        if len(names) > _NAMES_IN_LABEL:
            text += " ..."
        at_edge = pixel[0] > right - _EDGE
        axes.annotate(
            text,
            axes.transData.inverted().transform(pixel),
            textcoords="offset points",
            xytext=(-6 if at_edge else 6, 6),
            ha="right" if at_edge else "left",
            fontsize=9,
            zorder=4,
        )


def _neighbours(pixels: Sequence[Place], numbers: Sequence[int]) -> list[tuple[Place, list[int]]]:
    """Trials in groups: each joins the first one that began within a label's size of it."""
    groups: list[tuple[Place, list[int]]] = []
    for (x, y), number in zip(pixels, numbers, strict=True):
        for (left, bottom), group in groups:
            if abs(x - left) < _LABEL_WIDTH and abs(y - bottom) < _LABEL_HEIGHT:
                group.append(number)
                break
        else:
            groups.append(((x, y), [number]))
    return groups


def _scale(axes: Any, which: str, values: Sequence[float]) -> None:
    """A logarithmic axis, where values span enough for one, with plain numbers on it."""
    if min(values) <= 0 or max(values) / min(values) < _LOG_FROM:
        return
    style.logarithmic(axes, which)
