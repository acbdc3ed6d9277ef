"""Sweeps as a user runs them: real studies, a real store, real processes, all in temporary
folders."""

from __future__ import annotations

import atexit
import csv
import io
import json
import os
import pickle
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from hyperlock import process
from hyperlock.errors import ConfigError, HyperLockError
from hyperlock.sweep.trials import FAILED, FINISHED, Trial, front, markdown, ranked, table_csv

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "dataset=digits",
    "dataset.train_samples=200",
    "dataset.test_samples=100",
    "federation.rounds=1",
    "federation.clients=3",
    "tracking.log_model=false",
)
Sweep = Callable[..., int]


class Store:
    """What a sweep left in MLflow."""

    def __init__(self, root: Path, uri: str | None = None) -> None:
        import mlflow

        self.root = root
        self.client = mlflow.MlflowClient(uri or f"sqlite:///{root}/mlflow.db")

    def runs(self) -> list[Any]:
        ids = [experiment.experiment_id for experiment in self.client.search_experiments()]
        return list(reversed(self.client.search_runs(ids)))

    def parents(self) -> list[Any]:
        return [run for run in self.runs() if "sweep" in run.data.tags]

    def children(self, parent: Any) -> list[Any]:
        mine = [
            run
            for run in self.runs()
            if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id
        ]
        return sorted(mine, key=lambda run: int(run.data.tags["trial"]))

    def artifacts(self, run: Any) -> set[str]:
        return {
            file.path
            for path in ("", "plots")
            for file in self.client.list_artifacts(run.info.run_id, path)
        }

    def table(self, run: Any) -> list[dict[str, str]]:
        path = self.client.download_artifacts(run.info.run_id, "trials.csv")
        return list(csv.DictReader(io.StringIO(Path(path).read_text())))


def study_of(root: Path, name: str | None = None) -> Any:
    import optuna

    from hyperlock.sweep.storage import storage

    url = f"sqlite:///{root}/outputs/studies.db"
    name = name or optuna.study.get_all_study_summaries(storage(url))[0].study_name
    return optuna.load_study(study_name=name, storage=storage(url))


def environment(root: Path, **more: str) -> dict[str, str]:
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in ("MLFLOW_TRACKING_URI", "HYPERLOCK_STUDIES")
    }
    return {**kept, "HYPERLOCK_ROOT": str(root), **more}


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "run.py"), "-m", *SMALL, *arguments]


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """`python run.py -m` in this process, under `tmp_path`; its exit status."""
    for name in ("MLFLOW_TRACKING_URI", "HYPERLOCK_STUDIES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HYPERLOCK_ROOT", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))

    def sweep(*arguments: str, small: bool = True) -> int:
        given = [*(SMALL if small else ()), *arguments]
        monkeypatch.setattr(sys, "argv", ["run.py", "-m", *given])
        try:
            runpy.run_path(str(ROOT / "run.py"), run_name="__main__")
        except SystemExit as end:
            return int(end.code or 0)
        finally:
            atexit.unregister(process._leave)  # the tests go on
            process._finished.clear()
            process._asked.clear()
        return 0

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield sweep
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def store_before(tmp_path: Path, empty_store: Path) -> None:
    """MLflow's database is there, so that the sweep need not make it."""
    shutil.copy(empty_store, tmp_path)


STORE_BEFORE = pytest.mark.usefixtures("store_before")


# --- the record -----------------------------------------------------------------------------------


