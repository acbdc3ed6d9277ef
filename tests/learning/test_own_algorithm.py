"""Algorithms by name: HyperLock's take their groups' keys and are what they were; one of a user's
own is built and tried, or refused with a reason before a round is played."""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path

import numpy as np
import pytest

import hyperlock
from hyperlock.errors import ConfigError
from hyperlock.experiment.checkpoint import load
from hyperlock.experiment.simulation import build_algorithm
from hyperlock.learning import algorithms, check_algorithm
from hyperlock.learning.models import logistic
from hyperlock.learning.network import Network
from hyperlock.learning.optimizers import Sgd
from hyperlock.learning.types import Algorithm, LocalData, LocalUpdate, Samples
from hyperlock.parties.model import optimizer_state
from hyperlock.settings.schema import SCHEMAS

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = Samples((2, 2), np.dtype("float32"), 3)
PARAMETERS = 4 * 3 + 3
OPTIONS = sorted(SCHEMAS["federation"].keys() - {"own"})
# Keys of a federation that are about its rounds and not about what is learned in them.
ROUNDS = {
    "algorithm", "rounds", "clients", "cohort", "fraction", "dropout", "round_attempts",
    "evaluate_every", "target_accuracy", "_target_",
}  # fmt: skip

MODULE = '''
from dataclasses import dataclass, replace

import numpy as np

from hyperlock.learning.types import Algorithm, LocalUpdate


@dataclass(frozen=True)
class Clipped:
    """Steps of at most `longest`, and a count of them."""

    longest: float
    steps: int = 0

    def step(self, weights, mean):
        length = np.linalg.norm(mean)
        after = weights - mean * min(1.0, self.longest / max(length, 1e-12))
        return after.astype(np.float32), replace(self, steps=self.steps + 1)


def clipped(network, longest, rate):
    """One pass over the samples in their order."""

    def train(weights, data, round_number, rng):
        order = np.arange(len(data.y))
        trained, loss = network.train(weights, data.x, data.y, order, rate / round_number)
        return LocalUpdate(weights - trained, loss)

    return Algorithm(train, Clipped(longest))
'''


@pytest.fixture(scope="module")
def network() -> Network:
    return Network(logistic(SAMPLES.shape, SAMPLES.classes), SAMPLES, 4)


def keys_of(option: str) -> set[str]:
    return set(SCHEMAS["federation"][option].__dataclass_fields__) - ROUNDS


# HyperLock's own


@pytest.mark.parametrize("option", OPTIONS)
def test_an_algorithm_takes_the_keys_of_its_group(option: str) -> None:
    parameters = signature(getattr(algorithms, option)).parameters
    first, *others = parameters.values()
    taken = {p.name for p in others if p.kind is not Parameter.VAR_KEYWORD}
    if len(taken) < len(others):
        taken |= set(algorithms.LocalTraining.__annotations__)
    assert first.name == "network" and taken == keys_of(option)


@pytest.mark.parametrize("steps", [False, True], ids=["epochs", "steps"])
@pytest.mark.parametrize("option", OPTIONS)
def test_an_algorithm_by_name_is_the_one_of_the_settings(
    federate: Callable, option: str, steps: bool
) -> None:
    changes = ["federation.learning_rate_decay=0.5"]
    if steps and option != "fedsgd":
        changes += ["federation.local_epochs=null", "federation.local_steps=7"]
    federation = federate(f"federation={option}", "encryption=none", *changes)
    network = federation.parties.network
    config = federation.config
    built = build_algorithm(config, network)
    keys = {key: getattr(config.federation, key) for key in keys_of(option)}
    named = getattr(algorithms, option)(network, **keys)
    assert named.optimizer == built.optimizer
    data = LocalData(federation.dataset.x_train[:90], federation.dataset.y_train[:90])
    due, found = (
        train(federation.initial, data, 3, np.random.default_rng(5))
        for train in (built.trainer, named.trainer)
    )
    assert found.vector.tobytes() == due.vector.tobytes() and found.loss == due.loss


def test_the_batches_are_as_large_as_the_algorithm_says(network: Network) -> None:
    """Whatever the network was built with."""
    keys = {"local_epochs": 1, "local_steps": None, "learning_rate": 0.5, "learning_rate_decay": 1}
    x = np.random.default_rng(0).random((12, *SAMPLES.shape), np.float32)
    data = LocalData(x, np.arange(12, dtype=np.int32) % 3)
    weights = network.initial_weights()
    updates = {
        size: algorithms.fedavg(
            network.batched(other), server_learning_rate=1.0, batch_size=size, **keys
        ).trainer(weights, data, 1, np.random.default_rng(0))
        for size, other in ((3, 4), (4, 4), (12, 5))
    }
    assert network.batched(4) is network and network.batched(3).batch_size == 3
    full, _ = network.gradient(weights, data.x, data.y)
    assert np.allclose(updates[12].vector, 0.5 * full, atol=1e-6)
    assert (updates[3].vector != updates[4].vector).any()


