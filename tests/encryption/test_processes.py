"""Encryption in other processes."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from hyperlock.encryption.bfv import bfv
from hyperlock.encryption.extent import Extent
from hyperlock.encryption.processes import Processes
from hyperlock.encryption.scheme import KeyPair, Scheme
from hyperlock.errors import CiphertextRefused, HyperLockError
from tests.encryption.sums import added

LENGTH = 30_000  # more than one ciphertext


@pytest.fixture(scope="module")
def scheme() -> Scheme:
    return bfv("auto", "auto", "auto", 128, Extent(8), 16, LENGTH)


@pytest.fixture(scope="module")
def keys(scheme: Scheme) -> KeyPair:
    return scheme.generate_keys()


@pytest.fixture(scope="module")
def two() -> Iterator[Processes]:
    made = Processes(2)
    yield made
    made.end()


def opened(scheme: Scheme, keys: KeyPair, updates: Sequence[Sequence[bytes]]) -> np.ndarray:
    """The sum of encrypted vectors."""
    total = added(scheme, keys.public, updates, LENGTH)
    return scheme.decryptor(keys.secret).decrypt(total, LENGTH)


def children() -> set[int]:
    """Processes of this one that encrypt."""
    task = Path(f"/proc/{os.getpid()}/task")
    found = " ".join(file.read_text() for file in task.glob("*/children"))
    return {int(number) for number in found.split() if encrypts(int(number))}


def encrypts(number: int) -> bool:
    """Whether a process is there and is one of these; a dead one's command line is empty."""
    try:
        return b"encryption.processes" in Path(f"/proc/{number}/cmdline").read_bytes()
    except OSError:
        return False


def test_what_they_encrypt_is_what_was_given(scheme: Scheme, keys: KeyPair, two: Processes) -> None:
    """More vectors at a time than there are processes, each from a thread, exactly summed."""
    vectors = np.random.default_rng(0).integers(-127, 128, (6, LENGTH))
    encryptor = two.encryptor(scheme, keys.public)
    with ThreadPoolExecutor(6) as threads:
        updates = list(threads.map(lambda v: tuple(encryptor.encrypt(v)), vectors))
    assert (opened(scheme, keys, updates) == vectors.sum(axis=0)).all()


def test_another_key_is_taken_at_once(scheme: Scheme, keys: KeyPair, two: Processes) -> None:
    other = scheme.generate_keys()
    for pair in (other, keys, other):
        chunks = tuple(two.encryptor(scheme, pair.public).encrypt(np.ones(LENGTH, np.int64)))
        assert (opened(scheme, pair, [chunks]) == 1).all()


def test_what_is_no_public_key_is_refused_as_it_is_here(
    scheme: Scheme, keys: KeyPair, two: Processes
) -> None:
    for bad, why in ((keys.secret, "contain a secret key"), (b"nothing", "not a public key")):
        with pytest.raises(CiphertextRefused, match=why):
            tuple(two.encryptor(scheme, bad).encrypt(np.ones(LENGTH, np.int64)))


def test_a_vector_left_in_the_middle_does_not_disturb_the_next(
    scheme: Scheme, keys: KeyPair, two: Processes
) -> None:
    encryptor = two.encryptor(scheme, keys.public)
    for _ in range(3):
        begun = encryptor.encrypt(np.full(LENGTH, 99))
        next(begun)
        del begun
        gc.collect()
    chunks = tuple(encryptor.encrypt(np.ones(LENGTH, np.int64)))
    assert (opened(scheme, keys, [chunks]) == 1).all()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_one_that_is_killed_is_one_clear_error_and_is_replaced(
    scheme: Scheme, keys: KeyPair
) -> None:
    one = Processes(1)
    encryptor = one.encryptor(scheme, keys.public)
    before = children()
    tuple(encryptor.encrypt(np.ones(LENGTH, np.int64)))
    (number,) = children() - before
    os.kill(number, signal.SIGKILL)
    with pytest.raises(HyperLockError, match=r"a process that encrypts ended.*\n.*workers=1"):
        tuple(encryptor.encrypt(np.ones(LENGTH, np.int64)))
    assert len(tuple(encryptor.encrypt(np.ones(LENGTH, np.int64)))) == scheme.chunk_count(LENGTH)
    one.end()
    assert children() <= before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_they_end_with_the_process_that_started_them_even_if_that_is_killed(
    tmp_path: Path,
) -> None:
    code = (
        "import numpy as np, time\n"
        "from hyperlock.encryption.bfv import bfv\n"
        "from hyperlock.encryption.extent import Extent\n"
        "from hyperlock.encryption.processes import Processes\n"
        "scheme = bfv('auto', 'auto', 'auto', 128, Extent(8), 16, 9)\n"
        "encryptor = Processes(1).encryptor(scheme, scheme.generate_keys().public)\n"
        "tuple(encryptor.encrypt(np.ones(9, np.int64)))\n"
        "from tests.encryption.test_processes import children\n"
        "print(*children(), flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        number = int(parent.stdout.readline())
        parent.kill()
    ended = time.monotonic() + 10
    while encrypts(number) and time.monotonic() < ended:
        time.sleep(0.05)
    assert not encrypts(number)
