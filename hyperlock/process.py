"""How a process ends.

Signals are held back while something must not be left half done, SIGTERM ends a run as Ctrl-C does,
and the interpreter's teardown is skipped once all is written.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_finished = threading.Event()  # all that the process was started for is done
_asked: list[int] = []  # signals that asked the process to end


class Terminated(SystemExit):
    """SIGTERM arrived, and ends the process as Ctrl-C would."""


@contextmanager
def held_back() -> Iterator[None]:
    """Signals that arrive in the block take effect after it.

    Without effect outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        arrived.append(number)

    before: dict[int, Any] = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if arrived:
        os.kill(os.getpid(), arrived[0])


def end_on_signals() -> None:
    """From now on SIGINT raises KeyboardInterrupt and SIGTERM `Terminated`, so that what is open is
    closed on the way out; and both are remembered for `end_if_asked`.

    What the process was started to ignore, as a shell's background job is to ignore SIGINT, it goes
    on to ignore.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end)


def end_if_asked() -> None:
    """Raise again for a signal whose exception went nowhere.

    Python drops what is raised within a finaliser or a weak reference's callback, and a database's
    connections have many of these: a Ctrl-C that falls into one would be lost.
    """
    if _asked:
        _raise(_asked[0])


def leave_early() -> None:
    """Once `finished` was called, skip the interpreter's teardown at the end.

    Freeing TensorFlow's modules takes over a second. To be called before others register what is to
    be done at exit, for what is registered first runs last.
    """
    atexit.register(_leave)


def finished() -> None:
    """All is written; what is registered for the exit still runs."""
    _finished.set()


def end_interrupted(error: KeyboardInterrupt | Terminated) -> NoReturn:
    """End at once with the exit status of the signal.

    Threads that still train, and TensorFlow's own teardown, are not waited for.
    """
    print("interrupted", file=sys.stderr, flush=True)
    sys.stdout.flush()
    number = signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM
    os._exit(128 + number)


def _end(number: int, frame: FrameType | None) -> None:
    _asked.append(number)
    _raise(number)


def _raise(number: int) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Terminated(128 + number)


def _leave() -> None:
    if _finished.is_set():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
