"""The command as a person uses it: real processes, real composition, real messages."""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
SMALL = ["dataset=digits", "federation.rounds=2", "federation.clients=3", "model.units=16"]


@pytest.fixture
def home(tmp_path):
    """A project folder of the test's own: nothing is written into the repository."""
    (tmp_path / "data").symlink_to(ROOT / "data")
    return tmp_path


@pytest.fixture
def home_with_store(home, empty_store):
    """One with MLflow's database in it, which the first run would make."""
    shutil.copy(empty_store, home)
    return home


def environment(home, **env):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "HYDRA"))}
    return {**kept, "HYPERLOCK_ROOT": str(home), **env}


def start(home, *overrides, **env):
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *overrides],
        cwd=home,
        env=environment(home, **env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell's background jobs ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def command(home, *overrides, **env):
    process = start(home, *overrides, **env)
    output, _ = process.communicate(timeout=240)
    return process.returncode, output


@pytest.fixture
def forked(home, forks):
    """The command without its imports."""
    return lambda *overrides: forks.run(*overrides, cwd=home, env=environment(home))


def runs(home):
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    return client, [
        run for e in client.search_experiments() for run in client.search_runs([e.experiment_id])
    ]


def rounds_recorded(home):
    """Read past MLflow, which would create the store that the run is creating."""
    try:
        with sqlite3.connect(f"file:{home / 'mlflow.db'}?mode=ro", uri=True) as store:
            return store.execute("select count(*) from metrics where key = 'accuracy'").fetchone()[
                0
            ]
    except sqlite3.OperationalError:
        return 0


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The folder and the output of a run, from a new interpreter and without a store before it."""
    home = tmp_path_factory.mktemp("recorded")
    code, output = command(home, *SMALL, "seed=3")
    assert code == 0, output
    return home, output


def test_a_run_is_recorded_whole_and_the_summary_says_what_matters(recorded):
    home, output = recorded
    for words in (
        "test accuracy",
        "encrypt",
        "per parameter",
        "-bit security",
        "key holder apart",
        "mlflow ui",
    ):
        assert words in output
    assert "Traceback" not in output and "\x1b" not in output

    client, [run] = runs(home)
    assert run.info.status == "FINISHED" and run.info.run_name == "mlp-ckks-3c"
    history = client.get_metric_history(run.info.run_id, "accuracy")
    assert [point.step for point in history] == [1, 2]
    due = {
        "accuracy", "loss", "train/loss", "time/train_s", "time/quantise_s", "time/encrypt_s",
        "time/aggregate_s",
        "time/decrypt_s", "time/round_s", "bytes/uplink_per_client", "bytes/downlink_per_client",
        "bytes/per_parameter", "updates/refused", "grid/saturated", "total/encrypt_s",
        "total/uplink_bytes",
    }  # fmt: skip
    assert due <= run.data.metrics.keys()
    assert run.data.metrics["time/encrypt_s"] > 0
    assert (
        run.data.params["federation.clients"] == "3"
        and run.data.params["encryption.coeff_mod_bits"] == "auto"
    )
    assert (
        run.data.tags["key_custody"] == "authority" and int(run.data.tags["security_bits"]) >= 128
    )
    assert "test accuracy" in run.data.tags["mlflow.note.content"]

    artifacts = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"config.yaml", "public_parameters.json", "plots"} <= artifacts
    plots = {item.path: item.file_size for item in client.list_artifacts(run.info.run_id, "plots")}
    names = ("accuracy", "time_by_stage", "bytes", "split", "confusion")
    assert plots.keys() == {f"plots/{name}.png" for name in names}
    assert min(plots.values()) > 5000
    assert not (home / "mlruns").exists()

    assert len([key for key in run.data.metrics if key.startswith("class/")]) == 10

    metrics = json.loads(next((home / "outputs" / "runs").rglob("metrics.json")).read_text())
    assert metrics["accuracy"] == run.data.metrics["accuracy"]


def test_a_run_has_one_directory_for_its_owner_alone(recorded):
    home, _ = recorded
    [directory] = (home / "outputs" / "runs").glob("*/*")
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / ".hydra" / "config.yaml").exists()


def test_the_recorded_model_loads_and_predicts_as_well_as_the_run_says(recorded):
    home, _ = recorded
    client, [run] = runs(home)
    import mlflow

    from hyperlock.data.datasets import digits

    mlflow.set_tracking_uri(f"sqlite:///{home / 'mlflow.db'}")
    [logged] = client.search_logged_models([run.info.experiment_id])
    model = mlflow.pyfunc.load_model(logged.model_uri)
    assert model.metadata.signature is not None
    data = digits(test_fraction=0.2, seed=3)
    accuracy = float(np.mean(np.argmax(model.predict(data.x_test), axis=1) == data.y_test))
    assert accuracy == pytest.approx(run.data.metrics["accuracy"])


def test_the_same_seed_gives_the_same_accuracy_encrypted_or_not(forked):
    results = []
    for overrides in (
        ["encryption=ckks"],
        ["encryption=none", "runtime.workers=2"],
        ["keys=clients"],
    ):
        code, output = forked(*SMALL, "tracking=none", *overrides)
        assert code == 0, output
        results.append(re.search(r"test accuracy +(\S+)", output).group(1))
    assert len(set(results)) == 1


def test_the_server_kind_of_custody_warns(forked):
    code, output = forked(*SMALL, "tracking=none", "keys=server")
    assert code == 0 and "WARNING keys=server: the server holds the secret key" in output
    assert "the server itself" in output


def bad_npz(kind, path):
    x = np.zeros((30, 4), np.float32)
    y = np.arange(30) % 3
    if kind == "keys":
        np.savez(path, x_train=x, y_train=y)
    elif kind == "shape":
        np.savez(path, x=x, y=y[:20])
    elif kind == "nan":
        x[7, 1] = np.nan
        np.savez(path, x=x, y=y)
    return str(path)


REFUSALS = [
    (
        ["encryption.poly_modulus=5000"],
        ["encryption.poly_modulus=5000", "8192", "try: encryption.poly_modulus=4096"],
    ),
    (
        ["encryption.poly_modulus=4096", "encryption.coeff_mod_bits=[60,40,40,60]"],
        [
            "encryption.coeff_mod_bits=[60,40,40,60]",
            "at most 109 bits",
            "encryption.poly_modulus=8192",
        ],
    ),
    (["encryption.scale_bits=58"], ["encryption.scale_bits=58", "too large", "allowed: 19 to 51"]),
    (["encryption.scale_bits=5"], ["encryption.scale_bits=5", "too small", "allowed: 19 to 51"]),
    (["encryption.value_bits=big"], ["encryption.value_bits=big", "auto, or 4 to 24"]),
    (["encryption.value_bits=null"], ["encryption.value_bits=null", "auto, or 4 to 24"]),
    (["encryption.value_bits=[8]"], ["encryption.value_bits=[8]", "auto, or 4 to 24"]),
    (["federation.clients=0"], ["federation.clients=0", "at least 1"]),
    (["federation.cohort=20"], ["federation.cohort=20", "1 to 10"]),
    (["federation.clients=5000"], ["federation.clients=5000", "1438"]),
    (["keys.min_clients=11"], ["keys.min_clients=11", "2 to 10"]),
    (
        ["keys.path=/k"],
        ["keys.path=/k", "no such setting any more", "try: the same without keys.path"],
    ),
    (["federation.learning_rate=1e9"], ["client-0, round 1", "NaN", "federation.learning_rate"]),
    (
        ["+federation.momentum=1"],
        ["federation.momentum=1: there is no such setting", "federation.rounds"],
    ),
    (["dataset=npz", "dataset.path=KEYS"], ["dataset.path=", "lacks x_test, y_test"]),
    (["dataset=npz", "dataset.path=SHAPE"], ["dataset.path=", "30 samples and y 20"]),
    (["dataset=npz", "dataset.path=NAN"], ["dataset.path=", "NaN", "sample 7"]),
]


@pytest.mark.parametrize(
    ("overrides", "words"), REFUSALS, ids=lambda v: v[-1] if isinstance(v, list) else ""
)
def test_a_wrong_setting_gets_one_clear_message(home_with_store, forked, overrides, words):
    home = home_with_store
    for kind in ("keys", "shape", "nan"):
        overrides = [
            o.replace(kind.upper(), bad_npz(kind, home / f"{kind}.npz")) for o in overrides
        ]
    given = ("dataset=digits", "federation.rounds=1", *overrides)
    first = overrides == REFUSALS[0][0]
    code, output = command(home, *given) if first else forked(*given)
    assert code == 1
    for word in words:
        assert word in output
    assert "Traceback" not in output
    assert output.count("ERROR") == 1
    assert [run.info.status for run in runs(home)[1]] in ([], ["FAILED"])


def test_an_unknown_option_is_refused_with_those_that_exist(home):
    code, output = command(home, "model=resnet")
    assert (
        code == 1
        and "model/resnet" in output
        and "logistic" in output
        and "Traceback" not in output
    )


def test_the_traceback_is_there_for_who_asks(home):
    code, output = command(home, "encryption.poly_modulus=5000", HYDRA_FULL_ERROR="1")
    assert code == 1 and "Traceback" in output


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_an_interrupted_run_ends_within_two_seconds_as_killed_with_the_rounds_it_did(
    home_with_store, number
):
    home = home_with_store
    process = start(home, "dataset=digits", "federation.rounds=100000")
    deadline = time.monotonic() + 120
    while rounds_recorded(home) == 0:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.5)
    sent = time.monotonic()
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    assert time.monotonic() - sent < 2
    assert (
        process.returncode == 128 + number
        and "Traceback" not in output
        and "interrupted after" in output
    )
    client, [run] = runs(home)
    assert run.info.status == "KILLED"
    done = int(re.search(r"interrupted after (\d+) of", output).group(1))
    recorded = len(client.get_metric_history(run.info.run_id, "accuracy"))
    assert recorded > 0 and done - recorded in (0, 1)  # one may be on its way into the store


def test_help_lists_every_group_and_option():
    output = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), "--help"], capture_output=True, text=True
    ).stdout
    for folder in (ROOT / "conf").iterdir():
        if folder.is_dir() and folder.name not in ("hydra", "paths"):
            options = ", ".join(sorted(f.stem for f in folder.glob("*.yaml")))
            line = re.search(rf"^ +{folder.name} +(.*?)  ", output, re.MULTILINE)
            assert line, f"{folder.name} is not in --help"
            assert ", ".join(sorted(line.group(1).split(", "))) == options


def test_a_run_whose_clients_do_not_answer_says_so(forked):
    lossy = [
        "federation.clients=6",
        "federation.dropout=0.9",
        "federation.rounds=3",
        "encryption=none",
    ]
    code, output = forked("dataset=digits", "tracking=none", *lossy)
    assert code == 1 and "Traceback" not in output
    assert "keys.min_clients=3" in output and "of 6 clients did not answer" in output
    assert "try: federation.round_attempts=5" in output


def test_a_target_ends_a_run_and_rounds_between_evaluations_have_no_accuracy(
    home_with_store, forked
):
    overrides = [
        "federation.rounds=50",
        "federation.target_accuracy=0.85",
        "federation.evaluate_every=2",
    ]
    code, output = forked(*SMALL, *overrides, "encryption=none", "tracking.log_model=false")
    assert code == 0, output
    client, [run] = runs(home_with_store)
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "accuracy")]
    reached = int(run.data.metrics["rounds_to_target"])
    assert steps == list(range(2, reached + 1, 2)) and reached < 50
    assert len(client.get_metric_history(run.info.run_id, "train/loss")) == reached
    assert run.data.metrics["accuracy"] >= 0.85 and f"0.85 reached in round {reached}" in output
    code, output = forked(*SMALL, "federation.evaluate_every=5", "encryption=none", "tracking=none")
    # The last round always is.
    assert code == 0 and "after 2 rounds" in output and "nan" not in output
