"""What was released of whom: how often each client was in a sum, which is what privacy costs.

What was released was spent, also in a run that was killed and goes on: a line is on the disk before
the Release leaves, and a line without its Release costs as well.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from hyperlock.errors import HyperLockError

FILE = "spent"  # in the folder of whoever releases


class Spending:
    """Of one run, as its key holder keeps it.

    Attributes:
        releases: of every sum that was released, whose updates were in it.

    Args:
        file: where it is kept; in memory alone if None.

    Raises:
        HyperLockError: the file cannot be read.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.releases: list[frozenset[str]] = []
        self._rounds: Counter[str] = Counter()
        self._file = file
        if file is None or not file.exists():
            return
        try:
            *lines, rest = file.read_text().split("\n")
            for line in lines:
                self._count(json.loads(line)["clients"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HyperLockError(
                f"{file}: what this run has spent cannot be read ({type(error).__name__}), and "
                "without it more could be released than was promised\n"
                "  try: the file as it was, or another run"
            ) from None
        if rest:  # of a line that was not written to its end, whose Release has not left
            os.truncate(file, file.stat().st_size - len(rest.encode()))

    @classmethod
    def within(cls, folder: Path | None) -> Spending:
        """Kept in this folder, which is made if it is not there; in memory alone if None."""
        if folder is None:
            return cls()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return cls(folder / FILE)

    @property
    def most(self) -> int:
        """Releases that the client was in who was in most."""
        return max(self._rounds.values(), default=0)

    def of(self, client: str) -> int:
        """Releases that a client was in."""
        return self._rounds[client]

    def note(self, round_number: int, clients: Collection[str]) -> None:
        """A sum of these clients is about to be released; when this returns, it is on the disk."""
        if self._file is not None:
            line = json.dumps({"round": round_number, "clients": sorted(clients)})
            handle = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with open(handle, "w") as file:
                file.write(f"{line}\n")
                file.flush()
                os.fsync(file.fileno())
        self._count(clients)

    def _count(self, clients: Collection[str]) -> None:
        self.releases.append(frozenset(clients))
        self._rounds.update(self.releases[-1])
