"""A run that was killed goes on to the very weights that it would have reached, in the same
record."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import hyperlock
from hyperlock.errors import ConfigError
from hyperlock.experiment import checkpoint
from hyperlock.experiment.checkpoint import FILE, Checkpoint, load, save
from hyperlock.experiment.report import Report
from hyperlock.experiment.run import run
from hyperlock.metrics import Stage
from tests.warm import Warm

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(__file__).parent / "data"
SMALL = (
    "dataset=digits", "dataset.train_samples=300", "model=mlp", "model.units=16",
    "federation.clients=4",
    "encryption.poly_modulus=4096",
)  # fmt: skip
ALGORITHMS = ("fedavg", "fedsgd", "fedprox", "fedavgm", "fedadagrad", "fedadam", "fedyogi")
DECAY = "federation.learning_rate_decay=0.9"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_goes_on_to_the_same_weights(
    compose: Callable, tmp_path: Path, algorithm: str
) -> None:
    settings = (*SMALL, "tracking=none", f"federation={algorithm}", "federation.cohort=3", DECAY)
    whole = run(compose(*settings, "federation.rounds=4"))
    run(compose(*settings, "federation.rounds=2"), tmp_path)
    again = run(compose(*settings, "federation.rounds=4"), tmp_path, (), load(tmp_path))
    assert again.weights.tobytes() == whole.weights.tobytes()
    assert again.accuracies == whole.accuracies and again.rounds == 4
    assert again.uplink_bytes == pytest.approx(whole.uplink_bytes, rel=1e-3)
    assert load(tmp_path).round == 4


def test_the_id_of_a_run_survives_and_another_run_has_another(
    compose: Callable, tmp_path: Path
) -> None:
    settings = (*SMALL, "tracking=none", "encryption=none", "encryption.value_bits=8")
    settings = tuple(s for s in settings if "poly_modulus" not in s)
    ids = []
    for _ in range(2):
        run(compose(*settings, "federation.rounds=1"), tmp_path)
        ids.append(load(tmp_path).run)
        for rounds in (2, 3):
            more = compose(*settings, f"federation.rounds={rounds}")
            run(more, tmp_path, (), load(tmp_path))
            assert load(tmp_path).round == rounds and load(tmp_path).run == ids[-1]
    assert ids[0] != ids[1] and all(len(one) == 32 for one in ids)


@pytest.mark.parametrize("custody", ["clients", "server"])
def test_every_custody_goes_on(compose: Callable, tmp_path: Path, custody: str) -> None:
    settings = (*SMALL, "tracking=none", f"keys={custody}")
    whole = run(compose(*settings, "federation.rounds=3"))
    run(compose(*settings, "federation.rounds=1"), tmp_path)
    again = run(compose(*settings, "federation.rounds=3"), tmp_path, (), load(tmp_path))
    assert again.weights.tobytes() == whole.weights.tobytes()


def environment(root: Path) -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")} | {
        "HYPERLOCK_ROOT": str(root)
    }


def finished(root: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "run.py"), *overrides]
    return subprocess.run(command, env=environment(root), text=True, capture_output=True)


def killed(forks: Warm, root: Path, rounds_done: int, delay: float, *overrides: str) -> Path:
    """The directory of a run that was killed `delay` seconds after a round was done."""
    started = forks.start(*SMALL, *overrides, cwd=root, env=environment(root))
    while started.runs:
        found = list(root.glob(f"outputs/runs/*/*/{FILE}"))
        if found and load(found[0].parent).round >= rounds_done:
            time.sleep(delay)
            os.kill(started.pid, signal.SIGKILL)
            break
        time.sleep(0.005)
    code, output = started.wait()
    assert code == -signal.SIGKILL, f"the run ended before it was killed: {output}"
    (path,) = root.glob(f"outputs/runs/*/*/{FILE}")
    return path.parent


@pytest.fixture(scope="module")
def uninterrupted(forks: Warm, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """What a run of 40 rounds comes to."""
    root = tmp_path_factory.mktemp("whole")
    settings = (*SMALL, "federation.rounds=40", "tracking=none")
    code, output = forks.run(*settings, cwd=root, env=environment(root))
    assert code == 0, output
    (path,) = root.glob(f"outputs/runs/*/*/{FILE}")
    return load(path.parent)


KILLS = [
    (1, 0.0),
    pytest.param(3, 0.02, marks=pytest.mark.slow),
    pytest.param(12, 0.11, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("rounds_done", "delay"), KILLS)
def test_a_killed_run_goes_on_in_the_same_record(
    forks: Warm,
    empty_store: Path,
    tmp_path: Path,
    uninterrupted: Checkpoint,
    rounds_done: int,
    delay: float,
) -> None:
    import mlflow

    shutil.copy(empty_store, tmp_path)
    directory = killed(forks, tmp_path, rounds_done, delay, "federation.rounds=40")
    before = load(directory)
    assert rounds_done <= before.round < 40
    resume = f"resume={before.run_id}"
    code, output = forks.run(resume, cwd=tmp_path, env=environment(tmp_path))
    assert code == 0, output
    after = load(directory)
    assert after.round == 40 and after.run_id == before.run_id
    assert after.weights.tobytes() == uninterrupted.weights.tobytes()
    assert after.report["accuracies"] == uninterrupted.report["accuracies"]
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    record = client.get_run(before.run_id)
    assert record.info.status == "FINISHED"
    history = client.get_metric_history(before.run_id, "accuracy")
    assert sorted(entry.step for entry in history) == list(range(1, 41)), (
        "no round is missing, none is there twice"
    )
    assert len(client.search_runs(["1"])) == 1
    assert (directory / "metrics.json").exists()

    complete = finished(tmp_path, f"resume={directory}")
    assert complete.returncode == 1 and "are done" in complete.stdout + complete.stderr
    changed = (f"resume={directory}", "federation.rounds=50", "seed=3")
    code, output = forks.run(*changed, cwd=tmp_path, env=environment(tmp_path))
    assert code == 1 and "seed=3 would change" in output


EXAMPLE = Checkpoint(
    3, np.arange(5, dtype=np.float32), (0.5, 0.25), {"first": np.ones(5), "rate": np.asarray(0.1)},
    ["a=1"], {"a": "1"},
    "run", "id", {"rounds": 3},
)  # fmt: skip


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    save(tmp_path, EXAMPLE)
    back = load(tmp_path)
    assert back.weights.tobytes() == EXAMPLE.weights.tobytes() and back.weights.dtype == np.float32
    assert back.slots.keys() == EXAMPLE.slots.keys() and (back.slots["first"] == 1).all()
    assert replace(back, weights=EXAMPLE.weights, slots=EXAMPLE.slots) == EXAMPLE


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_save_that_fails_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    save(tmp_path, EXAMPLE)

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(f"hyperlock.files.os.{moment}", fail)
    with pytest.raises(OSError, match="no space"):
        save(tmp_path, replace(EXAMPLE, round=4))
    monkeypatch.undo()
    assert load(tmp_path).round == 3
    save(tmp_path, replace(EXAMPLE, round=4))
    assert load(tmp_path).round == 4


@pytest.mark.parametrize("cut", [0, 1, 100, -1, -200])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, cut: int) -> None:
    save(tmp_path, EXAMPLE)
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ConfigError, match=rf"resume=.*{FILE} cannot be read"):
        load(tmp_path)


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    """A checkpoint from elsewhere must not be able to execute anything."""
    np.savez(tmp_path / FILE, meta=np.array([Path("x")], dtype=object), allow_pickle=True)
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path)


def test_a_directory_without_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no checkpoint"):
        load(tmp_path)


def test_a_checkpoint_of_another_model_is_refused(compose: Callable, tmp_path: Path) -> None:
    settings = (*SMALL, "tracking=none")
    run(compose(*settings, "federation.rounds=1"), tmp_path)
    with pytest.raises(ConfigError, match="another model"):
        run(compose(*settings, "model.units=17"), tmp_path, (), load(tmp_path))


def test_no_password_is_kept(compose: Callable, tmp_path: Path) -> None:
    run(
        compose(*SMALL, "tracking=none", "federation.rounds=1"),
        tmp_path,
        ["tracking.uri=postgresql://u:secret@h/d", "seed=0"],
    )
    assert b"secret" not in (tmp_path / FILE).read_bytes()
    assert load(tmp_path).overrides == ["seed=0"]


def test_checkpoints_come_as_often_as_they_are_asked_for_and_at_the_end(
    compose: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    monkeypatch.setattr(checkpoint, "save", lambda directory, state: kept.append(state.round))
    settings = (*SMALL, "tracking=none", "federation.rounds=5")
    run(compose(*settings, "checkpoint_every=2"), tmp_path)
    assert kept == [2, 4, 5]
    run(compose(*settings, "checkpoint_every=0"), tmp_path)
    assert kept == [2, 4, 5]


def test_a_run_that_reached_its_target_trains_no_more(compose: Callable, tmp_path: Path) -> None:
    settings = (*SMALL, "tracking=none", "federation.rounds=30", "federation.target_accuracy=0.6")
    whole = run(compose(*settings), tmp_path)
    assert 1 < whole.rounds < 30
    again = run(compose(*settings), tmp_path, (), load(tmp_path))
    assert (again.rounds, again.rounds_to_target) == (whole.rounds, whole.rounds)
    assert again.weights.tobytes() == whole.weights.tobytes()


def test_a_run_killed_while_its_end_was_recorded_is_recorded(
    compose: Callable, tmp_path: Path
) -> None:
    settings = (*SMALL, "tracking=none", "federation.rounds=2")
    whole = run(compose(*settings), tmp_path)
    again = run(compose(*settings), tmp_path, (), load(tmp_path))
    assert again.rounds == 2 and again.accuracies == whole.accuracies
    assert again.weights.tobytes() == whole.weights.tobytes()
    assert again.final().keys() == whole.final().keys()


def test_an_evaluation_of_a_last_round_that_is_the_last_no_more_is_forgotten(
    compose: Callable, tmp_path: Path
) -> None:
    settings = (*SMALL, "tracking=none", "federation.evaluate_every=3")
    run(compose(*settings, "federation.rounds=4"), tmp_path)
    again = run(compose(*settings, "federation.rounds=7"), tmp_path, (), load(tmp_path))
    assert list(again.accuracies) == [3, 6, 7]


def test_a_record_that_is_not_in_the_store_is_not_begun_anew(
    compose: Callable, tmp_path: Path
) -> None:
    settings = (
        *SMALL,
        "federation.rounds=2",
        f"tracking.uri=sqlite:///{tmp_path}/store.db",
        "tracking.log_model=false",
    )
    run(compose(*settings), tmp_path)
    lost = replace(load(tmp_path), run_id="0" * 32)
    with pytest.raises(ConfigError, match=r"its record is not in this store[\s\S]*tracking\.uri"):
        run(compose(*settings), tmp_path, (), lost)


def stored(version: int, directory: Path) -> Path:
    """A run's directory with the checkpoint of this version: after two rounds of FedAdam at commit
    68ccb4f, where the default of encryption.value_bits was 8, and later written as version 2."""
    directory.mkdir(exist_ok=True)
    shutil.copy(DATA / f"checkpoint-version-{version}.npz", directory / FILE)
    return directory


def test_a_checkpoint_of_version_1_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knows no run that its messages could bear."""
    monkeypatch.setenv("HYPERLOCK_ROOT", str(tmp_path))
    stopped = stored(1, tmp_path / "stopped")
    for resumed in (lambda: load(stopped), lambda: hyperlock.run(f"resume={stopped}")):
        with pytest.raises(ConfigError, match=r"^resume=.*of version 1 .* writes version 2") as why:
            resumed()
        assert "try: the HyperLock that began it, or a new run" in str(why.value)