def test_a_sweep_and_its_continuation(sweep: Sweep, tmp_path: Path) -> None:
    """One parent, its trials nested and numbered on, the summary brought up to date, what was
    running not counted."""
    assert sweep("hydra.sweeper.n_trials=3", "hydra.sweeper.study_name=ours") == 0
    store = Store(tmp_path)
    [parent] = store.parents()
    assert (parent.info.run_name, parent.info.status) == ("ours", "FINISHED")
    assert [run.info.run_name for run in store.children(parent)] == [
        "trial-000",
        "trial-001",
        "trial-002",
    ]
    assert {"trials.csv", "plots/history.png", "plots/importance.png"} <= store.artifacts(parent)
    accuracies = [run.data.metrics["accuracy"] for run in store.children(parent)]
    assert parent.data.metrics["best/accuracy"] == max(accuracies)
    assert f"{max(accuracies):.6g}" in parent.data.tags["mlflow.note.content"]
    assert 64 <= int(parent.data.tags["best.model.units"]) <= 256
    assert float(parent.data.tags["best.federation.learning_rate"]) <= 0.1
    assert [float(row["accuracy"]) for row in store.table(parent)] == accuracies
    assert 0 < parent.data.metrics["trials/other_share"] < 1

    study_of(tmp_path, "ours").ask()  # as a process leaves it that dies in a trial
    assert sweep("hydra.sweeper.n_trials=4", "hydra.sweeper.study_name=ours") == 0
    [parent] = store.parents()
    assert [run.info.run_name for run in store.children(parent)][3:] == ["trial-004"]
    states = [row["state"] for row in store.table(parent)]
    assert states == [FINISHED] * 3 + ["unfinished", FINISHED]
    params = [tuple(trial.params.values()) for trial in study_of(tmp_path, "ours").trials]
    assert len(set(params)) == len(params) or len(params[3]) == 0, (
        "the sampler began again from its seed"
    )

    # Nothing to do, and no error.
    assert sweep("hydra.sweeper.n_trials=4", "hydra.sweeper.study_name=ours") == 0
    assert len(store.children(parent)) == 4


@STORE_BEFORE
@pytest.mark.slow
def test_a_study_is_not_continued_with_another_question(sweep: Sweep, tmp_path: Path) -> None:
    one = ("hparams_search=none", "hydra.sweeper.study_name=ours", "hydra.sweeper.n_trials=1")
    assert sweep(*one, "encryption.value_bits=8,12") == 0
    assert sweep(*one, "encryption.value_bits=8,16") == 1
    assert sweep(*one, "encryption.value_bits=8,12", "hydra.sweeper.direction=minimize") == 1
    [parent] = Store(tmp_path).parents()
    assert parent.info.status == "FAILED"
    assert (
        "begun to maximize accuracy, not to minimize accuracy"
        in parent.data.tags["mlflow.note.content"]
    )


@STORE_BEFORE
@pytest.mark.slow
def test_several_objectives_and_combinations_that_cannot_work(sweep: Sweep, tmp_path: Path) -> None:
    """A failed trial has its reason in its own run and in the parent's table; a key that a scheme
    lacks is left out."""
    names = ["accuracy", "total/encrypted_aggregation_s", "bytes/per_parameter"]
    assert (
        sweep(
            "hparams_search=pareto",
            "encryption=ckks,none",
            "encryption.poly_modulus=2048,4096",
            "encryption.value_bits=8,16",
            "model.units=16",
            "federation.learning_rate=0.2",
            "hydra/sweeper/sampler=grid",
        )
        == 0
    )
    store = Store(tmp_path)
    [parent] = store.parents()
    rows = store.table(parent)
    assert len(rows) == 8
    [failed] = [row for row in rows if row["state"] == FAILED]
    assert (failed["encryption.poly_modulus"], failed["encryption.value_bits"]) == ("2048", "16")
    assert "encryption.coeff_mod_bits" in failed["reason"]
    run = store.children(parent)[int(failed["trial"])]
    assert run.info.status == "FAILED" and "encryption.coeff_mod_bits" in run.data.tags["reason"]
    assert run.info.run_name == f"trial-{int(failed['trial']):03d}"
    assert all(not row["encryption.poly_modulus"] for row in rows if row["encryption"] == "none")
    assert {"plots/pareto_front.png", "plots/history_bytes_per_parameter.png"} <= store.artifacts(
        parent
    )
    assert all(row[name] for row in rows if row["state"] == FINISHED for name in names)


@STORE_BEFORE
def test_a_trial_that_does_not_compose_is_a_failed_trial(sweep: Sweep, tmp_path: Path) -> None:
    search = (
        "hparams_search=none",
        "model.units=16,16.5",
        "hydra/sweeper/sampler=grid",
        "encryption=none",
    )
    assert sweep(*search) == 0
    store = Store(tmp_path)
    [parent] = store.parents()
    [failed] = [run for run in store.children(parent) if run.info.status == "FAILED"]
    assert "16.5" in failed.data.tags["reason"] and failed.data.params["model.units"] == "16.5"


