"""What is computed again is what was sent, to the bit; and what cannot be is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hyperlock.audit import replay
from hyperlock.audit.__main__ import main
from hyperlock.audit.past import find
from hyperlock.errors import ConfigError, HyperLockError
from hyperlock.experiment.checkpoint import FILE
from tests.audit.conftest import watching

JOB = (
    "dataset.train_samples=300", "split=dirichlet", "model=mlp", "model.units=16", "encryption=bfv",
    "federation=fedadam", "federation.clients=6", "federation.cohort=5", "federation.dropout=0.2",
    "federation.round_attempts=3", "keys.min_clients=4", "seed=1",
)  # fmt: skip


def test_every_client_and_every_round_is_as_it_was(played: Callable[..., Path]) -> None:
    """With cohorts, clients that get lost, rounds that are tried again and a server's optimiser."""
    with watching() as quantised:
        past = find(str(played("whole", *JOB, "federation.rounds=4")))
    model = past.first
    again: set[tuple[str, int]] = set()
    for number in range(1, 5):
        clients, attempt = replay.answered(past, number)
        for client in clients:
            update = replay.encrypted(past, model, client, number, attempt).values
            key = (f"client-{client}", number)
            assert update.tobytes() == quantised[key].tobytes()
            again.add(key)
        assert attempt > 1 or len([at for _, at in quantised if at == number]) == len(clients)
        round_again = replay.play(past, number, model)
        assert round_again.clients == clients
        assert len(round_again.watched.data.y) == min(len(past.parts[c]) for c in clients)
        model = model.step(round_again.totals, round_again.total)
    assert len(again) > 12
    last = past.last
    assert (model.weights.tobytes(), model.digest) == (last.weights.tobytes(), last.digest)


def test_the_round_after_a_checkpoint_is_the_one_that_came(played: Callable[..., Path]) -> None:
    with watching() as sent:
        played("three", *JOB, "federation.rounds=3")
    with watching() as quantised:
        past = find(str(played("two", *JOB, "federation.rounds=2")))
    model = replay.model_before(past, 3)
    found = replay.play(past, 3, model)
    fewest = min(found.clients, key=lambda client: len(past.parts[client]))
    assert {number for _, number in quantised} == {1, 2}
    assert found.watched.values.tobytes() == sent[f"client-{fewest}", 3].tobytes()
    assert replay.model_before(past, 2).digest != model.digest
    with pytest.raises(HyperLockError, match=r"--round 4: .*\n.*1 to 3"):
        replay.model_before(past, 4)


def changed(directory: Path, settings: dict[str, str]) -> None:
    """Another setting in a checkpoint."""
    path = directory / FILE
    with np.load(path) as kept:
        arrays = {name: kept[name] for name in kept.files}
    meta = json.loads(arrays["meta"].tobytes())
    meta["settings"] |= settings
    np.savez(path, **{**arrays, "meta": np.frombuffer(json.dumps(meta).encode(), np.uint8)})


@pytest.fixture(scope="module")
def of_a_file(root: Path, played: Callable[..., Path]) -> Path:
    """A run on a file of the project's."""
    (root / "data").mkdir()
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = rng.random((90, 4), np.float32) + y[:, None]
    np.savez(root / "data" / "own.npz", x=x.astype(np.float32), y=y)
    path = f"dataset.path={root}/data/own.npz"
    return played(
        "file", "dataset=npz", path, "model=logistic", "federation.clients=3", "encryption=none",
        "federation.rounds=3",
    )  # fmt: skip


def copied(directory: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(directory, tmp_path / "copy"))


def test_runs_across_sites_are_refused(of_a_file: Path, tmp_path: Path) -> None:
    directory = copied(of_a_file, tmp_path)
    changed(directory, {"runtime.engine": "flower"})
    with pytest.raises(ConfigError, match="across sites, whose data are with them and not here"):
        find(str(directory))


def test_a_missing_file_is_refused_and_not_fetched(of_a_file: Path, root: Path) -> None:
    file = root / "data" / "own.npz"
    file.rename(root / "elsewhere.npz")
    try:
        with pytest.raises(ConfigError, match=r"dataset\.path=.*own\.npz: the run's data are not"):
            find(str(of_a_file))
    finally:
        (root / "elsewhere.npz").rename(file)


def test_other_data_in_the_same_place_are_noticed(of_a_file: Path, root: Path) -> None:
    file = root / "data" / "own.npz"
    before = file.read_bytes()
    with np.load(file) as kept:
        x, y = kept["x"], kept["y"]
    np.savez(file, x=x, y=(y + 1) % 3)
    try:
        with pytest.raises(ConfigError, match="not the data of this run: its model answered"):
            find(str(of_a_file))
    finally:
        file.write_bytes(before)
    assert find(str(of_a_file)).rounds == 3


def test_what_cannot_be_shown_is_said_and_the_rest_is_shown(
    of_a_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(of_a_file), "--no-record"]) == 0
    said = capsys.readouterr().out
    assert "inversion is not shown: samples of shape [4] are no images" in said and "AUC" in said
    names = {file.name for file in (of_a_file / "audit").iterdir()}
    assert names == {"audit.json", "membership.png"}


def test_a_directory_without_a_checkpoint(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 1
    assert "there is no checkpoint.npz" in capsys.readouterr().err


def test_a_model_that_cannot_be_built_any_more_is_named(
    of_a_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = copied(of_a_file, tmp_path)
    path = directory / FILE
    with np.load(path) as kept:
        arrays = {name: kept[name] for name in kept.files}
    meta = json.loads(arrays["meta"].tobytes())
    meta["overrides"].append("model._target_=theirs.gone")
    meta["settings"]["model._target_"] = "theirs.gone"
    np.savez(path, **{**arrays, "meta": np.frombuffer(json.dumps(meta).encode(), np.uint8)})
    # Code is taken only from who asks, and then it is not there.
    assert main([str(directory)]) == 1
    assert f"resume={directory} model._target_=theirs.gone" in capsys.readouterr().err
    assert main([f"resume={directory}", "model._target_=theirs.gone"]) == 1
    assert "theirs" in capsys.readouterr().err
