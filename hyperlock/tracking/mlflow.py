"""Where a run's figures go: MLflow, or nowhere. Keys never come here."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

from hyperlock.errors import ConfigError
from hyperlock.process import held_back

Metrics = Mapping[str, float]
DIRECTORY = "directory"  # tag: where a run writes what it can be resumed from
# What a sweep tells its trials' processes, as JSON: parent, number, overrides.
TRIAL = "HYPERLOCK_TRIAL"


class Tracker(Protocol):
    """A run's record, open until `finish`; `run_id` names it, "" where nothing is recorded."""

    run_id: str

    def log(self, metrics: Metrics, step: int) -> None:
        """Record the metrics of one round, durably before it returns."""
        ...

    def last_step(self, metric: str) -> int:
        """The last round that a metric was recorded for; 0 if there is none."""
        ...

    def figure(self, name: str, figure: Any) -> None:
        """Record a Matplotlib figure as `name`.png."""
        ...

    def document(self, name: str, content: str | Mapping[str, object]) -> None:
        """Record a text, or a mapping as JSON, under a file name."""
        ...

    def model(self, model: Any, example: Any) -> None:
        """Record a Keras model with the signature that `example` gives it."""
        ...

    def note(self, markdown: str) -> None:
        """Text for the run's own page."""
        ...

    def finish(self, status: str) -> None:
        """End the run: FINISHED, FAILED or KILLED."""
        ...

    def where(self) -> str:
        """How to look at it, for the summary."""
        ...


class NoTracker:
    """Records nothing."""

    run_id = ""

    def log(self, metrics: Metrics, step: int) -> None:
        """Nothing."""

    def last_step(self, metric: str) -> int:
        """None."""
        return 0

    def figure(self, name: str, figure: Any) -> None:
        """Nothing."""

    def document(self, name: str, content: str | Mapping[str, object]) -> None:
        """Nothing."""

    def model(self, model: Any, example: Any) -> None:
        """Nothing."""

    def note(self, markdown: str) -> None:
        """Nothing."""

    def finish(self, status: str) -> None:
        """Nothing."""

    def where(self) -> str:
        """Nowhere."""
        return "not tracked (tracking=none)"


