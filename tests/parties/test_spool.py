"""Updates that wait for the roster, on a disk."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from hyperlock.parties.spool import Spool


def size(spool: Spool) -> int:
    assert spool._file is not None
    return os.fstat(spool._file.fileno()).st_size


def test_each_client_has_its_own_back_once() -> None:
    spool = Spool()
    updates = {f"client-{i}": os.urandom(1000 * i) for i in range(1, 60)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: spool.put((1, 1), name, updates[name]), updates))
        found = dict(zip(updates, pool.map(spool.take, updates), strict=True))
    assert found == updates
    assert [spool.take(name) for name in (*updates, "client-99")] == [b""] * 60


def test_many_wait_in_one_open_file_without_a_name() -> None:
    before = set(os.listdir("/proc/self/fd"))
    spool = Spool()
    for i in range(500):
        spool.put((1, 1), f"client-{i}", b"update")
    assert len(set(os.listdir("/proc/self/fd")) - before) == 1
    assert spool._file is not None and os.fstat(spool._file.fileno()).st_nlink == 0


def test_what_waits_of_another_attempt_is_dropped() -> None:
    spool = Spool()
    for name in ("client-0", "client-1"):
        spool.put((1, 1), name, bytes(5000))
    spool.put((1, 2), "client-2", b"update")
    assert size(spool) == 6
    assert [spool.take(f"client-{i}") for i in range(3)] == [b"", b"", b"update"]
