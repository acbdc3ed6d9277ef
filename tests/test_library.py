"""HyperLock from a script or a notebook: the command's composition, checks, record and errors, and
nothing left behind."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

import hyperlock
from hyperlock.errors import ConfigError, HyperLockError
from hyperlock.experiment.report import Report
from hyperlock.settings.compose import compose

ROOT = Path(__file__).resolve().parents[1]
SMALL = (
    "dataset=digits",
    "dataset.train_samples=300",
    "model=logistic",
    "federation.rounds=2",
    "federation.clients=3",
    "encryption=bfv",
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder for what is written, and another folder to be in."""
    project = tmp_path / "project"
    elsewhere = tmp_path / "elsewhere"
    for folder in (project, elsewhere):
        folder.mkdir()
    monkeypatch.setenv("HYPERLOCK_ROOT", str(project))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(elsewhere)
    return project


@pytest.fixture
def nothing_left_behind() -> Iterator[None]:
    """Handlers of signals and logs are afterwards as they were, and so is Hydra."""

    def state() -> tuple[object, ...]:
        loggers = [logging.getLogger(), logging.getLogger("hyperlock")]
        handlers = [list(logger.handlers) for logger in loggers]
        signals = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        return handlers, signals, GlobalHydra.instance().hydra

    before = state()
    yield
    assert state() == before


def test_twice_in_a_row_from_another_folder(
    home: Path, nothing_left_behind: None, capsys: pytest.CaptureFixture[str]
) -> None:
    first = hyperlock.run(*SMALL)
    second = hyperlock.run(*SMALL, "keys=clients")
    assert first.rounds == second.rounds == 2
    assert first.weights.tobytes() == second.weights.tobytes()
    assert "test accuracy" in capsys.readouterr().out

    client = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("hyperlock")
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
    assert runs[1].data.metrics["accuracy"] == first.accuracy

    written = [json.loads(path.read_text()) for path in home.glob("outputs/runs/*/*/metrics.json")]
    assert len(written) == 2 and first.final() in written
    assert list(Path.cwd().iterdir()) == []


def test_the_readmes_lines_run(home: Path, nothing_left_behind: None) -> None:
    codes = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    [code] = [code for code in codes if "import hyperlock" in code]
    names: dict[str, object] = {}
    exec(code, names)
    report = names["report"]
    assert isinstance(report, Report) and report.rounds == 3 and report.accuracy > 0.3


def test_a_run_goes_on_as_by_the_command(home: Path, nothing_left_behind: None) -> None:
    quiet = (*SMALL, "tracking=none")
    hyperlock.run(*quiet)
    [finished] = home.glob("outputs/runs/*/*/metrics.json")
    again = hyperlock.run(f"resume={finished.parent}", "federation.rounds=3")
    whole = hyperlock.run(*quiet, "federation.rounds=3")
    assert again.weights.tobytes() == whole.weights.tobytes()
    with pytest.raises(ConfigError, match="are done"):
        hyperlock.run(f"resume={finished.parent}")


