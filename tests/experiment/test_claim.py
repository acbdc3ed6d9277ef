"""A run has one process at a time: the second is told whose it is, and a dead one's is taken
over."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from hyperlock.errors import ConfigError
from hyperlock.experiment import claim, resume
from hyperlock.experiment.checkpoint import load
from hyperlock.experiment.claim import claimed
from hyperlock.settings.compose import compose
from tests.test_cli import environment
from tests.warm import Warm

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import os, sys, time
from pathlib import Path
from hyperlock.errors import ConfigError
from hyperlock.experiment import claim
try:
    with claim.claimed(Path(sys.argv[1]), "resume"):
        {within}
        print("has it", flush=True)
        sys.stdin.read()
except ConfigError as error:
    print(error, flush=True)
"""


class Holder:
    """A process that claims a directory, and holds it until it is told to end."""

    def __init__(self, directory: Path, within: str = "pass") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", HOLD.format(within=within), str(directory)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid

    def said(self) -> str:
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        self._process.stdin.close()
        self._process.wait(10)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)


@pytest.fixture
def hold() -> Iterator[Any]:
    holders: list[Holder] = []

    def start(*arguments: Any) -> Holder:
        holders.append(Holder(*arguments))
        return holders[-1]

    yield start
    for holder in holders:
        holder.kill()


def whose(holder: Holder) -> str:
    return f"process {holder.pid} on {socket.gethostname()} has this run"


def test_the_second_is_refused_with_the_firsts_name_until_that_has_ended(
    hold: Any, tmp_path: Path
) -> None:
    first = hold(tmp_path)
    assert first.said() == "has it"
    with pytest.raises(ConfigError, match=whose(first)) as refused, claimed(tmp_path, "resume"):
        pass
    assert refused.value.setting == "resume" and "when it has ended" in str(refused.value)
    first.end()
    with claimed(tmp_path, "resume"):
        second = hold(tmp_path)
        assert f"process {os.getpid()} on" in second.said()


def test_a_dead_ones_is_taken_over(hold: Any, tmp_path: Path) -> None:
    first = hold(tmp_path)
    assert first.said() == "has it"
    first.kill()
    with claimed(tmp_path, "resume"):
        assert (tmp_path / claim.FILE).read_text().endswith(f":{os.getpid()}")
    assert (tmp_path / claim.FILE).read_text() == ""


def test_of_many_at_once_one_has_it(hold: Any, tmp_path: Path) -> None:
    holders = [hold(tmp_path) for _ in range(6)]
    said = [holder.said() for holder in holders]
    [winner] = [holder for holder, words in zip(holders, said, strict=True) if words == "has it"]
    assert sum(whose(winner) in words for words in said) == 5


FORK = "{before}; child = os.fork() or (time.sleep(60), os._exit(0)); print(child, flush=True)"


@pytest.mark.parametrize("lets_go", [True, False])
def test_a_fork_does_not_hold_on_what_its_dead_parent_held(
    hold: Any, tmp_path: Path, lets_go: bool
) -> None:
    """Control: one that does not let go does."""
    first = hold(tmp_path, FORK.format(before="pass" if lets_go else "claim._locks.clear()"))
    child = int(first.said())
    try:
        assert first.said() == "has it"
        first.kill()
        with nullcontext() if lets_go else pytest.raises(ConfigError), claimed(tmp_path, "resume"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_run_of_the_same_process_is_another_one(tmp_path: Path) -> None:
    with (
        claimed(tmp_path, "resume"),
        pytest.raises(ConfigError, match=f"process {os.getpid()} on"),
        claimed(tmp_path, "resume"),
    ):
        pass


@pytest.mark.parametrize("kind", ["a system", "a file system"])
def test_without_locks_a_file_takes_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    if kind == "a system":
        monkeypatch.setattr(claim, "fcntl", None)
    else:
        monkeypatch.setattr(claim.fcntl, "flock", refuse)
    with claimed(tmp_path, "resume"):
        held = f"process {os.getpid()} on .*\n.* if it was killed, without {tmp_path / claim.HELD}"
        with pytest.raises(ConfigError, match=held), claimed(tmp_path, "resume"):
            pass
    assert not (tmp_path / claim.HELD).exists()
    with claimed(tmp_path, "resume"):
        pass


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """In a folder that others write to, it could lead to any file of the user's."""
    mine = tmp_path / "mine"
    mine.write_text("all of it")
    (tmp_path / claim.FILE).symlink_to(mine)
    with pytest.raises(ConfigError, match="cannot be claimed"), claimed(tmp_path, "hydra.run.dir"):
        pass
    assert mine.read_text() == "all of it"


@pytest.mark.slow
def test_two_resumed_at_once_are_one_and_its_record_has_every_round_once(
    forks: Warm, hold: Any, empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    monkeypatch.setenv("HYPERLOCK_ROOT", str(tmp_path))
    job = (
        "dataset=digits", "dataset.train_samples=300", "model=logistic", "encryption=none",
        "tracking.log_model=false", "federation.clients=3", "federation.rounds=2",
    )  # fmt: skip

    def run(*overrides: str) -> tuple[int, str]:
        return forks.run(*overrides, cwd=tmp_path, env=environment(tmp_path))

    code, output = run(*job)
    assert code == 0, output
    [directory] = tmp_path.glob("outputs/runs/*/*")
    on = (f"resume={directory}", "federation.rounds=4")

    # One has it, and the second is refused; but for that, it would go on as well.
    with resume.begin(*composed(*on)) as first:
        code, output = run(*on)
        assert code == 1 and output.count("ERROR") == 1
        assert f"process {os.getpid()} on {socket.gethostname()} has this run" in output
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(resume, "claimed", lambda *_: nullcontext())
            with resume.begin(*composed(*on)) as second:
                assert second.start.round == first.start.round == 2

    # One that died.
    holder = hold(directory)
    assert holder.said() == "has it"
    holder.kill()
    code, output = run(*on)
    assert code == 0, output
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    history = client.get_metric_history(load(directory).run_id, "loss")
    assert sorted(entry.step for entry in history) == [1, 2, 3, 4]


def composed(*overrides: str) -> tuple[Any, ...]:
    """What a run is begun with."""
    settings, directory = compose(overrides)
    return settings, directory, overrides, lambda texts: compose(texts)[0]
