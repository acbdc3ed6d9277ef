"""Encryption in processes of its own, for clients that work at the same time.

TenSEAL holds Python's lock while it encrypts, so threads of one process encrypt one after the
other. A process here is given a scheme, a public key and a vector, and gives back ciphertexts, one
at a time, by pipes; it never sees a secret key. It ends when this process does, however that ends.

    python -m hyperlock.encryption.processes     (what is started; not for people)
"""

from __future__ import annotations

import atexit
import os
import pickle
import queue
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption.scheme import Encryptor, Scheme
from hyperlock.errors import HyperLockError


@lru_cache(maxsize=1)
def processes(count: int) -> Processes:
    """So many of them, kept for all runs of this process."""
    return Processes(count)


class Processes:
    """Starts them, and has each encrypt one vector at a time.

    Args:
        count: how many vectors are encrypted at once; further ones wait.
    """

    def __init__(self, count: int) -> None:
        self._idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        for _ in range(count):
            self._idle.put(_Process())

    def encryptor(self, scheme: Scheme, public: bytes) -> Encryptor:
        """What encrypts as the scheme's own would, but elsewhere."""
        return _Elsewhere(self._idle, scheme, public)

    def end(self) -> None:
        """End those that do nothing."""
        while not self._idle.empty():
            self._idle.get().end()


class _Elsewhere:
    """An encryptor; `idle` is shared by all of them."""

    def __init__(self, idle: queue.SimpleQueue[_Process], scheme: Scheme, public: bytes) -> None:
        self._idle = idle
        self._scheme = scheme
        self._public = public

    def encrypt(self, values: NDArray[np.integer]) -> Iterator[bytes]:
        """Serialised ciphertexts of int[length], one at a time, as they are made."""
        process = self._idle.get()
        whole = False
        try:
            yield from process.encrypt(self._scheme, self._public, values)
            whole = True
        finally:
            # One that was left in the middle still writes what nobody reads.
            if not whole:
                process.end()
                process = _Process()
            self._idle.put(process)


class _Process:
    """One of them, started at its first vector."""

    def __init__(self) -> None:
        self._running: subprocess.Popen[bytes] | None = None

    def encrypt(
        self, scheme: Scheme, public: bytes, values: NDArray[np.integer]
    ) -> Iterator[bytes]:
        """Ciphertexts as they are made; what the scheme raises there is raised here."""
        running = self._running or self._start()
        assert running.stdin is not None and running.stdout is not None
        try:
            pickle.dump((scheme, public, values), running.stdin, pickle.HIGHEST_PROTOCOL)
            running.stdin.flush()
            while (answer := pickle.load(running.stdout)) is not None:
                if isinstance(answer, Exception):
                    raise answer
                yield answer
        except (OSError, EOFError, pickle.UnpicklingError):
            raise HyperLockError(
                f"a process that encrypts ended (exit status {running.poll()}), perhaps for want "
                "of memory\n  try: runtime.workers=1"
            ) from None

    def end(self) -> None:
        """At once."""
        if self._running is not None:
            atexit.unregister(self.end)
            self._running.kill()
            self._running.communicate()

    def _start(self) -> subprocess.Popen[bytes]:
        # In a group of its own, so that a terminal's Ctrl-C is this process' to handle.
        self._running = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        atexit.register(self.end)
        return self._running


def main() -> None:
    """Encrypt what comes on stdin, until it is closed: the process that started this has ended."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nothing else gets between answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            scheme, public, values = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        for answer in _answers(scheme, public, values):
            pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()


def _answers(scheme: Scheme, public: bytes, values: NDArray[np.integer]) -> Iterator[Any]:
    """Ciphertexts and None, or an exception instead of the rest."""
    try:
        yield from scheme.encryptor(public).encrypt(values)
        yield None
    except Exception as error:  # to be raised where somebody waits for it
        yield error


if __name__ == "__main__":
    main()
