"""What was released, on a disk before it leaves: a round's sum is given once, and the same bytes
again to who asks again.

A key holder that forgot what it had released would decrypt a round a second time, and the
difference of two sums of nearly the same clients is one client's update. A file a round holds the
digest of the request that was answered, and the Release; once the server keeps the model of that
round, the Release goes and the rest stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgpack

from hyperlock.errors import ConfigError
from hyperlock.files import write_whole

_VERSION = 1
_NAME = re.compile(r"round-(\d+)")


@dataclass(frozen=True)
class Entry:
    """A round that was released.

    Attributes:
        request: SHA-256 of the message that asked for it.
        release: the Release message; empty once nobody can need it again.
    """

    request: bytes
    release: bytes


class Ledger:
    """The releases of one run.

    Args:
        folder: where they are kept; in memory alone if None, which suits a key that does not
            outlive the process either.
        last: the last round that is known to be released without an entry.

    Raises:
        ConfigError: an entry in the folder cannot be read.
    """

    def __init__(self, folder: Path | None = None, last: int = 0) -> None:
        self._folder = folder
        self._entries: dict[int, Entry] = {}
        self._last = last
        if folder is not None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._entries = dict(_stored(folder))

    @property
    def last(self) -> int:
        """The last round that was released; 0 before the first."""
        return max(self._last, *self._entries, 0)

    def find(self, round_number: int) -> Entry | None:
        """What was released of a round, or None."""
        return self._entries.get(round_number)

    def keep(self, round_number: int, entry: Entry) -> None:
        """Write it down; when this returns, it is on the disk."""
        if self._folder is not None:
            content = {"version": _VERSION, "request": entry.request, "release": entry.release}
            write_whole(self._folder / f"round-{round_number}", msgpack.packb(content))
        self._entries[round_number] = entry

    def forget(self, round_number: int) -> None:
        """Drop the Releases up to this round, which nobody will ask for again; that they were given
        is remembered."""
        for number, entry in list(self._entries.items()):
            if number <= round_number and entry.release:
                self.keep(number, Entry(entry.request, b""))


def _stored(folder: Path) -> Iterator[tuple[int, Entry]]:
    """Round and entry of every file."""
    for path in folder.iterdir():
        named = _NAME.fullmatch(path.name)
        if not named:
            continue
        try:
            content = msgpack.unpackb(path.read_bytes())
            if content["version"] != _VERSION:
                raise ValueError("another version")
            yield int(named[1]), Entry(bytes(content["request"]), bytes(content["release"]))
        except Exception as error:  # msgpack raises many kinds for malformed input
            raise ConfigError(
                "resume",
                path,
                f"the key holder's ledger cannot be read ({type(error).__name__}), and without it "
                "a round could be decrypted twice",
                hint="the file as it was, or a new run",
            ) from None