@STORE_BEFORE
def test_when_every_trial_fails(sweep: Sweep, tmp_path: Path) -> None:
    fail = (
        "hparams_search=none",
        "encryption.value_bits=8,9",
        "hydra.sweeper.n_trials=2",
        "keys.min_clients=7",
    )
    assert sweep(*fail) == 1
    [parent] = Store(tmp_path).parents()
    assert parent.info.status == "FAILED"
    assert (
        "none of 2 trials finished; the first: keys.min_clients=7"
        in parent.data.tags["mlflow.note.content"]
    )


@STORE_BEFORE
@pytest.mark.slow
def test_a_plain_grid(sweep: Sweep, tmp_path: Path) -> None:
    """Hydra's own sweeper, with a combination that cannot work: the others are run all the same."""
    grid = ("hydra/sweeper=basic", "encryption=ckks,none", "encryption.value_bits=8,16,40")
    assert sweep(*grid) == 0
    store = Store(tmp_path)
    [parent] = store.parents()
    assert parent.info.status == "FINISHED" and parent.info.run_name.startswith("grid ")
    rows = store.table(parent)
    assert [(row["encryption"], row["encryption.value_bits"]) for row in rows] == [
        (scheme, bits) for scheme in ("ckks", "none") for bits in ("8", "16", "40")
    ]
    assert [row["state"] for row in rows] == [FINISHED, FINISHED, FAILED] * 2
    [directory] = tmp_path.glob("outputs/sweeps/*/*")
    runs = [directory, *(path.parent for path in directory.glob("*/.hydra"))]
    assert len(runs) == 7 and {path.stat().st_mode & 0o777 for path in runs} == {0o700}
    assert rows[0]["accuracy"] == rows[3]["accuracy"], (
        "encryption changes time and bytes, and never the model"
    )
    assert (
        "plots/importance.png" in store.artifacts(parent)
        or len({row["accuracy"] for row in rows}) == 2
    )


def test_without_tracking(sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [setting for setting in SMALL if "log_model" not in setting]
    assert sweep(*given, "tracking=none", "hydra.sweeper.n_trials=1", small=False) == 0
    assert "1 finished" in capsys.readouterr().out
    assert not (tmp_path / "mlflow.db").exists()


# --- refused at once
# ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["objective=acuracy"],
            ["objective=acuracy", "total/encrypted_aggregation_s", "try: objective=accuracy"],
        ),
        (["objective=[accuracy,loss]"], ["hydra.sweeper.direction"]),
        (["model.unitz=3,4"], ["model.unitz", "a setting that there is not"]),
        (
            ["tracking.uri=postgresql://me:hunter2@127.0.0.1/db"],
            ["tracking.uri=(not shown)", "MLFLOW_TRACKING_URI"],
        ),
        (["hparams_search=none"], ["there is nothing to search"]),
    ],
)
def test_refused_at_once(
    sweep: Sweep,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    said: list[str],
) -> None:
    assert sweep(*arguments) == 1
    text = "".join(capfd.readouterr())
    assert all(part in text for part in said), text
    assert "hunter2" not in text and "trial-000" not in text
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"hunter2" in path.read_bytes() for path in files)


def test_an_objective_that_is_no_number_is_an_error() -> None:
    from hyperlock.experiment.report import Report, objective
    from hyperlock.metrics import metric_names

    report = Report("", "", 0, "")
    report.metrics = dict.fromkeys(metric_names(), float("nan"))
    with pytest.raises(HyperLockError, match="objective accuracy is nan"):
        objective(OmegaConf.create({"objective": ["accuracy"]}), report)


# --- the parts ------------------------------------------------------------------------------------


def test_storage_is_one_that_stock_optuna_opens(tmp_path: Path) -> None:
    import optuna

    from hyperlock.sweep.storage import storage

    url = f"sqlite:///{tmp_path}/new/folder/studies.db"
    optuna.create_study(study_name="ours", storage=storage(url)).ask()
    assert storage(url) is storage(url)
    assert len(optuna.load_study(study_name="ours", storage=url).trials) == 1
    for bad in (
        "nonsense-hunter2",
        "postgresql://me:hunter2@127.0.0.1:1/db",
        "mysterysql://me:hunter2@host/db",
    ):
        with pytest.raises((ConfigError, Exception)) as error:
            storage(bad)
        assert isinstance(error.value, ConfigError) and "hunter2" not in str(error.value)


