"""Figures of ways that took turns, as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

Samples = dict[str, dict[str, list[float]]]  # way, figure, turns


def ratio(samples: Samples, name: str, to: str, figure: str) -> list[float]:
    """One way's figure over another's, turn by turn."""
    pairs = zip(samples[name][figure], samples[to][figure], strict=True)
    return [value / max(other, 1e-12) for value, other in pairs]


def summary(values: Sequence[float]) -> str:
    """Median, smallest and largest, to three digits."""
    low = f"{min(values):.3g}"
    high = f"{max(values):.3g}"
    median = f"{statistics.median(values):.3g}"
    return median if low == high else f"{median} ({low} to {high})"


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