def test_off_the_main_thread(home: Path, nothing_left_behind: None) -> None:
    reports = []
    thread = threading.Thread(
        target=lambda: reports.append(hyperlock.run(*SMALL, "tracking=none")), daemon=True
    )
    thread.start()
    thread.join(120)
    assert [report.rounds for report in reports] == [2]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("federation.clients=0",), r"federation\.clients=0[\s\S]*at least 1"),
        (("model=resnet",), r"model/resnet[\s\S]*logistic"),
        (("federation.rounds=many",), r"many"),
        (("+federation.momentum=1",), r"federation\.momentum=1: there is no such setting"),
        (("keys.path=/k",), r"keys\.path=/k: there is no such setting any more: .*one attempt"),
        (("+keys.path=/k",), r"keys\.path=/k: there is no such setting any more: .*one attempt"),
        (("tracking.uri=postgresql://u:hunter2@h/d",), r"password on the command line"),
        (("resume=/nowhere",), r"resume=/nowhere: there is no such directory"),
        (("objective=acuracy",), r"objective=acuracy: the run has no such metric[\s\S]*accuracy"),
        (("objective=[]",), r"objective=\[\]: must name one metric"),
        (("federation.rounds=${federation.nope}",), r"cannot be composed: .*federation\.nope"),
        (("paths.outputs=${oc.env:NOPE}",), r"cannot be composed: .*NOPE"),
        (("hydra.run.dir=/proc/none/there",), r"hydra\.run\.dir=/proc/none/there: cannot be made"),
        (
            ("federation._target_=hyperlock.learning.algorithms.fedprox",),
            r"federation\._target_=.*fedprox: cannot be called with this option's keys \(.*mu",
        ),
        (
            ("encryption._target_=hyperlock.encryption.ckks.ckks",),
            r"encryption\._target_=.*ckks: cannot be called with this option's keys",
        ),
        (
            ("federation.learning_rate=1e9", "model=mlp", "tracking=none"),
            r"client-0, round 1: .*NaN",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_an_error_is_the_command_s_and_the_process_goes_on(
    home: Path, nothing_left_behind: None, overrides: tuple[str, ...], said: str
) -> None:
    given = () if "resume=/nowhere" in overrides else SMALL
    with pytest.raises(HyperLockError, match=said) as caught:
        hyperlock.run(*given, *overrides)
    assert "hunter2" not in str(caught.value)


@pytest.mark.slow
def test_each_run_has_the_store_that_it_names_and_mlflow_stays_as_it_was(
    home: Path, tmp_path: Path
) -> None:
    """A notebook's own runs go where they went, also while one of them is open."""
    other = f"sqlite:///{tmp_path / 'other.db'}"
    theirs = f"sqlite:///{tmp_path / 'theirs.db'}"
    mlflow.set_tracking_uri(theirs)
    try:
        with mlflow.start_run() as open_run:
            hyperlock.run(*SMALL, f"tracking.uri={other}")
            assert mlflow.active_run().info.run_id == open_run.info.run_id
            mlflow.log_metric("mine", 1.0)
        assert mlflow.get_tracking_uri() == theirs
    finally:
        mlflow.set_tracking_uri(None)
    hyperlock.run(*SMALL)
    assert "MLFLOW_TRACKING_URI" not in os.environ

    def runs(address: str, experiment: str) -> list[str]:
        client = mlflow.MlflowClient(address)
        found = client.get_experiment_by_name(experiment)
        return [run.info.status for run in client.search_runs([found.experiment_id])]

    assert runs(other, "hyperlock") == runs(f"sqlite:///{home / 'mlflow.db'}", "hyperlock")
    assert runs(other, "hyperlock") == ["FINISHED"] and runs(theirs, "Default") == ["FINISHED"]


def test_what_hydra_is_told_is_no_part_of_the_run(home: Path, tmp_path: Path) -> None:
    quiet = (*SMALL, "tracking=none")
    hyperlock.run(*quiet, f"hydra.run.dir={tmp_path / 'one'}")
    again = hyperlock.run(
        f"resume={tmp_path / 'one'}", "federation.rounds=3", f"hydra.run.dir={tmp_path / 'two'}"
    )
    assert again.rounds == 3 and not (tmp_path / "two").exists()


def test_what_is_composed_is_what_the_command_composes(home: Path) -> None:
    overrides = ["experiment=original", "encryption=bfv", "split=dirichlet", "seed=7"]
    printed = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *overrides, "--cfg", "job", "--resolve"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    composed, directory = compose(overrides)
    assert OmegaConf.to_container(composed) == OmegaConf.to_container(OmegaConf.create(printed))
    assert directory.is_relative_to(home / "outputs" / "runs")


def test_hydra_initialised_for_something_else_stays_so(home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.yaml").write_text("theirs: 1\n")
    with initialize_config_dir(str(other), version_base="1.3"):
        composed, _ = compose(["seed=3"])
        assert composed.seed == 3
        assert hydra_compose("config") == {"theirs": 1}


def test_options_of_ones_own_are_found(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "conf of 'theirs' (a=1, b)"
    (folder / "split").mkdir(parents=True)
    (folder / "split" / "skewed.yaml").write_text("defaults: [dirichlet]\nalpha: 0.05\n")
    composed, _ = compose(["split=skewed"], folder)
    assert composed.split.alpha == 0.05
    with pytest.raises(HyperLockError, match="skewed"):
        compose(["split=skewed"])
    with pytest.raises(HyperLockError, match="there is no such folder"):
        compose([], tmp_path / "not there")


def python(code: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HYPERLOCK_ROOT": str(home), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_a_process_that_imported_tensorflow_first_runs_a_whole_job(home: Path) -> None:
    code = f"""
import tensorflow
tensorflow.ones(3) + 1
import hyperlock
report = hyperlock.run(*{SMALL!r}, "tracking=none")
print("rounds", report.rounds)
"""
    done = python(code, home)
    assert done.returncode == 0 and "rounds 2" in done.stdout, done.stderr[-500:]


def test_a_process_that_imported_plain_tenseal_after_tensorflow_is_told(home: Path) -> None:
    code = f"""
import tensorflow, tenseal
import hyperlock
from hyperlock.errors import HyperLockError
try:
    hyperlock.run(*{SMALL!r}, "tracking=none")
except HyperLockError as error:
    print(error)
"""
    done = python(code, home)
    assert done.returncode == 0, done.stderr[-500:]
    assert "TenSEAL was imported after TensorFlow" in done.stdout and "try: " in done.stdout


def test_importing_it_costs_nothing(home: Path) -> None:
    heavy = ("hydra", "numpy", "tensorflow", "tenseal", "mlflow")
    code = f"import hyperlock, sys; print([m for m in {heavy} if m in sys.modules])"
    assert python(code, home).stdout == "[]\n"
