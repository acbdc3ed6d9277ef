"""The one reader of `KEY=VALUE`, as it is typed after `python run.py`.

Hydra parses overrides for itself when it composes; this is for what has to know a key or a value
before, after or without that: passwords, resuming, and the record of a sweep.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Override:
    """One override.

    Attributes:
        text: as typed.
        key: the setting or group that it names, without `+`, `++` or `~`.
        value: what stands behind the first `=`; "" if there is none.
    """

    text: str
    key: str
    value: str

    @classmethod
    def read(cls, text: str) -> Override:
        """Take one apart: `++a.b=c=d` is `a.b` and `c=d`."""
        key, _, value = text.partition("=")
        return cls(text, key.strip().lstrip("+~"), value)


class Overrides:
    """Overrides in their order; of two with one key the later counts."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._all = [Override.read(text) for text in texts]

    def __iter__(self) -> Iterator[Override]:
        return iter(self._all)

    @property
    def texts(self) -> list[str]:
        """All of them as they were typed, in order."""
        return [override.text for override in self._all]

    @property
    def keys(self) -> set[str]:
        """Every setting or group that one of them names."""
        return {override.key for override in self._all}

    @property
    def values(self) -> dict[str, str]:
        """What each key is set to, by the last override that names it."""
        return {override.key: override.value for override in self._all}

    @property
    def of_the_job(self) -> Overrides:
        """Those that set what is run, and not how Hydra runs it."""
        return Overrides(
            override.text
            for override in self._all
            if not override.key.startswith(("hydra.", "hydra/"))
        )

    def only(self, *keys: str) -> Overrides:
        """Those that name one of the keys."""
        return Overrides(override.text for override in self._all if override.key in keys)

    def without(self, *keys: str) -> Overrides:
        """Those that name none of the keys."""
        return Overrides(override.text for override in self._all if override.key not in keys)
