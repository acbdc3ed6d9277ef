"""MLflow as a sink; the one place that imports it, when it is first used, since that takes
seconds."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hyperlock.addresses import NOT_SHOWN, carries_secret, withheld
from hyperlock.errors import ConfigError
from hyperlock.process import held_back
from hyperlock.tracking.origin import children_of
from hyperlock.tracking.tracker import Draw, Metrics, Tracker

DIRECTORY = "directory"  # tag: where a run writes what it can be resumed from
_ADDRESS = "MLFLOW_TRACKING_URI"  # of the environment
_LONGEST_PARAMETER = 6000  # characters; MLflow refuses longer ones
# Creating the store prints every migration, and each run's end a link into the server's default
# page.
_NOISY = ("alembic", "mlflow.store.db.utils", "mlflow.models.model", "mlflow.tracking.fluent")


def preload() -> Any:
    """MLflow itself, quiet and without telemetry; imported by the first call."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow

    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return mlflow


@dataclass(frozen=True)
class Store:
    """Where MLflow keeps runs: a database, or a server.

    Attributes:
        address: as MLflow takes it; not shown, since it may hold a password.
        client: MLflow's own client of it.
        artifacts: the folder of pictures and files; None on a server, which decides itself.
        is_default: whether it is the one that `mlflow ui` finds by itself.
    """

    address: str = field(repr=False)
    client: Any = field(repr=False)
    artifacts: Path | None
    is_default: bool

    @classmethod
    def open(cls, root: str, outputs: str, uri: str | None) -> Store:
        """The store of a project.

        Args:
            root: the project's folder; the default store is `mlflow.db` there.
            outputs: artifacts go to `mlflow/` in it.
            uri: another store; else the environment's MLFLOW_TRACKING_URI, else the default.

        Raises:
            ConfigError: MLflow cannot use the address.
        """
        mlflow = preload()
        from sqlalchemy.exc import SQLAlchemyError

        address = _address(root, uri)
        try:
            _create(address)
            client = mlflow.MlflowClient(address)
        except (mlflow.exceptions.MlflowException, SQLAlchemyError, OSError) as error:
            raise _unusable(type(error).__name__) from None
        artifacts = None if _is_server(address) else Path(outputs) / "mlflow"
        return cls(address, client, artifacts, address == _default_address(root))

    @property
    def is_server(self) -> bool:
        """Whether it is reached by HTTP."""
        return _is_server(self.address)

    def experiment_id(self, name: str) -> str:
        """The id of an experiment, which is created if it is new; ConfigError if the store does not
        answer."""
        with _answering():
            experiment = self.client.get_experiment_by_name(name)
            if experiment is not None:
                return str(experiment.experiment_id)
            location = None if self.artifacts is None else self.artifacts.as_uri()
            return str(self.client.create_experiment(name, artifact_location=location))

    def search(self, experiment_id: str, query: str, limit: int) -> list[Any]:
        """The experiment's runs that a filter finds, newest first."""
        return list(self.client.search_runs([experiment_id], query, max_results=limit))

    @contextmanager
    def fluent(self, run_id: str) -> Iterator[None]:
        """For the block, the run is the one that MLflow's fluent functions write to.

        Afterwards they write to where they did before: into a run of the user's own, perhaps.
        """
        mlflow = preload()
        before = os.environ.get(_ADDRESS)  # is set, and unset, along with MLflow's own memory of it
        mlflow.set_tracking_uri(self.address)
        try:
            with mlflow.start_run(run_id=run_id, nested=True):
                yield
        finally:
            mlflow.set_tracking_uri(before)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """For a block that writes: ConfigError if the store does not answer.

        Signals are held back if it is SQLite: an interrupt within a commit leaves SQLite's lock
        behind, and the next write waits 20 s for it and fails.
        """
        with held_back() if self.address.startswith("sqlite") else nullcontext(), _answering():
            yield