class MlflowTracker:
    """One MLflow run, by explicit id; no state of MLflow's fluent interface is relied on.

    Args:
        root: the project's root; the default store is `mlflow.db` there, which `mlflow ui` finds by
            itself.
        outputs: artifacts go to `mlflow/` in it, unless the store is a server.
        uri: another store; else the environment's MLFLOW_TRACKING_URI, else the default.
        experiment: created if new.
        name: the run's name.
        params: flat settings.
        tags: what a person would filter by.
        reopen: the newest run that this filter finds, if it finds any, is continued instead of a
            new one begun.
    """

    def __init__(
        self,
        root: str,
        outputs: str,
        uri: str | None,
        experiment: str,
        name: str,
        params: Mapping[str, str],
        tags: Mapping[str, str],
        reopen: str | None = None,
    ) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow
        from mlflow.exceptions import MlflowException

        # Creating the store prints every migration, and each run's end a link into the server's
        # default page.
        for noisy in (
            "alembic",
            "mlflow.store.db.utils",
            "mlflow.models.model",
            "mlflow.tracking.fluent",
        ):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        self._uri = store_uri(root, uri)
        self._is_default = self._uri == f"sqlite:///{Path(root) / 'mlflow.db'}"
        try:
            mlflow.set_tracking_uri(self._uri)
            self._client = mlflow.MlflowClient(self._uri)
        except MlflowException as error:
            problem = f"MLflow cannot use it ({type(error).__name__})"
            allowed = "sqlite:///FILE, postgresql://..., http://..."
            raise ConfigError("tracking.uri", "(not shown)", problem, allowed=allowed) from None
        self._is_server = self._uri.startswith("http")  # a server decides itself where artifacts go
        self._experiment = self._experiment_id(
            experiment, None if self._is_server else Path(outputs) / "mlflow"
        )
        found = self.search(reopen, 1) if reopen else []
        if found:
            self.run_id = found[0].info.run_id
            with self._writing():
                self._client.update_run(self.run_id, status="RUNNING")
            self.tag(tags)
            return
        with self._writing():
            run = self._client.create_run(self._experiment, run_name=name, tags=dict(tags))
        self.run_id = run.info.run_id
        from mlflow.entities import Param

        try:
            with self._writing():
                self._client.log_batch(
                    self.run_id, params=[Param(key, value[:6000]) for key, value in params.items()]
                )
        except BaseException:  # no run is left RUNNING, whatever ended this one
            self.finish("FAILED")
            raise

    @property
    def client(self) -> Any:
        """MLflow's client of the store."""
        return self._client

    def search(self, query: str, limit: int = 10_000) -> list[Any]:
        """The experiment's runs that a filter finds, newest first."""
        return list(self._client.search_runs([self._experiment], query, max_results=limit))

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        with self._writing():
            for key, value in tags.items():
                self._client.set_tag(self.run_id, key, value)

    def log(self, metrics: Metrics, step: int) -> None:
        """One batch, written before it returns."""
        import time

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        entries = [Metric(key, float(value), now, step) for key, value in metrics.items()]
        with self._writing():
            self._client.log_batch(self.run_id, metrics=entries)

    def last_step(self, metric: str) -> int:
        """The last round whose metrics are in the store; 0 if none is."""
        return max(
            (entry.step for entry in self._client.get_metric_history(self.run_id, metric)),
            default=0,
        )

    def figure(self, name: str, figure: Any) -> None:
        """`plots/name.png`."""
        self._client.log_figure(self.run_id, figure, f"plots/{name}.png")

    def document(self, name: str, content: str | Mapping[str, object]) -> None:
        """Text or JSON."""
        if isinstance(content, str):
            self._client.log_text(self.run_id, content, name)
        else:
            self._client.log_dict(self.run_id, dict(content), name)

    def model(self, model: Any, example: Any) -> None:
        """As MLflow's TensorFlow flavour; requirements are stated, since inferring them takes 20
        s."""
        from importlib.metadata import version

        import mlflow
        import mlflow.tensorflow

        signature = mlflow.models.infer_signature(example, model(example).numpy())
        with self._writing(), mlflow.start_run(run_id=self.run_id):
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
        """FINISHED, FAILED or KILLED."""
        with self._writing():
            self._client.set_terminated(self.run_id, status)

    def _writing(self) -> AbstractContextManager[None]:
        """An interrupt within a commit leaves SQLite's lock behind, and the next write waits 20 s
        for it and fails."""
        return held_back() if self._uri.startswith("sqlite") else nullcontext()

    def where(self) -> str:
        """The command and the page."""
        if self._is_server:
            base, command = self._uri, ""
        else:
            # The address itself may hold a password.
            store = "" if self._is_default else " --backend-store-uri URI"
            base, command = "http://127.0.0.1:5000", f"mlflow ui --workers 1{store}, then "
        page = f"#/experiments/{self._experiment}/runs/{self.run_id}?workflowType=machine_learning"
        return f"{command}{base}/{page}"

    def _experiment_id(self, name: str, artifacts: Path | None) -> str:
        experiment = self._client.get_experiment_by_name(name)
        if experiment is not None:
            return experiment.experiment_id
        return self._client.create_experiment(
            name, artifact_location=artifacts.as_uri() if artifacts else None
        )


def directory_of(run_id: str, root: str, uri: str | None) -> str | None:
    """The directory that a run wrote to, as its record has it; None if there is no such run."""
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return mlflow.MlflowClient(store_uri(root, uri)).get_run(run_id).data.tags.get(DIRECTORY)
    except MlflowException:
        return None


def store_uri(root: str, uri: str | None) -> str:
    """The store: as set, or the environment's, or the database in the project's root."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path(root) / 'mlflow.db'}"


def trial() -> tuple[str | None, dict[str, str]]:
    """The run name and the tags of a sweep's trial; none outside a sweep."""
    if TRIAL not in os.environ:
        return None, {}
    told = json.loads(os.environ[TRIAL])
    number, overrides = told["number"], json.dumps(told["overrides"])
    tags = {"mlflow.parentRunId": told["parent"], "trial": str(number), "overrides": overrides}
    return f"trial-{number:03d}", tags | process_tag()


def process_tag() -> dict[str, str]:
    """Marks a run as this process' own, so that it can be told later that the process ended without
    a word."""
    return {"process": f"{socket.gethostname()}:{os.getpid()}"}


def on_this_host(tags: Mapping[str, str]) -> bool:
    """Whether a run's process is, or was, one of this machine."""
    return tags.get("process", "").rpartition(":")[0] == socket.gethostname()


def process_ended(tags: Mapping[str, str]) -> bool:
    """Whether a run's process was one of this machine, and is no more."""
    if not on_this_host(tags):
        return False
    try:
        os.kill(int(tags["process"].rpartition(":")[2]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