def test_the_front_and_the_table() -> None:
    trials = [
        Trial(0, FINISHED, {"bits": 8}, (0.9, 5.0), 1.0),
        Trial(1, FINISHED, {"bits": 16}, (0.9, 9.0), 1.0),
        Trial(2, FINISHED, {"bits": 12, "ring": 4096}, (0.95, 9.0), 1.0),
        Trial(3, FAILED, {"bits": 40}, reason="too | many\nbits"),
    ]
    assert [trial.number for trial in front(trials, [True, False])] == [0, 2]
    assert [trial.number for trial in front(trials, [True, True])] == [2]
    assert [trial.number for trial in ranked(trials, [True, False])] == [2, 0, 1, 3]
    lines = markdown(trials, ["accuracy", "bytes"], [True, False]).splitlines()
    assert lines[0] == "| trial | accuracy | bytes | bits | ring | seconds | state |"
    assert lines[-1].endswith("| failed: too / many bits |")
    assert {line.count("|") for line in lines} == {8}
    assert table_csv(trials, ["accuracy", "bytes"]).splitlines()[1] == "0,finished,0.9,5.0,8,,1.0,"


def test_errors_cross_processes() -> None:
    error = ConfigError(
        "encryption.value_bits", 40, "is outside", allowed="2 to 32", hint="encryption.value_bits=8"
    )
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.setting) == (
        ConfigError,
        str(error),
        "encryption.value_bits",
    )


def test_an_architecture_is_traced_once_in_a_process() -> None:
    import numpy as np

    from hyperlock.learning.models import mlp
    from hyperlock.learning.network import Network
    from hyperlock.learning.types import Samples

    samples = Samples((4, 4), np.dtype("float32"), 3)
    one, two, other = (Network(mlp((4, 4), 3, units, 1), samples, 8) for units in (5, 5, 6))
    assert one._train_block is two._train_block and one._train_block is not other._train_block
    x = np.ones((10, 4, 4), np.float32)
    y = np.zeros(10, np.int32)
    for network in (one, two):
        weights = network.initial_weights()
        trained, _ = network.train(weights, x, y, np.arange(10), 0.1)
        assert np.any(trained != weights)
    assert one._train_block.experimental_get_tracing_count() == 1
    assert not np.array_equal(one.initial_weights(), two.initial_weights()), (
        "weights are each network's own"
    )


