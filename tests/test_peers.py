"""The benchmark's peers: what is asked for on the command line, what is said where something is
missing, and that the stand-in for NVFlare sends what NVFlare's own classes send."""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgpack
import numpy as np
import pytest

from benchmarks import tables
from benchmarks.others import NvFlare
from benchmarks.peers import command, environments
from benchmarks.peers.exchange import SHAPES, Exchange, accuracy, tensors
from benchmarks.session import run_round
from hyperlock.encryption._tenseal import tenseal as ts

SIZES = (4990, 10)  # tensors of the model that benchmarks.models makes of 5000 parameters


class NoClock:
    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        yield


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No environment is there."""
    monkeypatch.setattr(environments, "HOME", tmp_path)
    return tmp_path


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_command(parser.add_subparsers())
    return parser.parse_args(["peers", *arguments])


def test_all_peers_are_measured_unless_some_are_named() -> None:
    assert parse().peers == ["fedjax", "pfl", "flower", "nvflare", "secaggplus"]
    assert parse("--peers", "pfl,fedjax,pfl", "--repeats", "2").peers == ["pfl", "fedjax"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--peers", "fedjax,fedml"), "no such peer: fedml; there are fedjax, pfl"),
        (("--repeats", "0"), "0 is less than 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(*arguments)
    assert said in capsys.readouterr().err


def test_every_environment_has_its_requirements() -> None:
    for name in set(command.ENVIRONMENTS.values()):
        lines = environments.requirements(name).read_text().splitlines()
        pins = [line for line in lines if not line.startswith("#")]
        assert pins and all("==" in line for line in pins)


def test_a_missing_environment_is_named_with_the_command_that_makes_it(nowhere: Path) -> None:
    with pytest.raises(SystemExit, match="--install-only --peers fedjax"):
        environments.python_of("fedjax")


def test_an_environment_of_other_requirements_is_no_longer_installed(nowhere: Path) -> None:
    note = nowhere / "pfl" / "installed.txt"
    note.parent.mkdir()
    note.write_text(environments.requirements("pfl").read_text())
    assert environments.installed("pfl")
    note.write_text("pfl==0.5.0\n")
    assert not environments.installed("pfl")


def test_a_worker_that_ends_is_reported_with_what_it_said(nowhere: Path) -> None:
    worker = environments.Worker("broken", (sys.executable, "-c", "raise SystemExit('no such')"))
    with pytest.raises(SystemExit, match=r"broken did not play(.|\n)*no such"):
        worker.turn()


def test_without_a_namespace_flower_alone_is_skipped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # where there is no `unshare`
    environments.isolation.cache_clear()
    try:
        assert command.allowed(["fedjax", "flower", "secaggplus"]) == ["fedjax", "secaggplus"]
    finally:
        environments.isolation.cache_clear()
    assert "flower is skipped" in capsys.readouterr().err


def test_ray_is_not_started_where_there_is_a_network(nowhere: Path) -> None:
    code = "from benchmarks.peers.loopback import only_loopback; only_loopback(); print('alone')"
    root = environments.ROOT
    python = (sys.executable, "-c", code)
    environment = {**os.environ, "PYTHONPATH": str(root)}
    for before, alone in ((environments.isolation(), True), ((), False)):
        if not before and alone:
            continue  # this machine gives no namespace
        done = subprocess.run(
            [*before, *python], env=environment, capture_output=True, text=True, check=False
        )
        here = [name for _, name in socket.if_nameindex()]
        assert (done.stdout == "alone\n") is (alone or here == ["lo"]), done.stderr


def test_the_exchange_travels_and_is_judged() -> None:
    ends = np.cumsum([np.prod(shape) for shape in SHAPES])
    weights = np.arange(ends[-1], dtype=np.float32)
    assert [part.shape for part in tensors(weights)] == list(SHAPES)
    always_3 = np.zeros(ends[-1], np.float32)
    always_3[-10 + 3] = 1
    assert accuracy(always_3, np.ones((4, 784), np.float32), np.array([3, 3, 1, 3])) == 0.75


def test_the_exchange_is_read_as_it_was_written(tmp_path: Path) -> None:
    flat = np.arange(3, dtype=np.float32)
    written = Exchange(flat, np.ones((1, 2, 784), np.float32), np.zeros((1, 2), np.int64), -flat)
    written.save(tmp_path / "start.npz")
    read = Exchange.load(tmp_path / "start.npz")
    assert all(np.array_equal(getattr(read, name), getattr(written, name)) for name in vars(read))


def test_ratios_go_turn_by_turn() -> None:
    samples = {"ours": {"cpu": [1.0, 2.0, 4.0]}, "theirs": {"cpu": [3.0, 4.0, 4.0]}}
    seen = tables.ratio(samples, "theirs", "ours", "cpu")
    assert tables.summary(seen) == "2 (1 to 3)"


def test_the_stand_in_sends_a_context_with_every_tensor_up_and_none_down() -> None:
    session = NvFlare(SIZES)
    update = np.linspace(-0.02, 0.02, sum(SIZES), dtype=np.float32)
    session.open()
    message = session.client(update, NoClock())
    session.add(message, NoClock())
    total = session.total(NoClock())
    session.decrypt(total, NoClock())  # checks the mean

    sent = msgpack.unpackb(message)
    assert [len(pair) for pair in sent] == [2, 2]
    for size, (vector, context) in zip(SIZES, sent, strict=True):
        loaded = ts.context_from(context)
        assert not loaded.has_secret_key()
        assert ts.ckks_vector_from(loaded, vector).size() == size
    back = msgpack.unpackb(total)
    assert all(isinstance(vector, bytes) for vector in back) and len(back) == len(SIZES)


@pytest.mark.skipif(
    not environments.installed("nvflare"),
    reason="NVFlare's environment: python -m benchmarks peers --install-only --peers nvflare",
)
def test_the_stand_in_moves_the_bytes_that_nvflares_own_classes_move() -> None:
    python = environments.python_of("nvflare")
    module = "benchmarks.peers.encrypt_nvflare"
    worker = environments.Worker("nvflare-test", (str(python), "-m", module, "5000", "2"))
    real = worker.turn()["nvflare"]
    worker.close()
    rng = np.random.default_rng(0)
    updates = [rng.standard_normal(5000, np.float32) * np.float32(0.02) for _ in range(2)]
    up, down = run_round(NvFlare(SIZES), updates, NoClock())
    # NVFlare's envelope takes some hundred bytes, and every ciphertext compresses a little
    # otherwise.
    assert up == pytest.approx(5000 * real["up"], rel=1e-3)
    assert down == pytest.approx(5000 * real["down"], rel=5e-3)