@pytest.mark.parametrize("version", [0, 3, "2", None])
def test_another_version_of_a_checkpoint_is_refused_by_name(
    tmp_path: Path, version: object
) -> None:
    save(tmp_path, EXAMPLE)
    changed(tmp_path / FILE, version=version)
    with pytest.raises(ConfigError, match=f"of version {version} and this HyperLock"):
        load(tmp_path)


@pytest.mark.parametrize("field", ["version", "run", "round", "report"])
def test_a_checkpoint_that_lacks_a_field_cannot_be_read(tmp_path: Path, field: str) -> None:
    save(tmp_path, EXAMPLE)
    changed(tmp_path / FILE, **{field: None}, without=field)
    with pytest.raises(ConfigError, match=f"{FILE} cannot be read"):
        load(tmp_path)


def test_a_checkpoint_of_before_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the settings that it had, whose defaults are others by now."""
    monkeypatch.setenv("HYPERLOCK_ROOT", str(tmp_path))
    stopped = stored(2, tmp_path / "stopped")
    before = load(stopped)
    assert (before.round, sorted(before.slots)) == (
        2,
        ["beta1", "beta2", "first", "learning_rate", "second", "tau"],
    )
    again = hyperlock.run(f"resume={stopped}", "federation.rounds=4")
    assert again.rounds == 4 and sorted(again.accuracies) == [1, 2, 3, 4]
    assert again.accuracies[2] == before.report["accuracies"]["2"]
    assert load(stopped).run == before.run != ""
    as_it_was = "encryption.value_bits=8"  # the default of then
    assert before.settings["encryption.value_bits"] == "8" and as_it_was not in before.overrides
    whole = hyperlock.run(*before.overrides, as_it_was, "federation.rounds=4")
    # Bit for bit on the kind of machine that wrote it; elsewhere a product's last bit may differ.
    assert np.abs(again.weights - whole.weights).max() < 1e-2


def test_a_report_is_restored_from_the_fields_that_it_has_and_no_others() -> None:
    whole = Report("name", "bfv", 128, "a key holder", rounds=2, accuracies={1: 0.5, 2: 0.75})
    whole.add_seconds({Stage.ENCRYPT: 1.5})
    state = json.loads(json.dumps(whole.state()))
    back = Report("name", "bfv", 128, "a key holder")
    back.restore({**state, "totals": 1, "scheme": "none", "weights": "x"})
    assert (back.rounds, back.accuracies, back.seconds) == (2, {1: 0.5, 2: 0.75}, whole.seconds)
    assert back.scheme == "bfv" and back.totals().keys() == whole.totals().keys()
    wrong = {
        "rounds": "2",
        "wall": [],
        "metrics": 1,
        "accuracies": {"x": 1},
        "seconds": {"encrpyt": 1},
    }
    for name, value in wrong.items():
        with pytest.raises(ConfigError, match="figures cannot be read"):
            back.restore({**state, name: value})
        with pytest.raises(ConfigError, match="figures cannot be read"):
            back.restore({key: kept for key, kept in state.items() if key != name})


def changed(
    path: Path, *, settings: dict[str, str] | None = None, without: str = "", **fields: object
) -> None:
    """Write other fields, or settings, into a checkpoint, or leave a field out."""
    with np.load(path) as kept:
        arrays = {name: kept[name] for name in kept.files}
    meta = json.loads(arrays["meta"].tobytes())
    meta = {**meta, **fields, "settings": meta["settings"] | (settings or {})}
    meta.pop(without, None)
    np.savez(path, **{**arrays, "meta": np.frombuffer(json.dumps(meta).encode(), np.uint8)})


def test_a_run_goes_on_with_its_own_settings_whatever_the_defaults_are_by_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYPERLOCK_ROOT", str(tmp_path))
    job = (
        "dataset=digits", "dataset.train_samples=300", "model=logistic", "tracking=none",
        "federation.clients=4",
    )  # fmt: skip
    its_own = (
        "federation.learning_rate=0.05",
        "federation.fraction=0.75",
        "encryption=bfv",
        "encryption.coeff_mod_bits=[36,36,37]",
        "encryption.poly_modulus=4096",
    )
    whole = hyperlock.run(*job, *its_own, "federation.rounds=3")
    first = hyperlock.run(*job, *its_own, "federation.rounds=1", f"hydra.run.dir={tmp_path}/one")
    assert first.rounds == 1
    path = tmp_path / "one" / FILE
    # As if all of that had been the default: no override names it.
    state = load(path.parent)
    kept = [text for text in state.overrides if text not in its_own]
    save(path.parent, replace(state, overrides=kept))
    assert state.settings["encryption.coeff_mod_bits"] == "36-36-37"
    again = hyperlock.run(f"resume={path.parent}", "federation.rounds=3")
    assert again.scheme == "bfv" and again.weights.tobytes() == whole.weights.tobytes()
    given = {"federation.rounds": "3", "resume": str(path.parent)}
    assert load(path.parent).settings == {**state.settings, **given}


def test_a_setting_that_there_is_no_more_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYPERLOCK_ROOT", str(tmp_path))
    stored(2, tmp_path)
    changed(tmp_path / FILE, settings={"encryption.rotation": "3"})
    with pytest.raises(ConfigError, match=r"encryption\.rotation was 3, is not set"):
        hyperlock.run(f"resume={tmp_path}", "federation.rounds=4")


def test_a_project_may_move_and_the_run_goes_on_with_the_same_file_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not with another one that the settings' files name by now."""
    before = tmp_path / "before"
    (before / "data").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("mine", "other"):
        x = rng.random((60, 4), np.float32)
        np.savez(before / "data" / f"{name}.npz", x=x, y=np.arange(60) % 3)
    job = ("dataset=npz", "model=logistic", "federation.clients=3", "tracking=none")
    monkeypatch.setenv("HYPERLOCK_ROOT", str(before))
    mine = f"dataset.path={before}/data/mine.npz"
    hyperlock.run(*job, mine, "federation.rounds=1", f"hydra.run.dir={before}/one")
    whole = hyperlock.run(*job, mine, "federation.rounds=2")

    after = tmp_path / "after"
    before.rename(after)
    monkeypatch.setenv("HYPERLOCK_ROOT", str(after))
    state = load(after / "one")
    other = f"dataset.path={after}/data/other.npz"  # as if it were the default
    changed = [other if text == mine else text for text in state.overrides]
    save(after / "one", replace(state, overrides=changed))
    again = hyperlock.run(f"resume={after}/one", "federation.rounds=2")
    assert again.weights.tobytes() == whole.weights.tobytes()