@pytest.mark.parametrize("option", OPTIONS)
def test_every_algorithm_passes_what_a_users_must(network: Network, option: str) -> None:
    schema = SCHEMAS["federation"][option](learning_rate=0.1)
    keys = {key: getattr(schema, key) for key in keys_of(option)}
    make = partial(getattr(algorithms, option), network, **keys)
    assert isinstance(check_algorithm.build(make, option, network), Algorithm)


def test_without_epochs_and_steps_nobody_would_train(network: Network) -> None:
    with pytest.raises(ConfigError, match=r"federation\.local_epochs=null: .*nobody would train"):
        algorithms.fedavg(
            network, server_learning_rate=1.0, local_epochs=None, local_steps=None, batch_size=4,
            learning_rate=0.1, learning_rate_decay=1.0,
        )  # fmt: skip


# A user's


def test_an_algorithm_of_ones_own_is_built_and_learns(
    network: Network, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_algorithms.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    make = partial(import_module("their_algorithms").clipped, network, longest=0.5, rate=0.2)
    monkeypatch.delitem(sys.modules, "their_algorithms")
    algorithm = check_algorithm.build(make, "their_algorithms.clipped", network)
    assert algorithm.optimizer.steps == 0  # what it was tried on is thrown away

    rng = np.random.default_rng(0)
    x = rng.random((30, *SAMPLES.shape), np.float32)
    y = (x.reshape(30, -1).argmax(axis=1) % 3).astype(np.int32)
    weights = network.initial_weights()
    optimizer = algorithm.optimizer
    start = network.evaluate(weights, x, y).loss
    for number in range(1, 6):
        update = algorithm.trainer(weights, LocalData(x, y), number, rng)
        weights, optimizer = optimizer.step(weights, update.vector.astype(np.float64))
    assert network.evaluate(weights, x, y).loss < start
    assert optimizer_state(optimizer) == {"longest": 0.5, "steps": 5}  # and a checkpoint keeps it


def test_the_docstrings_algorithm_works(network: Network) -> None:
    lines = (algorithms.__doc__ or "").splitlines()
    code = "\n".join(line[4:] for line in lines if line.startswith("    "))
    names = {**vars(algorithms), "np": np, "dataclass": dataclass}
    exec(code, names)
    make = partial(names["signed"], network, rate=0.01, batch_size=2)
    weights = network.initial_weights()
    after, _ = check_algorithm.build(make, "signed", network).optimizer.step(
        weights, np.ones(PARAMETERS)
    )
    assert np.allclose(after, weights - 0.01)


def test_an_update_that_is_not_finite_is_not_the_algorithms_fault(network: Network) -> None:
    make = partial(Algorithm, trainer(np.full(PARAMETERS, np.nan, np.float32)), Sgd(1.0))
    check_algorithm.build(make, "theirs", network)


def trainer(vector: object, loss: object = 1.0) -> Callable:
    return lambda weights, data, round_number, rng: LocalUpdate(vector, loss)


GOOD = trainer(np.ones(PARAMETERS, np.float32))


@dataclass(frozen=True)
class Frozen:
    """An optimiser whose step is given."""

    result: Callable
    state: object = 0.0

    def step(self, weights, mean):
        return self.result(self, weights, mean)


@dataclass
class Thawed:
    rate: float = 1.0

    def step(self, weights, mean):
        return weights, self


class NoDataclass:
    def step(self, weights, mean):
        return weights, self


@dataclass(frozen=True)
class Unset:
    count: int = field(default=0, init=False)

    def step(self, weights, mean):
        return weights, self


@dataclass(frozen=True)
class NoStep:
    rate: float = 1.0


def after(change: Callable) -> Frozen:
    return Frozen(lambda self, weights, mean: (change(weights, mean), self))


def writes(weights, data, round_number, rng):
    weights -= 1
    return LocalUpdate(weights, 0.0)


def keep(value: object) -> Frozen:
    return Frozen(lambda self, weights, mean: (weights, replace(self, state=value)))


REFUSED = {
    "it raises": (lambda: 1 / 0, ["it raised ZeroDivisionError", "a function of network"]),
    "other keys": (
        lambda: (lambda network: None)(rate=1),
        ["it raised TypeError", "+federation.options.KEY=VALUE"],
    ),
    "no algorithm": (lambda: (GOOD, Sgd(1.0)), ["it returned builtins.tuple", "return Algorithm("]),
    "trainer raises": (
        lambda: Algorithm(lambda weights, data: None, Sgd(1.0)),
        ["its trainer raised TypeError", "weights (float32[parameters], read-only)"],
    ),
    "trainer is none": (lambda: Algorithm(None, Sgd(1.0)), ["its trainer raised TypeError"]),
    "trainer writes": (lambda: Algorithm(writes, Sgd(1.0)), ["read-only"]),
    "no update": (
        lambda: Algorithm(lambda w, d, n, r: (w, 0.0), Sgd(1.0)),
        ["its trainer returned builtins.tuple", "return LocalUpdate("],
    ),
    "float64 update": (
        lambda: Algorithm(trainer(np.ones(PARAMETERS)), Sgd(1.0)),
        [f"update is float64[{PARAMETERS}]", f"float32[{PARAMETERS}]", ".astype(np.float32)"],
    ),
    "short update": (
        lambda: Algorithm(trainer(np.ones(3, np.float32)), Sgd(1.0)),
        ["update is float32[3]"],
    ),
    "update is a list": (
        lambda: Algorithm(trainer([0.0] * PARAMETERS), Sgd(1.0)),
        ["update is builtins.list"],
    ),
    "no loss": (
        lambda: Algorithm(trainer(np.ones(PARAMETERS, np.float32), None), Sgd(1.0)),
        ["its trainer's loss is builtins.NoneType", "float(loss)"],
    ),
    "no dataclass": (lambda: Algorithm(GOOD, NoDataclass()), ["NoDataclass, is no frozen data"]),
    "not frozen": (lambda: Algorithm(GOOD, Thawed()), ["Thawed, is no frozen", "frozen=True"]),
    "no step": (lambda: Algorithm(GOOD, NoStep()), ["NoStep, has no step", "Sgd(1.0)"]),
    "field not given": (lambda: Algorithm(GOOD, Unset()), ["field count cannot", "init=False"]),
    "step raises": (
        lambda: Algorithm(GOOD, after(lambda w, mean: mean[:, 0])),
        ["its optimizer's step raised IndexError", "mean float64[parameters]"],
    ),
    "step writes": (
        lambda: Algorithm(GOOD, after(lambda w, mean: np.subtract(w, 1, out=w))),
        ["step raised ValueError", "writes to neither"],
    ),
    "step writes to the mean": (
        lambda: Algorithm(GOOD, after(lambda w, mean: w - np.negative(mean, out=mean))),
        ["step raised ValueError", "writes to neither"],
    ),
    "only weights": (
        lambda: Algorithm(GOOD, Frozen(lambda self, weights, mean: weights)),
        ["step returned numpy.ndarray", "dataclasses.replace(self"],
    ),
    "float64 weights": (
        lambda: Algorithm(GOOD, after(lambda w, mean: w - mean)),
        [f"step gives weights of float64[{PARAMETERS}]"],
    ),
    "weights of one number": (
        lambda: Algorithm(GOOD, after(lambda w, mean: np.float32(1))),
        ["step gives weights of numpy.float32"],
    ),
    "another optimiser": (
        lambda: Algorithm(GOOD, Frozen(lambda self, weights, mean: (weights, Sgd(1.0)))),
        ["Frozen into hyperlock.learning.optimizers.Sgd"],
    ),
    "a slot that is a list": (
        lambda: Algorithm(GOOD, keep([1.0])),
        ["changes the field state, which is builtins.list", "which checkpoints keep"],
    ),
    "a slot of objects": (
        lambda: Algorithm(GOOD, keep(np.array([None]))),
        ["changes the field state, which is numpy.ndarray", "arrays and numbers"],
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_an_algorithm_that_cannot_work_is_refused(network: Network, kind: str) -> None:
    make, words = REFUSED[kind]
    with pytest.raises(ConfigError) as caught:
        check_algorithm.build(make, "theirs.algorithm", network)
    first, *rest = str(caught.value).split("\n  ")
    assert caught.value.setting == "federation._target_" and len(str(caught.value)) < 900
    assert first.startswith("federation._target_=theirs.algorithm: it")
    assert [line.partition(": ")[0] for line in rest] == ["allowed", "try"]
    for word in words:
        assert word in str(caught.value)


def test_an_error_of_ours_comes_out_as_it_is(network: Network) -> None:
    def make() -> Algorithm:
        raise ConfigError("federation.rate", 0, "is too small")

    with pytest.raises(ConfigError, match=r"federation\.rate=0: is too small"):
        check_algorithm.build(make, "theirs", network)


# By the command's own way


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the example of docs/own-algorithm.md, and an option that names it."""
    guide = (ROOT / "docs" / "own-algorithm.md").read_text()
    (module,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    (option,) = re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)
    (tmp_path / "algorithms.py").write_text(module)
    (tmp_path / "conf" / "federation").mkdir(parents=True)
    (tmp_path / "conf" / "federation" / "clipped.yaml").write_text(option)
    monkeypatch.setenv("HYPERLOCK_ROOT", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "algorithms", raising=False)
    return tmp_path


JOB = (
    "dataset=digits", "dataset.train_samples=300", "model=logistic", "tracking=none",
    "encryption=bfv",
)  # fmt: skip


def test_the_guides_algorithm_runs_by_its_name_and_its_options_count(theirs: Path) -> None:
    def run(norm: float, *more: str) -> np.ndarray:
        settings = ("federation=clipped", f"federation.options.max_norm={norm}", *more)
        return hyperlock.run(*JOB, *settings, config_dir=theirs / "conf").weights

    rounds = "federation.rounds=2"
    before = run(1e-9, "federation.rounds=1")  # so short a step that these are the first weights
    short = run(0.1, rounds)
    assert 0.05 < np.linalg.norm(short - before) < 0.25  # two steps, and the grid's rounding
    assert np.linalg.norm(run(100.0, rounds) - before) > 0.4


def test_an_algorithm_of_ones_own_without_an_option_and_resumed(theirs: Path) -> None:
    job = (
        *JOB,
        "federation=own",
        "federation._target_=algorithms.clipped",
        "+federation.options.max_norm=0.5",
    )
    whole = hyperlock.run(*job, "federation.rounds=3")
    hyperlock.run(*job, "federation.rounds=1")
    newest = max(theirs.glob("outputs/runs/*/*"))
    with pytest.raises(ConfigError, match=r"give them again: .* federation\._target_=algorithms"):
        hyperlock.run(f"resume={newest}", "federation.rounds=3")
    its_own = "federation._target_=algorithms.clipped"
    again = hyperlock.run(f"resume={newest}", its_own, "federation.rounds=3")
    assert again.weights.tobytes() == whole.weights.tobytes()


def test_the_record_names_the_function_and_a_resumed_run_must_have_the_same(
    theirs: Path,
) -> None:
    folder = theirs / "conf"
    hyperlock.run(*JOB, "federation=clipped", "federation.rounds=1", config_dir=folder)
    newest = max(theirs.glob("outputs/runs/*/*"))
    assert load(newest).settings["federation._target_"] == "algorithms.clipped"
    option = folder / "federation" / "clipped.yaml"
    option.write_text(option.read_text().replace("algorithms.clipped", "algorithms.other"))
    with pytest.raises(
        ConfigError, match=r"_target_ was algorithms\.clipped, is algorithms\.other"
    ):
        hyperlock.run(f"resume={newest}", "federation.rounds=2", config_dir=folder)
    with pytest.raises(ConfigError, match="the same --config-dir as the run had"):
        hyperlock.run(f"resume={newest}", "federation.rounds=2")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("federation=own",), r"federation\._target_=\?\?\?: a value must be given"),
        (
            ("federation=own", "federation._target_=algorithms.clippd"),
            r"federation\._target_=algorithms\.clippd: cannot be imported[\s\S]*no attribute",
        ),
        (
            ("federation=clipped", "+federation.options.longest=1"),
            r"it raised TypeError: .*longest",
        ),
        (
            ("federation=clipped", "+federation.options.network=1"),
            r"federation\.network=1: .*what the run has by this name",
        ),
        (
            ("federation=clipped", "+federation.options.batch_size=1"),
            r"federation\.options\.batch_size=1: is a setting of its own",
        ),
        (("federation=clipped", "federation.rounds=0"), r"federation\.rounds=0.*too small"),
        (("federation=clipped", "+federation.mu=1"), r"federation\.mu=1: there is no such setting"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_work_is_said_by_its_setting(
    theirs: Path, settings: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        hyperlock.run(*JOB, *settings, config_dir=theirs / "conf")
