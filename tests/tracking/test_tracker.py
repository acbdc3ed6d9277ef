"""Sinks: none keeps nothing, and MLflow's goes on where a run stopped."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from hyperlock.errors import ConfigError
from hyperlock.metrics import ROUND
from hyperlock.tracking import origin, style
from hyperlock.tracking.mlflow import DIRECTORY, MlflowTracker, Store, directory_of
from hyperlock.tracking.origin import TrialRun
from hyperlock.tracking.tracker import Tracker

ROOT = Path(__file__).resolve().parents[2]


def operations(kind: type) -> dict[str, inspect.Signature]:
    """What others may ask of a tracker."""
    return {
        name: inspect.signature(function)
        for name, function in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    }


def test_without_a_sink_everything_may_be_reported_and_nothing_is_kept():
    tracker = Tracker()
    tracker.log({"accuracy": 1.0}, 1)
    tracker.tag({"best": "trial-000"})
    tracker.note("text")
    tracker.document("file.json", {})
    tracker.end_run("another", "KILLED")
    tracker.finish("FINISHED")
    assert (tracker.run_id, tracker.records, tracker.last_step("accuracy")) == ("", False, 0)
    assert tracker.search("anything") == tracker.children() == []
    assert tracker.where() == "not tracked (tracking=none)"


def test_mlflow_does_all_that_a_tracker_can_be_asked_for():
    asked = operations(Tracker)
    done = {name: each for name, each in operations(MlflowTracker).items() if name in asked}
    assert done == asked
    assert all(name in vars(MlflowTracker) for name in asked)


def test_a_run_is_begun_found_and_gone_on_with(tmp_path):
    store = Store.open(str(tmp_path), str(tmp_path), None)
    assert MlflowTracker.reopen(store, "ours", "tags.a = 'b'", {}) is None
    tags = {"a": "b", DIRECTORY: "/somewhere"}
    first = MlflowTracker.begin(store, "ours", "name", {"seed": "0"}, tags)
    first.log({"accuracy": 0.5}, 3)
    first.finish("KILLED")
    again = MlflowTracker.reopen(store, "ours", "tags.a = 'b'", {"a": "c"})
    assert again is not None and again.run_id == first.run_id
    assert again.last_step("accuracy") == 3
    [run] = again.search("tags.a = 'c'")
    assert (run.info.status, run.data.params) == ("RUNNING", {"seed": "0"})
    assert directory_of(first.run_id, str(tmp_path), None) == "/somewhere"
    assert directory_of("f" * 32, str(tmp_path), None) is None


def test_a_run_whose_settings_cannot_be_written_is_not_left_running(tmp_path):
    store = Store.open(str(tmp_path), str(tmp_path), None)
    with pytest.raises(Exception, match="not a name"):
        MlflowTracker.begin(store, "ours", "name", {"not a name!": "0"}, {"a": "b"})
    [run] = store.search(store.experiment_id("ours"), "tags.a = 'b'", 10)
    assert run.info.status == "FAILED"


BEGIN = """
import sys
from hyperlock.tracking.mlflow import MlflowTracker, Store
store = Store.open(sys.argv[1], sys.argv[1], None)
MlflowTracker.begin(store, "ours", "name", {}, {}).finish("KILLED")
"""


def test_runs_that_make_the_store_at_once_do_not_disturb_each_other(tmp_path):
    command = [sys.executable, "-c", BEGIN, str(tmp_path)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")}
    started = [subprocess.Popen(command, cwd=ROOT, env=environment) for _ in range(2)]
    assert [process.wait(120) for process in started] == [0, 0]
    store = Store.open(str(tmp_path), str(tmp_path), None)
    assert len(store.search(store.experiment_id("ours"), "", 10)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_a_store_that_could_not_be_made_whole_is_not_there(tmp_path, monkeypatch):
    def cut(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(mlflow.MlflowClient, "search_experiments", cut)
    with pytest.raises(KeyboardInterrupt):
        Store.open(str(tmp_path), str(tmp_path), None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "text", "text/mlflow.db"])
def test_a_file_that_is_no_store_is_one_clear_error(tmp_path, name):
    (tmp_path / "text").write_text("no database at all, but long enough to be taken for one" * 9)
    with pytest.raises(ConfigError, match=r"tracking\.uri=\(not shown\): MLflow cannot use it"):
        Store.open(str(tmp_path), str(tmp_path), f"sqlite:///{tmp_path}/{name}".rstrip("/"))
    assert (tmp_path / "text").read_text().startswith("no database")


def test_a_store_does_not_show_its_address():
    assert "hunter2" not in repr(Store("postgresql://me:hunter2@host/db", None, None, False))


def test_a_trial_is_told_what_it_belongs_to(monkeypatch):
    monkeypatch.delenv("HYPERLOCK_TRIAL", raising=False)
    assert origin.announced() is None
    trial = TrialRun("parent", 7, ("model.units=3", "+tags=[a]"))
    trial.announce()
    assert origin.announced() == trial and trial.name == "trial-007"
    assert trial.tags["overrides"] == '["model.units=3", "+tags=[a]"]'
    assert origin.withdraw() == trial and origin.withdraw() is None
    assert "HYPERLOCK_TRIAL" not in os.environ


def test_a_process_is_known_by_its_tag():
    mine = origin.process_tag()
    assert origin.on_this_host(mine) and not origin.process_ended(mine)
    assert not origin.on_this_host({}) and not origin.process_ended({"process": "elsewhere:1"})


def test_every_stage_of_a_round_has_a_colour_of_its_own_and_a_new_one_is_drawn():
    colours = [style.stage_colour(stage) for stage in ROUND]
    assert len(set(colours)) == len(colours) and style.FAINT not in colours
    assert style.stage_colour("one that is new") == style.FAINT
