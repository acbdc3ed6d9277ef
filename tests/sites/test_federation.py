"""`make federation`: real processes, Flower, TLS; the same weights as in one process."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import msgpack
import pytest

from hyperlock.experiment import run as experiment
from hyperlock.experiment.checkpoint import load
from hyperlock.sites import demo

pytestmark = pytest.mark.flower


def processes_of(path: Path) -> list[str]:
    """Commands of processes that know this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if str(path).encode() in command and int(process.name) != os.getpid():
            found.append(command.decode(errors="replace"))
    return found


def test_its_weights_are_those_of_one_process_bit_for_bit(
    compose: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told the same seed and split; every hospital is in every cohort, and no attempt fails."""
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    directory = tmp_path / "run"
    settings = ("tracking=none", f"hydra.run.dir={directory}")
    home = tmp_path / "project"
    home.mkdir(mode=0o700)
    with demo.stage(home) as made:
        assert demo.coordinate(made.server, settings) == 0
        models = {
            next((folder.path / "runs").glob("*/model")).read_bytes()
            for name, folder in made.folders.items()
            if name != "witness"
        }
    assert processes_of(home) == []

    across = load(directory)
    same = [text for text in demo.RUN if not text.startswith("runtime.")]
    mnist = f"dataset.path={root / 'data' / 'mnist.npz'}"
    local = experiment.run(compose(*demo.LOCAL, *same, mnist, "trust=malicious", "tracking=none"))
    assert across.weights.tobytes() == local.weights.tobytes()
    assert len(models) == 1

    # The hospitals' test samples are parts of the coordinator's.
    figures = json.loads((directory / "metrics.json").read_text())
    assert figures["accuracy"] == figures["sites/accuracy"] == local.accuracy


def test_hospitals_that_share_a_key_have_the_model_of_one_process(
    compose: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And neither key holder nor witness is asked for anything; the coordinator has no model."""
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    directory = tmp_path / "run"
    shared = ("keys=clients", "trust=curious", "objective=train/loss", "tracking=none")
    home = tmp_path / "project"
    home.mkdir(mode=0o700)
    limits = f"{demo.LIMITS}  trust: curious\n  keys: [clients]\n"
    with demo.stage(home, limits=limits) as made:
        told = (*shared, "runtime.evaluation=sites", f"hydra.run.dir={directory}")
        assert demo.coordinate(made.server, told) == 0
        models = {
            next((made.folders[name].path / "runs").glob("*/model")).read_bytes()
            for name in demo.HOSPITALS
        }
        assert not list(home.glob("*/runs/*/shared.key"))
        for name in ("keyholder", "witness"):
            assert not (made.folders[name].path / "log.jsonl").exists()
    assert load(directory).round == 3 and load(directory).weights.size == 0

    same = [text for text in demo.RUN if not text.startswith("runtime.")]
    mnist = f"dataset.path={root / 'data' / 'mnist.npz'}"
    local = experiment.run(compose(*demo.LOCAL, *same, mnist, *shared))
    [model] = models
    weights, _, _ = msgpack.unpackb(model[8:])
    assert weights == local.weights.astype("<f4").tobytes()
