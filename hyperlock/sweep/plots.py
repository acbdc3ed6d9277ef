"""The pictures of a sweep, drawn like those of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from hyperlock.sweep.trials import FAILED, FINISHED, Trial, front

_DOT, _BEST, _FAILED, _PALE = "#4c72b0", "#dd8452", "#c44e52", "#b8b8b8"
_SERIES = ("#4c72b0", "#dd8452", "#55a868", "#8172b3")
_LOG_FROM = 10.0  # ratio of the largest to the smallest value from which an axis is logarithmic


def history_figure(
    trials: Sequence[Trial], index: int, objective: str, maximise: bool, title: str
) -> Any:
    """Each trial's value of one objective, and the best so far."""
    figure, [axes] = _figure(f"{title}: {objective} by trial")
    finished = [trial for trial in trials if trial.state == FINISHED]
    numbers, values = [t.number for t in finished], [t.values[index] for t in finished]
    better = max if maximise else min
    so_far = [better(values[: i + 1]) for i in range(len(values))]
    axes.plot(numbers, so_far, drawstyle="steps-post", color=_BEST, label="best so far", zorder=1)
    axes.scatter(numbers, values, color=_DOT, label="trial", zorder=2)
    top = values.index(better(values))
    offset = (0, 9) if maximise else (0, -15)
    axes.annotate(
        f"{values[top]:.5g}",
        (numbers[top], values[top]),
        textcoords="offset points",
        xytext=offset,
        ha="center",
    )
    failed = [trial.number for trial in trials if trial.state == FAILED]
    if failed:
        edge = axes.get_xaxis_transform()
        axes.scatter(
            failed,
            [0.02] * len(failed),
            transform=edge,
            marker="x",
            color=_FAILED,
            label="failed",
            clip_on=False,
        )
    axes.set(xlabel="trial", ylabel=objective)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if not maximise:
        _scale(axes, "y", values)
    axes.margins(y=0.15)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def importance_figure(shares: Mapping[str, Mapping[str, float]], title: str) -> Any:
    """How much each parameter explains of each objective; shares of one objective add up to 1."""
    params = list(
        dict.fromkeys(
            param for each in shares.values() for param, share in each.items() if share > 0
        )
    )
    params.sort(key=lambda param: -max(each.get(param, 0.0) for each in shares.values()))
    figure, [axes] = _figure(
        f"{title}: parameter importance", height=1.6 + 0.3 * len(params) * len(shares)
    )
    thickness = 0.8 / len(shares)
    for i, (objective, each) in enumerate(shares.items()):
        places = [row + (i - (len(shares) - 1) / 2) * thickness for row in range(len(params))]
        bars = axes.barh(
            places,
            [each.get(p, 0.0) for p in params],
            thickness,
            label=objective,
            color=_SERIES[i % 4],
        )
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes.set_yticks(range(len(params)), params)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set(xlabel="share of the variation explained")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    return figure


def front_figure(
    trials: Sequence[Trial], objectives: Sequence[str], maximise: Sequence[bool], title: str
) -> Any:
    """The Pareto front, each of its trials labelled by number, in one panel for each pair of
    objectives."""
    pairs = list(combinations(range(len(objectives)), 2))
    best = front(trials, maximise)
    leading = {trial.number for trial in best}
    others = [trial for trial in trials if trial.state == FINISHED and trial.number not in leading]
    figure, panels = _figure(f"{title}: Pareto front", panels=len(pairs), height=4.6)
    for axes, (y, x) in zip(panels, pairs, strict=True):
        for scale, i in (("x", x), ("y", y)):
            _scale(axes, scale, [trial.values[i] for trial in (*best, *others)])
        axes.scatter(
            [t.values[x] for t in others],
            [t.values[y] for t in others],
            color=_PALE,
            s=18,
            label="other trials",
        )
        ordered = sorted(best, key=lambda trial: trial.values[x])
        places = [(trial.values[x], trial.values[y]) for trial in ordered]
        axes.scatter(*zip(*places, strict=True), color=_BEST, s=34, zorder=3, label="Pareto front")
        if len(objectives) == 2:
            axes.plot(*zip(*places, strict=True), drawstyle="steps-post", color=_BEST, alpha=0.5)
        axes.margins(0.12)
        axes.set(xlabel=_axis(objectives[x], maximise[x]), ylabel=_axis(objectives[y], maximise[y]))
        axes.grid(alpha=0.3)
        _label(axes, places, [str(trial.number) for trial in ordered])
    panels[0].legend(frameon=False, loc="best", fontsize=9)
    return figure


def _label(axes: Any, places: Sequence[tuple[float, float]], labels: Sequence[str]) -> None:
    """One label for all points that stand within a label's size of each other."""
    axes.figure.draw_without_rendering()
    groups: list[tuple[tuple[float, float], list[str]]] = []
    for (px, py), label in zip(axes.transData.transform(places), labels, strict=True):
        for (gx, gy), names in groups:
            if abs(px - gx) < 14 and abs(py - gy) < 18:
                names.append(label)
                break
        else:
            groups.append(((px, py), [label]))
    width = axes.get_window_extent().x1
    for place, names in groups:
        names.sort(key=int)
        text = ", ".join(names[:6]) + (" ..." if len(names) > 6 else "")
        left = place[0] > width - 60
        axes.annotate(
            text, axes.transData.inverted().transform(place), textcoords="offset points",
            xytext=(-6 if left else 6, 6), ha="right" if left else "left", fontsize=9, zorder=4,
        )  # fmt: skip


def _axis(objective: str, maximise: bool) -> str:
    return f"{objective} ({'more' if maximise else 'less'} is better)"


def _scale(axes: Any, which: str, values: Sequence[float]) -> None:
    """A logarithmic axis, where values span enough for one, with plain numbers on it."""
    if min(values) <= 0 or max(values) / min(values) < _LOG_FROM:
        return
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:g}")


def _figure(title: str, height: float = 4.0, panels: int = 1) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(
        figsize=(7.5 if panels == 1 else 5.2 * panels, height), dpi=120, layout="constrained"
    )
    axes = figure.subplots(1, panels, squeeze=False)[0]
    figure.suptitle(title, fontsize=11)
    return figure, axes