class MlflowTracker(Tracker):
    """One MLflow run, by explicit id; no state of MLflow's fluent interface is relied on.

    `begin` makes a new run, `reopen` goes on with one.
    """

    records = True

    def __init__(self, store: Store, experiment_id: str, run_id: str) -> None:
        self._store = store
        self._experiment = experiment_id
        self.run_id = run_id

    @classmethod
    def begin(
        cls,
        store: Store,
        experiment: str,
        name: str,
        params: Mapping[str, str],
        tags: Mapping[str, str],
    ) -> MlflowTracker:
        """A new run.

        Args:
            store: where.
            experiment: created if new.
            name: the run's name.
            params: flat settings.
            tags: what a person would filter by.
        """
        experiment_id = store.experiment_id(experiment)
        public = {key: withheld(value) for key, value in tags.items()}
        with store.writing():
            run = store.client.create_run(experiment_id, run_name=name, tags=public)
        tracker = cls(store, experiment_id, run.info.run_id)
        # The run is there from here on: whatever ends this, it is not left RUNNING.
        try:
            tracker._write_settings(params)
        except BaseException:
            tracker.finish("FAILED")
            raise
        return tracker

    @classmethod
    def reopen(
        cls, store: Store, experiment: str, query: str, tags: Mapping[str, str]
    ) -> MlflowTracker | None:
        """The newest run that a filter finds, running again and tagged anew; None if there is
        none."""
        experiment_id = store.experiment_id(experiment)
        found = store.search(experiment_id, query, 1)
        if not found:
            return None
        tracker = cls(store, experiment_id, found[0].info.run_id)
        with store.writing():
            store.client.update_run(tracker.run_id, status="RUNNING")
        tracker.tag(tags)
        return tracker

    @classmethod
    def beside(cls, store: Store, run_id: str) -> MlflowTracker | None:
        """A run of the store, to add to what it has: its status and its end stay as they are; None
        if there is none of this id."""
        mlflow = preload()
        try:
            run = store.client.get_run(run_id)
        except mlflow.exceptions.MlflowException:
            return None
        return cls(store, run.info.experiment_id, run_id)

    def log(self, metrics: Metrics, step: int) -> None:
        """One batch, written before it returns."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        entries = [Metric(key, float(value), now, step) for key, value in metrics.items()]
        with self._store.writing():
            self._client.log_batch(self.run_id, metrics=entries)

    def last_step(self, metric: str) -> int:
        """The last round whose metrics are in the store; 0 if none is."""
        with _answering():
            history = self._client.get_metric_history(self.run_id, metric)
        return max((entry.step for entry in history), default=0)

    def tag(self, tags: Mapping[str, str]) -> None:
        """One write for each tag, all of them before it returns."""
        with self._store.writing():
            for key, value in tags.items():
                self._client.set_tag(self.run_id, key, withheld(value))

    def figure(self, name: str, draw: Draw) -> None:
        """The artifact `plots/name.png`."""
        picture = draw()
        with self._store.writing():
            self._client.log_figure(self.run_id, picture, f"plots/{name}.png")

    def document(self, name: str, content: str | Mapping[str, object]) -> None:
        """An artifact at the top."""
        with self._store.writing():
            if isinstance(content, str):
                self._client.log_text(self.run_id, content, name)
            else:
                self._client.log_dict(self.run_id, dict(content), name)

    def expect_model(self) -> None:
        """The flavour, and MLflow's table of what is installed, without which it writes no
        requirements."""
        import mlflow.tensorflow  # noqa: F401
        from mlflow.utils import requirements_utils

        # No part of MLflow's interface: without it, writing the model takes a third of a second
        # more.
        prepare = getattr(requirements_utils, "_init_packages_to_modules_map", None)
        if prepare is not None:
            prepare()

    def model(self, model: Any, example: Any) -> None:
        """As MLflow's TensorFlow flavour; requirements are stated, since inferring them takes 20
        s."""
        import mlflow
        import mlflow.tensorflow

        signature = mlflow.models.infer_signature(example, model(example).numpy())
        with self._store.writing(), self._store.fluent(self.run_id):
            mlflow.tensorflow.log_model(
                model,
                name="model",
                signature=signature,
                pip_requirements=[f"tensorflow=={version('tensorflow')}"],
            )

    def note(self, markdown: str) -> None:
        """MLflow shows this tag, rendered, as the run's description."""
        self.tag({"mlflow.note.content": markdown})

    def finish(self, status: str) -> None:
        """The run's status and end; what is written after that does not change them."""
        self.end_run(self.run_id, status)

    def where(self) -> str:
        """The command that opens MLflow's page, and the page's address."""
        page = f"#/experiments/{self._experiment}/runs/{self.run_id}?workflowType=machine_learning"
        if self._store.is_server:
            secret = carries_secret(self._store.address, "uri")
            return f"{NOT_SHOWN if secret else self._store.address}/{page}"
        # The address itself may hold a password.
        backend = "" if self._store.is_default else " --backend-store-uri URI"
        return f"mlflow ui --workers 1{backend}, then http://127.0.0.1:5000/{page}"

    def search(self, query: str, limit: int = 10_000) -> list[Any]:
        """Runs of the same experiment, by MLflow's filters."""
        return self._store.search(self._experiment, query, limit)

    def children(self) -> list[Any]:
        """By the tag that nests a run in MLflow's table."""
        return self.search(children_of(self.run_id))

    def end_run(self, run_id: str, status: str) -> None:
        """Set the status and the end of any run in the store."""
        with self._store.writing():
            self._client.set_terminated(run_id, status)

    @property
    def _client(self) -> Any:
        return self._store.client

    def _write_settings(self, params: Mapping[str, str]) -> None:
        """As MLflow's parameters, which can be written once and not changed."""
        from mlflow.entities import Param

        public = {key: withheld(value)[:_LONGEST_PARAMETER] for key, value in params.items()}
        entries = [Param(key, value) for key, value in public.items()]
        with self._store.writing():
            self._client.log_batch(self.run_id, params=entries)


