"""What the tests share: small schemes with keys, rounds, composed settings, and small
federations."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hypothesis import HealthCheck, settings
from omegaconf import DictConfig, OmegaConf

from hyperlock.data import split
from hyperlock.data.datasets import Dataset
from hyperlock.encryption.bfv import Bfv
from hyperlock.encryption.bfv_parameters import bfv_parameters
from hyperlock.encryption.ckks import Ckks
from hyperlock.encryption.ckks_parameters import ckks_parameters
from hyperlock.encryption.extent import Extent
from hyperlock.encryption.grid import Grid
from hyperlock.encryption.plain import Plain
from hyperlock.encryption.scheme import KeyPair, Scheme
from hyperlock.experiment.rounds import Traffic
from hyperlock.monitor import Monitor
from hyperlock.settings.parse import parse
from hyperlock.settings.schema import Config, register
from tests.parties.cast import Cast
from tests.warm import Warm, warm

ROOT = Path(__file__).resolve().parents[1]
UNMARKED = "not slow and not postgres and not flower"  # what pyproject.toml selects

# The same examples every time: what is red once is red again.
settings.register_profile(
    "hyperlock",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("hyperlock")

Compose = Callable[..., DictConfig]


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two where all is tested; none for less, which would pay for two more imports of all."""
    option = config.option
    fewer = option.keyword or getattr(option, "lf", False) or option.markexpr != UNMARKED
    return 0 if fewer or config.args != config.getini("testpaths") else 2


@pytest.fixture(scope="session", autouse=True)
def interrupts_interrupt() -> None:
    """A shell's background jobs ignore Ctrl-C, which tests send to themselves."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def tensorflow_as_we_import_it(request: pytest.FixtureRequest) -> None:
    """Before another test has TensorFlow begin to work, after which its threads can no longer be
    set."""
    if any("federate" in getattr(item, "fixturenames", ()) for item in request.session.items):
        importlib.import_module("hyperlock.learning.tensorflow")


@pytest.fixture(scope="session")
def forks() -> Iterator[Warm]:
    """Where `python run.py` needs no imports."""
    with warm() as process:
        yield process


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as MLflow makes it, to be copied: its forty migrations take a second each time."""
    import mlflow

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="session")
def ckks() -> Ckks:
    return Ckks(ckks_parameters(4096, "auto", "auto", Extent(8), 16, 128))


@pytest.fixture(scope="session")
def schemes(ckks: Ckks) -> dict[str, Scheme]:
    return {
        "ckks": ckks,
        "bfv": Bfv(bfv_parameters(2048, [34, 20], "auto", Extent(8), 16, 128)),
        "none": Plain(Extent(8), 16),
    }


@pytest.fixture(params=["ckks", "bfv", "none"])
def cast(request: pytest.FixtureRequest, schemes: dict[str, Scheme]) -> Cast:
    """A round under every scheme; its updates take several ciphertexts."""
    return Cast(schemes[request.param])


@pytest.fixture(params=["ckks", "bfv"])
def encrypted_cast(request: pytest.FixtureRequest, schemes: dict[str, Scheme]) -> Cast:
    """One under those schemes that encrypt."""
    return Cast(schemes[request.param])


@pytest.fixture(scope="session")
def keys(ckks: Ckks) -> KeyPair:
    return ckks.generate_keys()


@pytest.fixture(scope="session")
def other_keys(ckks: Ckks) -> KeyPair:
    return ckks.generate_keys()


@pytest.fixture(scope="session")
def sealapi() -> Any:
    """SEAL's own interface, which TenSEAL ships as a second library; the flag as in
    `_tenseal.py`."""
    from hyperlock.encryption import _tenseal

    flags = sys.getdlopenflags()
    sys.setdlopenflags(flags | os.RTLD_DEEPBIND)
    try:
        return importlib.import_module(f"{_tenseal.tenseal.__name__}.sealapi")
    finally:
        sys.setdlopenflags(flags)


@pytest.fixture(scope="session")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Compose:
    """Settings as `python run.py OVERRIDES` would compose them, with all paths in a temporary
    folder."""
    register()
    root = tmp_path_factory.mktemp("root")

    def compose(*overrides: str) -> DictConfig:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HYPERLOCK_ROOT", str(root))
            with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
                composed = hydra_compose("config", overrides=list(overrides))
            OmegaConf.resolve(composed)
        return composed

    return compose


@dataclass
class Federation:
    """A federation as `experiment.run` builds it, and what its rounds came to.

    Attributes:
        initial: the weights before the first round.
        grids: on which each round's updates were rounded.
        moved: each round's report.
        weights, accuracies: after each round.
    """

    config: Config
    dataset: Dataset
    parts: list[np.ndarray]
    monitor: Monitor = field(default_factory=Monitor)
    grids: list[Grid] = field(default_factory=list)
    moved: list[Traffic] = field(default_factory=list)
    weights: list[np.ndarray] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        from hyperlock.experiment import simulation

        network = simulation.build_network(self.config, simulation.samples(self.dataset))
        scheme = simulation.build_scheme(self.config, network.sizes)
        self.parties = simulation.assemble(
            self.config, self.dataset, self.parts, scheme, network, run="run", monitor=self.monitor
        )
        self.initial = self.parties.keeper.model.weights

    def play(self) -> Federation:
        """Run all rounds."""
        from hyperlock.experiment.rounds import play_round

        config = self.config
        parties = self.parties
        for number in range(1, config.federation.rounds + 1):
            self.grids.append(parties.keeper.model.grid)
            self.moved.append(play_round(number, parties, config.federation, config.seed))
            weights = parties.keeper.model.weights
            result = parties.network.evaluate(weights, self.dataset.x_test, self.dataset.y_test)
            self.weights.append(weights)
            self.accuracies.append(result.accuracy)
        return self


SMALL = (
    "dataset=digits", "dataset.train_samples=300", "dataset.test_samples=200", "model=logistic",
    "tracking=none",
    "federation.rounds=2", "federation.clients=4", "encryption.poly_modulus=4096",
)  # fmt: skip


@pytest.fixture(scope="session")
def federate(compose: Compose) -> Callable[..., Federation]:
    """A small federation on scikit-learn's digits, with clients of different sizes; no round played
    yet."""

    def federate(*overrides: str) -> Federation:
        from hyperlock.experiment.simulation import load_dataset

        small = [s for s in SMALL if not ("encryption=none" in overrides and "poly_modulus" in s)]
        config = parse(compose(*small, *overrides))
        dataset = load_dataset(config)
        parts = split.dirichlet(dataset.y_train, config.federation.clients, config.seed, alpha=2.0)
        return Federation(config, dataset, parts)

    return federate
