"""Updates that wait until they may be sent, on a disk: memory does not grow with the cohort.

They are ciphertext, in a file without a name: it is gone with the process, however that ends.
"""

from __future__ import annotations

import os
import tempfile
import threading
from typing import IO

from hyperlock.errors import HyperLockError


class Spool:
    """Of one attempt; the clients of a simulation share one, so that they need one open file."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._attempt = (0, 0)
        self._places: dict[str, tuple[int, int]] = {}  # offset and size, by client
        self._end = 0
        self._changing = threading.Lock()

    def put(self, attempt: tuple[int, int], client: str, update: bytes) -> None:
        """Keep it; what waits of another attempt came to nothing, and is dropped."""
        with self._changing:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="hyperlock")  # noqa: SIM115, lives on
            if attempt != self._attempt:
                self._file.truncate(0)
                self._places = {}
                self._end = 0
                self._attempt = attempt
            start = self._end
            self._end += len(update)
            self._places[client] = (start, len(update))
            number = self._file.fileno()
        written = 0
        try:
            while written < len(update):
                written += os.pwrite(number, memoryview(update)[written:], start + written)
        except OSError as error:
            raise HyperLockError(
                f"{tempfile.gettempdir()}: the updates that wait for the roster do not fit "
                f"({error.strerror}); with this one they have {start + len(update):,} bytes\n"
                "  try: TMPDIR=/a/folder/with/room"
            ) from None

    def take(self, client: str) -> bytes:
        """What waits of this client, once; empty if nothing does."""
        with self._changing:
            start, size = self._places.pop(client, (0, 0))
            if self._file is None or not size:
                return b""
            number = self._file.fileno()
        found = bytearray()
        while len(found) < size:
            part = os.pread(number, size - len(found), start + len(found))
            if not part:
                raise HyperLockError("an update that waited is not there any more")
            found += part
        return bytes(found)
