"""An interrupt never leaves half a write behind."""

import os
import random
import signal
import threading
import time
import weakref
from pathlib import Path

import pytest

from hyperlock import process
from hyperlock.process import Terminated, held_back
from hyperlock.tracking.mlflow import MlflowTracker, Store


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_takes_effect_after_the_block(number: int) -> None:
    done: list[str] = []

    def handler(*_: object) -> None:
        done.append("signal")

    before = signal.signal(number, handler)
    try:
        with held_back():
            os.kill(os.getpid(), number)
            done.append("block")
        assert done == ["block", "signal"]
        assert signal.getsignal(number) is handler
        os.kill(os.getpid(), number)
        assert done[-1] == "signal" and len(done) == 3
    finally:
        signal.signal(number, before)


def test_other_threads_are_left_alone() -> None:
    handler = signal.getsignal(signal.SIGINT)
    seen = []

    def block() -> None:
        with held_back():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert seen == [handler]


@pytest.mark.slow
def test_a_record_can_be_closed_whenever_the_run_was_interrupted(tmp_path: Path) -> None:
    """Interrupted within a commit, SQLite's own lock would keep the next write out for 20
    seconds."""
    rng = random.Random(0)
    store = Store.open(str(tmp_path), str(tmp_path), None)
    for _ in range(25):
        tracker = MlflowTracker.begin(store, "e", "n", {"a": "1"}, {"b": "2"})
        threading.Timer(rng.uniform(0.005, 0.06), os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            for step in range(100_000):
                tracker.log({f"metric/{i}": 1.0 for i in range(20)}, step)
        start = time.monotonic()
        tracker.finish("KILLED")
        assert time.monotonic() - start < 2


class Connection:
    """Something that a weak reference can be to."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_falls_into_a_weak_references_callback_is_not_lost(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(process, "_asked", [])
    kind = KeyboardInterrupt if number == signal.SIGINT else Terminated
    try:
        process.end_on_signals()
        process.end_if_asked()  # nobody has
        connection = Connection()
        watched = weakref.ref(connection, lambda _: os.kill(os.getpid(), number))
        del connection  # here Python drops what the handler raises
        assert watched() is None
        with pytest.raises(kind):
            process.end_if_asked()
        with pytest.raises(kind):
            os.kill(os.getpid(), number)
            time.sleep(5)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
