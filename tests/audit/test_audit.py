"""The command: its answer, what it writes, and the run's record."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hyperlock.audit.__main__ import main
from hyperlock.experiment.checkpoint import load

ROOT = Path(__file__).resolve().parents[2]
JOB = (
    "dataset.train_samples=60", "model=mlp", "model.units=16", "federation.clients=3",
    "federation.rounds=2",
)  # fmt: skip


@pytest.mark.slow
def test_an_audit_is_in_the_runs_record_which_stays_ended(
    played: Callable[..., Path],
    root: Path,
    empty_store: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import mlflow

    shutil.copy(empty_store, root / "mlflow.db")
    directory = played("recorded", *JOB, "tracking.log_model=false", "tracking=mlflow")
    run_id = load(directory).run_id
    client = mlflow.MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    before = client.get_run(run_id).info

    assert main(["nosuchrun"]) == 1
    assert "no run of this id" in capsys.readouterr().err
    assert main([run_id]) == 0
    said = capsys.readouterr().out
    assert "SSIM" in said and "AUC" in said and str(directory / "audit") in said
    record = client.get_run(run_id)
    assert (record.info.status, record.info.end_time) == ("FINISHED", before.end_time)
    told = json.loads((directory / "audit" / "audit.json").read_text())
    kept = {name: value for name, value in record.data.metrics.items() if "audit/" in name}
    assert kept == pytest.approx(told["metrics"])
    assert {f"audit/inversion_ssim_{name}" for name in ("update", "sum", "ciphertext")} <= set(kept)
    assert {"audit/membership_low", "audit/membership_tpr_at_1_fpr"} <= set(kept)
    pictures = [file.path for file in client.list_artifacts(run_id, "plots")]
    assert {"plots/audit_inversion.png", "plots/audit_membership.png"} <= set(pictures)
    # Pictures show training samples.
    files = list((directory / "audit").iterdir())
    assert {file.name for file in files} == {"audit.json", "inversion.png", "membership.png"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_help_loads_nothing_heavy() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "hyperlock.audit", "--help"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0 and "--round N" in done.stdout
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
    assert imported.isdisjoint({"tensorflow", "tenseal", "mlflow", "matplotlib", "scipy"})
