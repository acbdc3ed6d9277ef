"""What one number must be, stated beside its field in the schema."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Bounds:
    """What one number must be.

    Attributes:
        hold: whether a number is within them; NaN and infinity never are.
        allowed: the same in words.
        problem: what is said of a number that is not.
        hint: a value to try, if one suits.
        not_finite: what is said of NaN and infinity, if that is something else.
    """

    hold: Callable[[float], bool]
    allowed: str
    problem: str = "is out of range"
    hint: str = ""
    not_finite: str = ""


def bounded(default: Any, bounds: Bounds) -> Any:
    """A dataclass field with a default and bounds."""
    return field(default=default, metadata={"bounds": bounds})


def at_least(minimum: float, hint: str = "") -> Bounds:
    """A finite number that is not smaller."""
    return Bounds(
        lambda value: minimum <= value < float("inf"),
        f"at least {minimum}",
        "is too small",
        hint,
        not_finite="is not finite",
    )


def positive() -> Bounds:
    """A finite number above 0."""
    return Bounds(
        lambda value: 0 < value < float("inf"), "above 0, finite", "must be a positive number"
    )


def share(hint: str) -> Bounds:
    """A number in [0, 1)."""
    return Bounds(lambda value: 0 <= value < 1, "0 or more, below 1", hint=hint)


def portion(problem: str, allowed: str, hint: str = "") -> Bounds:
    """A number in (0, 1]."""
    return Bounds(lambda value: 0 < value <= 1, allowed, problem, hint)
