"""The sums of a run whose clients hold the model, and what they say of each: whoever was away
steps by those that it missed, and a server that is restarted knows where its clients are."""

from __future__ import annotations

import re
from pathlib import Path

from hyperlock.files import write_whole
from hyperlock.parties.outbox import Outbox

_SUM = "sum"
_TOLD = "told"
_NAME = re.compile(rf"({_SUM}|{_TOLD})-(\d+)")


class Archive(Outbox):
    """An outbox that keeps every round's Aggregate, until it is told that nobody needs it.

    Args:
        folder: where they are written; in memory alone if None.
    """

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__(folder)
        self._folder = folder
        self._memory: dict[tuple[str, int], bytes] = {}

    def keep(self, round_number: int, aggregate: bytes) -> None:
        """Write it down, in place of another attempt's."""
        self._write(_SUM, round_number, aggregate)

    def find(self, round_number: int) -> bytes:
        """The Aggregate of this round; empty if it is not there."""
        return self._read(_SUM, round_number)

    def note(self, round_number: int, told: bytes) -> None:
        """Write down what clients say of a round that they have stepped by."""
        self._write(_TOLD, round_number, told)

    def told(self, round_number: int) -> bytes:
        """The same again; empty if nobody has said anything."""
        return self._read(_TOLD, round_number)

    def forget(self, round_number: int) -> None:
        """Drop the Aggregates up to this round."""
        for kind, number in list(self._memory):
            if kind == _SUM and number <= round_number:
                del self._memory[kind, number]
        for path in [] if self._folder is None else self._folder.iterdir():
            named = _NAME.fullmatch(path.name)
            if named and named[1] == _SUM and int(named[2]) <= round_number:
                path.unlink()

    def _write(self, kind: str, number: int, content: bytes) -> None:
        if self._folder is None:
            self._memory[kind, number] = content
        else:
            write_whole(self._folder / f"{kind}-{number}", content)

    def _read(self, kind: str, number: int) -> bytes:
        if self._folder is None:
            return self._memory.get((kind, number), b"")
        path = self._folder / f"{kind}-{number}"
        return path.read_bytes() if path.exists() else b""
