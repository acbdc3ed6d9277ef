"""What the server is about to send, on a disk before it does: a server that is restarted sends the
same sum again, where a new one would be refused."""

from __future__ import annotations

from pathlib import Path

from hyperlock.files import write_whole

_ROUND_BYTES = 8


class Outbox:
    """The last Aggregate.

    Args:
        folder: where it is written; None for nowhere.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._file = None if folder is None else folder / "aggregate"
        if folder is not None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def keep(self, round_number: int, aggregate: bytes) -> None:
        """Write it down, in place of the one before."""
        if self._file is not None:
            write_whole(self._file, round_number.to_bytes(_ROUND_BYTES, "little") + aggregate)

    def find(self, round_number: int) -> bytes:
        """The Aggregate of this round; empty if it is not there."""
        if self._file is None or not self._file.exists():
            return b""
        data = self._file.read_bytes()
        kept = int.from_bytes(data[:_ROUND_BYTES], "little")
        return data[_ROUND_BYTES:] if kept == round_number else b""
