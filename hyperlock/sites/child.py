"""Processes that this one starts and that end with it, however it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

_PATIENCE = 10.0  # seconds between asking a process to end and killing it
# Run before the program itself, in its process: SIGTERM when the parent dies, which Linux forgets
# at a fork but keeps at an exec; and the parent may have died before that was asked for.
_TIED = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 15)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class Child:
    """A process in a group of its own, so that a terminal's Ctrl-C is ours to pass on.

    On Linux it gets SIGTERM when the thread that started it ends: start it from the main thread, or
    from one that lives as long. Elsewhere it ends with its context alone.

    Args:
        arguments: the program's path first.
        environment: all of its variables.
        log: a file that its output is appended to; mode 0600 if it is made.
    """

    def __init__(
        self, arguments: Sequence[str | Path], environment: Mapping[str, str], log: Path
    ) -> None:
        self._arguments = [str(argument) for argument in arguments]
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self.log = log

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, or start it again after it ended."""
        self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        tied = [sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid()), *self._arguments]
        handle = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with open(handle, "ab") as output:
            self._process = subprocess.Popen(
                tied,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
                env=self._environment,
            )

    @property
    def pid(self) -> int:
        """Its process id; 0 before the start."""
        return 0 if self._process is None else self._process.pid

    def status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs, or before the start."""
        return None if self._process is None else self._process.poll()

    def running(self) -> bool:
        """Whether it is."""
        return self._process is not None and self._process.poll() is None

    def stop(self, patience: float = _PATIENCE) -> None:
        """Ask it to end, and kill its whole group if it has not after so many seconds."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)
        finally:
            self.kill()

    def kill(self) -> None:
        """At once, with all that is left of its group."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def last_words(self, lines: int = 5) -> str:
        """The end of its log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").strip().splitlines()[-lines:])
