"""Parties behind a Flower federation, which is a pipe here: it moves bytes and understands none.

A relay (`relay/`, run by the SuperLink) connects to a Unix socket of this process. It may die and
be started again at any time: the next one is given the requests that are still open.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from hyperlock.errors import ConfigError
from hyperlock.runtime import Lost, Reply
from hyperlock.runtime.relay.frames import FrameError, receive_frame, send_frame

log = logging.getLogger(__name__)

SOCKET = "relay.sock"  # in the server's folder
_LOOK = 0.5  # seconds between two looks at the clock
_AWAY = ("unreachable", "away")


@dataclass(frozen=True)
class Request:
    """One that is not answered yet.

    Attributes:
        party: to whom.
        body: what.
        answers: where its answer is waited for.
    """

    party: str
    body: bytes
    answers: queue.Queue[tuple[int, Reply]]


def own_socket(path: Path) -> socket.socket:
    """A Unix socket that listens, of this user alone, in place of what is there; OSError if it
    cannot be made."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o077)
    try:
        listener.bind(str(path))
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    listener.listen(8)
    return listener


class FlowerRuntime:
    """Reaches parties through whichever relay is connected.

    Args:
        path: of the socket.
        timeout: seconds in which a party must have answered; while no relay is connected, they
            stand still.

    Raises:
        ConfigError: the socket cannot be made.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        self._timeout = timeout
        self._ids = count(1)
        self._open: dict[int, Request] = {}
        self._sending = threading.Lock()
        self._relay: socket.socket | None = None
        self._path = path
        try:
            self._listener = own_socket(path)
        except OSError as error:
            problem = f"no socket can be made at {path} ({error})"
            hint = "a folder with a shorter path, on a disk of this machine"
            raise ConfigError("runtime.folder", path.parent, problem, hint=hint) from None
        threading.Thread(target=self._accept, name="relay", daemon=True).start()

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, Reply]]:
        """Yield (party, reply) as replies come; Lost for those who have not answered in time.

        One exchange may go on within another: each has answers of its own.
        """
        answers: queue.Queue[tuple[int, Reply]] = queue.Queue()
        waiting = {}
        for party, request in requests.items():
            number = next(self._ids)
            waiting[number] = party
            with self._sending:
                self._open[number] = Request(party, request, answers)
                self._send(number)
        deadline = time.monotonic() + self._timeout
        try:
            while waiting:
                try:
                    number, reply = answers.get(timeout=_LOOK)
                except queue.Empty:
                    if self._relay is None:  # that is no party's fault, and not on its time
                        deadline += _LOOK
                    if time.monotonic() > deadline:
                        break
                    continue
                if number in waiting:
                    yield waiting.pop(number), reply
            for party in waiting.values():
                yield party, Lost(f"no answer in {self._timeout:g} s")
        finally:
            for number in waiting:
                self._cancel(number)

    def close(self) -> None:
        """Tell the relay that the run is over."""
        with self._sending:
            if self._relay is not None:
                self._write({"id": 0})
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _send(self, number: int) -> None:
        request = self._open[number]
        header = {"id": number, "party": request.party, "timeout": self._timeout}
        self._write(header, request.body)

    def _cancel(self, number: int) -> None:
        with self._sending:
            self._open.pop(number, None)
            self._write({"id": number, "cancel": True})

    def _write(self, header: Mapping[str, object], body: bytes = b"") -> None:
        if self._relay is None:
            return
        try:
            send_frame(self._relay, header, body)
        except OSError:
            self._relay = None

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._sending:
                log.info("a relay is there; %d requests are open", len(self._open))
                self._relay = connection
                for number in list(self._open):
                    self._send(number)
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        try:
            while True:
                header, body = receive_frame(connection)
                self._take(header, bytes(body))
        except (EOFError, OSError, FrameError) as error:
            with self._sending:
                if self._relay is connection:
                    self._relay = None
                    log.warning("the relay is gone (%s); waiting for the next", error)
                    with suppress(OSError):  # it is gone too, at the end
                        os.utime(self._path)  # whoever starts relays looks at that

    def _take(self, header: Mapping[str, object], body: bytes) -> None:
        """What the relay says: an answer, or who is there."""
        nodes = header.get("nodes")
        if isinstance(nodes, dict):
            log.info("nodes: %s", ", ".join(f"{name} {state}" for name, state in nodes.items()))
        number = header.get("id")
        if not isinstance(number, int):
            return
        with self._sending:
            request = self._open.pop(number, None)
        if request is None:
            return
        if header.get("ok") is True:
            request.answers.put((number, body))
        else:
            away = header.get("kind") in _AWAY
            request.answers.put((number, Lost(f"{header.get('reason')}"[:500], away)))