@pytest.mark.parametrize(
    "path", sorted((ROOT / "conf" / "hparams_search").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_search_says_how_it_is_run(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0] == "# @package _global_" and re.search(r"python run\.py -m", lines[1])
    search = OmegaConf.load(path).hydra.sweeper
    if path.stem == "original":
        assert search.params["model.units"] == "range(64,256)" and search.n_trials == 10
        assert search.params["federation.learning_rate"] == "tag(log,interval(0.00001,0.1))"
        assert (search.params["federation.clients"], search.params["federation.rounds"]) == (5, 10)


# --- processes ------------------------------------------------------------------------------------


def _killed_in_its_second_trial(root: Path, number: int, *arguments: str) -> tuple[int, str]:
    """Start a long sweep, send a signal once a trial is done and another running."""
    log = root / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            command("hydra.sweeper.n_trials=500", "hydra.sweeper.study_name=ours", *arguments),
            env=environment(root),
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 120
        states: set[str] = set()
        while (
            states != {"FINISHED", "RUNNING"}
            and time.monotonic() < deadline
            and process.poll() is None
        ):
            time.sleep(0.2)
            if log.read_text().count("\ntrial "):
                states = {run.info.status for run in Store(root).runs() if "trial" in run.data.tags}
        process.send_signal(number)
        return process.wait(60), log.read_text()
    finally:
        if process.poll() is None:
            process.kill()


@STORE_BEFORE
def test_a_sweep_that_is_killed_says_so(tmp_path: Path) -> None:
    status, log = _killed_in_its_second_trial(tmp_path, signal.SIGTERM)
    assert status == 143, log
    store = Store(tmp_path)
    [parent] = store.parents()
    assert parent.info.status == "KILLED"
    note = parent.data.tags["mlflow.note.content"]
    assert "**Killed**" in note and "hydra.sweeper.study_name=ours" in note and "trial-000" in note
    assert {run.info.status for run in store.children(parent)} <= {"FINISHED", "KILLED"}
    assert store.table(parent)[0]["state"] == FINISHED


@pytest.mark.slow
def test_a_sweep_that_is_killed_outright_is_found_by_the_next(tmp_path: Path) -> None:
    _killed_in_its_second_trial(tmp_path, signal.SIGKILL, "federation.rounds=200")
    store = Store(tmp_path)
    [parent] = store.parents()
    assert (
        parent.info.status == "RUNNING"
        and "If its process has ended" in parent.data.tags["mlflow.note.content"]
    )
    last = store.children(parent)[-1]
    assert last.info.status == "RUNNING"
    done = len(store.children(parent)) - 1
    again = ("hydra.sweeper.study_name=ours", f"hydra.sweeper.n_trials={done + 1}")
    subprocess.run(command(*again), env=environment(tmp_path), check=True, timeout=120)
    [parent] = store.parents()
    assert parent.info.status == "FINISHED"
    assert [run.info.status for run in store.children(parent)] == ["FINISHED"] * done + [
        "KILLED",
        "FINISHED",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_parallel_launchers(tmp_path: Path, launcher: str) -> None:
    """No trial is lost, each is nested once, and failures come back with their reasons."""
    plugin = {"joblib": "hydra_joblib_launcher", "submitit_local": "hydra_submitit_launcher"}[
        launcher
    ]
    pytest.importorskip(f"hydra_plugins.{plugin}")
    search = (
        "hparams_search=none",
        "encryption.value_bits=8,16,40",
        "model.units=8,16",
        "hydra/sweeper/sampler=grid",
    )
    done = subprocess.run(
        command(*search, f"hydra/launcher={launcher}", "hydra.sweeper.n_jobs=2"),
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=280,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    store = Store(tmp_path)
    [parent] = store.parents()
    children = store.children(parent)
    assert [int(run.data.tags["trial"]) for run in children] == list(range(6))
    assert [run.info.run_name for run in children] == [f"trial-{number:03d}" for number in range(6)]
    rows = store.table(parent)
    assert [row["state"] for row in rows].count(FINISHED) == 4
    failed = [row for row in rows if row["state"] == FAILED]
    assert len(failed) == 2 and all("encryption.value_bits=40" in row["reason"] for row in failed)
    processes = {run.data.tags["process"] for run in children if run.info.status == "FINISHED"}
    assert len(processes) >= 2 and len(store.runs()) == 7


@pytest.mark.slow
def test_joblib_killed_leaves_no_run_running(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    more = ("hydra/launcher=joblib", "hydra.sweeper.n_jobs=2", "federation.rounds=40")
    status, log = _killed_in_its_second_trial(tmp_path, signal.SIGTERM, *more)
    assert status == 143, log
    time.sleep(5)
    store = Store(tmp_path)
    [parent] = store.parents()
    assert parent.info.status == "KILLED"
    assert "RUNNING" not in {run.info.status for run in store.children(parent)}


@pytest.mark.slow
def test_the_server_shows_parent_and_trials(sweep: Sweep, tmp_path: Path) -> None:
    """MLflow's own server, opened on the store as a user opens it, and asked over REST."""
    assert sweep("hydra.sweeper.n_trials=2") == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = [
        sys.executable,
        "-m",
        "mlflow",
        "ui",
        "--workers",
        "1",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    log = (tmp_path / "server.log").open("w")
    server = subprocess.Popen(
        serve,
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=log,
        stderr=log,
        start_new_session=True,
    )

    def ask(path: str, **body: Any) -> dict[str, Any]:
        address = f"http://127.0.0.1:{port}/api/2.0/mlflow/{path}"
        request = urllib.request.Request(
            address, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return dict(json.load(answer))

    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                experiments = ask("experiments/search", max_results=10)["experiments"]
                break
            except OSError:
                assert time.monotonic() < deadline and server.poll() is None, (
                    tmp_path / "server.log"
                ).read_text()
                time.sleep(0.5)
        [ours] = [experiment for experiment in experiments if experiment["name"] == "hyperlock"]
        runs = ask("runs/search", experiment_ids=[ours["experiment_id"]])["runs"]
        tags = {
            run["info"]["run_name"]: {t["key"]: t["value"] for t in run["data"]["tags"]}
            for run in runs
        }
        [parent] = [
            run["info"]["run_id"] for run in runs if "sweep" in tags[run["info"]["run_name"]]
        ]
        assert all(
            tags[name]["mlflow.parentRunId"] == parent for name in ("trial-000", "trial-001")
        )
    finally:
        os.killpg(server.pid, signal.SIGKILL)
