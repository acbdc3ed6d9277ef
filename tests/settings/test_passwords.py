"""Passwords are refused on the command line and in files, and those of the environment are written
nowhere."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import OmegaConf

import hyperlock
from hyperlock.errors import ConfigError, HyperLockError
from hyperlock.settings.parse import flatten, read
from hyperlock.settings.passwords import refuse_composed_passwords, refuse_passwords
from hyperlock.settings.schema import register
from hyperlock.sweep.callback import _check as check_sweep
from hyperlock.sweep.storage import storage
from hyperlock.sweep.trials import reason
from hyperlock.tracking.mlflow import MlflowTracker, Store, directory_of
from tests.security.test_at_rest import contents
from tests.test_cli import environment
from tests.warm import Warm

ROOT = Path(__file__).resolve().parents[2]
SECRET = "hunter2"
REFUSED = [
    "tracking.uri=postgresql://u:hunter2@h/d",
    "tracking.uri=postgresql://u:hunter2/x@h/d",
    "tracking.uri=http://hunter2@h",
    "tracking.uri=u:hunter2@h/d",
    "tracking.uri=hunter2@h",
    "tracking.uri=sqlite:///x.db?password=hunter2",
    "hydra.sweeper.storage=postgresql://hunter2@h/d",
    "++hydra.sweeper.storage.url='postgresql://u:hunter2@h/d'",
    "tracking.uri=sqlite:///a.db,postgresql://u:hunter2@h/d",
    "dataset.path=https://hunter2@h/mine.npz",
    "+model.server=u:hunter2@h",
    "+model.config={server:'http://hunter2@h'}",
    "trackin.uri=u:hunter2@h",
    "http://h/?password=hunter2",
]


@pytest.mark.parametrize("override", REFUSED)
def test_what_is_typed_with_one_is_refused_without_it(override: str) -> None:
    with pytest.raises(
        ConfigError, match=r"\(not shown\): a password on the command line"
    ) as error:
        refuse_passwords(["seed=1", override])
    assert SECRET not in str(error.value) and SECRET not in error.value.setting
    assert "MLFLOW_TRACKING_URI" in str(error.value)


@pytest.mark.parametrize("multirun", [False, True])
def test_the_command_writes_nothing_of_it(forks: Warm, tmp_path: Path, multirun: bool) -> None:
    typed = ("-m", REFUSED[7]) if multirun else (REFUSED[1],)
    code, output = forks.run(*typed, cwd=tmp_path, env=environment(tmp_path))
    assert code == 1 and output.count("ERROR") == 1 and SECRET not in output
    assert [path.name for path in tmp_path.iterdir()] == ["output.txt"]


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[Path]:
    """A folder of settings of one's own, and a place for the run."""
    (tmp_path / "conf" / "tracking").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    return tmp_path


def option(theirs: Path, uri: str) -> tuple[str, ...]:
    text = f"defaults:\n  - /schema/tracking@_here_: mlflow\nuri: '{uri}'\nlog_model: false\n"
    (theirs / "conf" / "tracking" / "mine.yaml").write_text(text)
    return "tracking=mine", "--config-dir", str(theirs / "conf")


@pytest.mark.parametrize("checked", [True, False])
def test_one_in_a_file_of_the_users_is_refused_before_it_is_written_elsewhere(
    forks: Warm, theirs: Path, checked: bool
) -> None:
    """Control: without the check Hydra writes it to its own files."""
    home = theirs / "home"
    mine = option(theirs, "http://hunter2@h")
    without = () if checked else ("~hydra.callbacks.private",)
    job = ("encryption.poly_modulus=5000", *without, *mine)
    code, output = forks.run(*job, cwd=home, env=environment(home))
    found = [name for name, data in contents(home) if SECRET.encode() in data]
    assert code == 1
    if checked:
        assert "tracking.uri=(not shown): a password in a setting" in output
        assert "${oc.env:NAME}" in output and not found and not (home / "outputs").exists()
    else:
        assert any("config.yaml" in name for name in found)


