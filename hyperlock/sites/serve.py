"""A party's process: one message at a time, over a Unix socket that its node connects to."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

from hyperlock.errors import HyperLockError
from hyperlock.runtime.flower import own_socket
from hyperlock.runtime.relay.frames import FrameError, receive_frame, send_frame
from hyperlock.sites.party import NotHere, Party

log = logging.getLogger(__name__)

SOCKET = "party.sock"  # in the party's folder


def listen(path: Path) -> socket.socket:
    """A socket of this user alone.

    Raises:
        HyperLockError: it cannot be made.
    """
    try:
        return own_socket(path)
    except OSError as error:
        raise HyperLockError(
            f"{path}: no socket can be made there ({error})\n"
            "  try: a folder with a shorter path, on a disk of this machine"
        ) from None


def serve(party: Party, listener: socket.socket) -> None:
    """Answer until the process ends."""
    while True:
        answer_one(party, listener)


def answer_one(party: Party, listener: socket.socket) -> None:
    """Wait for a message, and answer it."""
    connection, _ = listener.accept()
    with connection:
        try:
            _, body = receive_frame(connection)
            header, answer = _answered(party, bytes(body))
            send_frame(connection, header, answer)
        except (EOFError, FrameError, OSError) as error:
            log.warning("a message did not come whole, or its answer was not taken: %s", error)


def _answered(party: Party, data: bytes) -> tuple[dict[str, object], bytes]:
    """What goes back: the answer, or why there is none."""
    try:
        return {"ok": True}, party.handle(data)
    except NotHere as error:
        return {"ok": False, "kind": "away", "reason": str(error)}, b""
    except HyperLockError as error:
        log.warning("refused: %s", error)
        return {"ok": False, "kind": "failed", "reason": str(error)}, b""
    except OSError as error:  # a full disk, for one
        log.exception("%s could not answer", party.name)
        return {"ok": False, "kind": "failed", "reason": error.strerror or str(error)}, b""
    except Exception as error:  # what is wrong here is for this party's log
        log.exception("%s could not answer", party.name)
        return {"ok": False, "kind": "failed", "reason": type(error).__name__}, b""
