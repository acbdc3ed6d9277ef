"""One process at a time on a run: the first one holds the run's directory until it ends, however it
ends."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hyperlock.errors import ConfigError
from hyperlock.tracking.origin import process_tag

try:
    import fcntl
except ImportError:  # a system without them
    fcntl = None  # type: ignore[assignment]

FILE = ".claim"  # is left behind: removed while another process opens it, it would lock nothing
HELD = ".claim.held"  # in its place where there are no locks; is removed
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
_NAME_SECONDS = 1.0  # within which who holds a lock has written its name

_locks: set[int] = set()  # open files whose locks this process holds


@contextmanager
def claimed(directory: Path, setting: str) -> Iterator[None]:
    """For the block, no other process, nor another run of this one, has the run in a directory.

    It is a lock that the system drops with the process that holds it, on another machine too if the
    file system carries locks between machines (NFS does, unless it is mounted with `nolock`). Where
    there are no locks, the file that takes their place stays behind when a process is killed.

    Args:
        directory: the run's.
        setting: that named it, for the error.

    Raises:
        ConfigError: another one has it; names its host and process. Or nothing can be written
            there.
    """
    try:
        lock = _lock(directory / FILE)
        if lock is None:
            _hold(directory / HELD)
    except (BlockingIOError, FileExistsError) as error:
        raise _refusal(directory, setting, Path(error.filename)) from None
    except OSError as error:
        problem = f"cannot be claimed ({error.strerror or error})"
        raise ConfigError(setting, directory, problem) from None
    try:
        yield
    finally:
        if lock is None:
            (directory / HELD).unlink(missing_ok=True)
        elif lock in _locks:  # and not in a fork
            _locks.remove(lock)
            os.ftruncate(lock, 0)
            os.close(lock)


def _lock(path: Path) -> int | None:
    """The open file that is locked; None where there are no locks. BlockingIOError if another
    process has it."""
    if fcntl is None:
        return None
    # No link: in a folder that others write to, it could lead to any file of the user's.
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(file, 0)
        os.write(file, _name())
    except OSError as error:
        os.close(file)
        if error.errno in _NO_LOCKS:
            return None
        raise type(error)(error.errno, error.strerror, str(path)) from None
    _locks.add(file)
    return file


def _hold(path: Path) -> None:
    """Make the file that takes a lock's place; FileExistsError if it is there."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(file, _name())
    os.close(file)


def _name() -> bytes:
    return process_tag()["process"].encode()


def _refusal(directory: Path, setting: str, path: Path) -> ConfigError:
    deadline = time.monotonic() + _NAME_SECONDS
    while not (name := path.read_text() if path.exists() else "") and time.monotonic() < deadline:
        time.sleep(0.02)
    host, _, process = name.rpartition(":")
    holder = f"process {process} on {host}" if name else "another process"
    hint = "again when it has ended"
    if path.name == HELD:
        hint = f"{hint}; if it was killed, without {path}"
    return ConfigError(setting, directory, f"{holder} has this run", hint=hint)


def _let_go() -> None:
    """In a fork, which would hold the locks on after its parent has died."""
    for file in _locks:
        os.close(file)
    _locks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