def test_the_library_refuses_it_too(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPERLOCK_ROOT", str(theirs / "home"))
    chosen, _, folder = option(theirs, "http://hunter2@h")
    with pytest.raises(HyperLockError, match=r"tracking\.uri=\(not shown\)") as error:
        hyperlock.run(chosen, config_dir=folder)
    assert SECRET not in str(error.value) and not list((theirs / "home").iterdir())


def test_one_of_the_environment_is_used_and_written_nowhere(
    forks: Warm, empty_store: Path, theirs: Path
) -> None:
    """A store that takes a password, as SQLite does if it is one that it does not know."""
    import mlflow

    home = theirs / "home"
    shutil.copy(empty_store, home / "store.db")
    address = f"sqlite:///file:{home}/store.db?uri=true&password={SECRET}"
    job = ("debug=smoke", *option(theirs, "${oc.env:MY_STORE}"))
    environ = environment(home, MY_STORE=address)
    code, output = forks.run(*job, cwd=home, env=environ)
    assert code == 0, output
    [run] = mlflow.MlflowClient(f"sqlite:///{home}/store.db").search_runs(["1"])
    assert run.info.status == "FINISHED" and run.data.params["tracking.uri"] == "(not recorded)"
    assert SECRET not in output and SECRET not in repr(run.to_dictionary())
    assert [name for name, data in contents(theirs) if SECRET.encode() in data] == []
    assert len(list(contents(home))) > 10


def composed(*overrides: str, hydras: bool = True) -> Any:
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return hydra_compose("config", overrides=list(overrides), return_hydra_config=hydras)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder with an @ in its name."""
    path = tmp_path / "me@work"
    path.mkdir()
    monkeypatch.setenv("HYPERLOCK_ROOT", str(path))
    return path


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("hydra/launcher=joblib", "hydra/sweeper=basic", "hparams_search=none"),
        ("hydra/launcher=submitit_slurm", "hparams_search=pareto"),
        ("tracking.uri=sqlite:////home/me@work/x.db",),
        ("tracking.uri=file:///home/me@work/runs",),
        ("tracking.uri=${oc.env:HOME}",),
        ("tags=[me@home.org]",),
    ],
    ids=" ".join,
)
def test_what_has_none_passes(root: Path, overrides: tuple[str, ...]) -> None:
    refuse_passwords(overrides)
    refuse_composed_passwords(composed(*overrides))


def test_a_store_in_a_folder_with_an_at_sign_works(root: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, root)
    store = Store.open(str(root), str(root), f"sqlite:///{root}/mlflow.db")
    assert store.experiment_id("here") == store.experiment_id("here")
    assert storage(f"sqlite:///{root}/studies.db") and (root / "studies.db").exists()


@pytest.mark.parametrize(
    "override",
    [
        "+hydra.job.env_set.STORE='http://hunter2@h'",
        "hydra.job.env_copy=[STORE]",
        "hydra.sweeper.storage.url='postgresql://hunter2@h/d'",
    ],
)
def test_one_in_hydras_own_settings_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch, override: str
) -> None:
    monkeypatch.setenv("STORE", "http://hunter2@h")
    with pytest.raises(ConfigError, match=r"hydra\.[\w.]+=\(not shown\)"):
        refuse_composed_passwords(composed(override))


def test_a_search_does_not_put_one_of_the_environment_into_its_trials(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORE", "http://hunter2@h")
    search = composed("+hydra.sweeper.params={tracking.uri:'${oc.env:STORE}'}")
    refuse_composed_passwords(search)
    with pytest.raises(ConfigError, match=r"tracking\.uri=\(not shown\)"):
        check_sweep(search)


def test_no_setting_of_the_environment_is_recorded_with_one(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORE", "http://hunter2@h")
    own = ("model=own", "model._target_=a.b", "+model.server=${oc.env:STORE}")
    settings = composed(*own, hydras=False)
    kept = read(settings)
    assert flatten(settings)["model.server"] == kept.flat["model.server"] == "(not recorded)"
    assert SECRET not in kept.yaml and "(not recorded)" in kept.yaml


def test_neither_links_nor_reasons_nor_records_show_one(root: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, root)
    address = f"http://{SECRET}@h"
    server = Store(address, None, None, False)
    assert MlflowTracker(server, "1", "run").where().startswith("(not shown)/#/experiments/1")
    open_server = Store("http://h:5000", None, None, False)
    assert MlflowTracker(open_server, "1", "run").where().startswith("http://h:5000/#/")
    assert reason(ValueError(f"cannot reach {address}")) == "ValueError: cannot reach (not shown)"

    store = Store.open(str(root), str(root), None)
    tags = {"mine": address}
    tracker = MlflowTracker.begin(store, "it", "name", {"model.server": address}, tags)
    tracker.tag({"other": address})
    run = store.client.get_run(tracker.run_id)
    assert SECRET not in repr(run.to_dictionary())
    assert {"mine": "(not shown)", "other": "(not shown)"}.items() <= run.data.tags.items()


def test_an_address_that_cannot_be_used_is_one_error(root: Path) -> None:
    address = "postgresql+nothing://u:hunter2@h"
    for use in (lambda: directory_of("0" * 32, str(root), address), lambda: storage(address)):
        with pytest.raises(ConfigError, match="cannot") as error:
            use()
        assert SECRET not in str(error.value)


def test_nothing_else_is_left_out_of_the_record(root: Path) -> None:
    settings = composed(hydras=False)
    assert read(settings).yaml == OmegaConf.to_yaml(settings, resolve=True)
