"""What a party must not forget when it is restarted: which attempt it was in last, and a client on
which ranges. A server that restarts a client could else have it answer a round twice, and one that
restarts a key holder choose among attempts."""

from __future__ import annotations

import json
from pathlib import Path

from hyperlock.errors import HyperLockError
from hyperlock.files import write_whole


class Memory:
    """Of one party, of one run.

    Attributes:
        seen: the last round and attempt that it answered, opened or began; (0, 0) before the first.
        ranges: of that round's grid; empty before the first.
        cohorts: what the key holder has committed to draw cohorts from; empty where it does not.

    Args:
        file: where it is kept; in memory alone if None, as in a simulation, whose parties live and
            die together.

    Raises:
        HyperLockError: the file cannot be read.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.seen = (0, 0)
        self.ranges: tuple[float, ...] = ()
        self.cohorts = b""
        self._file = file
        if file is not None and file.exists():
            try:
                content = json.loads(file.read_text())
                round_number, attempt = content["seen"]
                self.seen = (int(round_number), int(attempt))
                self.ranges = tuple(float(value) for value in content["ranges"])
                self.cohorts = bytes.fromhex(content["cohorts"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise HyperLockError(
                    f"{file}: what this party has answered cannot be read "
                    f"({type(error).__name__}), and without it a round could be answered twice\n"
                    "  try: the file as it was, or another run"
                ) from None

    def note(
        self, seen: tuple[int, int], ranges: tuple[float, ...] = (), cohorts: bytes = b""
    ) -> None:
        """Before it answers; when this returns, it is on the disk."""
        if self._file is not None:
            content = {"seen": seen, "ranges": ranges, "cohorts": cohorts.hex()}
            write_whole(self._file, json.dumps(content).encode())
        self.seen = seen
        self.ranges = ranges
        self.cohorts = cohorts