def directory_of(run_id: str, root: str, uri: str | None) -> str | None:
    """The directory that a run wrote to, as its record has it; None if there is no such run.

    Whoever may write to the store can name any directory there.

    Raises:
        ConfigError: MLflow cannot use the address.
    """
    mlflow = preload()
    from sqlalchemy.exc import SQLAlchemyError

    try:
        run = mlflow.MlflowClient(_address(root, uri)).get_run(run_id)
    except mlflow.exceptions.MlflowException:
        return None
    except (SQLAlchemyError, OSError) as error:
        raise _unusable(type(error).__name__) from None
    directory: str | None = run.data.tags.get(DIRECTORY)
    return directory


def _create(address: str) -> None:
    """Make a SQLite file that is not there yet, whole or not at all.

    MLflow makes it in forty steps, over a second or more: two runs at once would disturb each
    other, and a run that is killed meanwhile would leave a file that no run can use.
    """
    path = Path(address.removeprefix("sqlite:///"))
    if not address.startswith("sqlite:///") or "?" in address or path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise PermissionError  # for MLflow would try again and again for minutes
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        preload().MlflowClient(f"sqlite:///{part}").search_experiments(max_results=1)
        os.link(part, path)
    except OSError:
        # Another run was faster, or the file system knows no links.
        if not path.exists():
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _answering() -> Iterator[None]:
    """ConfigError where MLflow finds its store unreachable, locked or full. What it calls an
    invalid value is a mistake of this program, and left as it is."""
    mlflow = preload()
    try:
        yield
    except mlflow.exceptions.MlflowException as error:
        if error.error_code == "INVALID_PARAMETER_VALUE":
            raise
        raise _unusable(f"{type(error).__name__}, {error.error_code}") from None


def _unusable(why: str) -> ConfigError:
    """Without the address and MLflow's own text, which may hold a password."""
    return ConfigError(
        "tracking.uri",
        "(not shown)",
        f"MLflow cannot use it ({why})",
        allowed="sqlite:///FILE, postgresql://..., http://...",
    )


def _address(root: str, uri: str | None) -> str:
    """The store as set, or the environment's, or the default one."""
    return uri or os.environ.get(_ADDRESS) or _default_address(root)


def _default_address(root: str) -> str:
    return f"sqlite:///{Path(root) / 'mlflow.db'}"


def _is_server(address: str) -> bool:
    return address.startswith("http")
