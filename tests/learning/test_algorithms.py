"""Every algorithm, as configured and with all parties, against a plain NumPy reference."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from reference import Adaptive, Momentum, full_gradient, play, sgd

from hyperlock.errors import ConfigError, RoundFailed
from hyperlock.experiment.rounds import drop_out, sample_cohort
from hyperlock.settings.parse import parse
from hyperlock.settings.schema import SCHEMAS

# A grid too fine to be seen, and too wide to saturate
FINE = (
    "encryption=none", "encryption.value_bits=24", "encryption.initial_range=8",
    "encryption.range_factor=32",
    "federation.rounds=3",
)  # fmt: skip
ALL = [[0, 1, 2, 3]] * 3


def average(weights: np.ndarray, mean: np.ndarray) -> np.ndarray:
    return weights - mean


def server(kind: str, rate: float, beta1: float = 0.9) -> Callable[..., np.ndarray]:
    return Adaptive(kind, rate, beta1, 0.99, 0.001)


CASES: dict[str, tuple[list[str], Callable, Callable]] = {
    "fedavg": ([], lambda d: sgd(d, lambda n: 0.2), lambda: average),
    "fedavg, epochs": (
        ["local_epochs=3", "batch_size=7"], lambda d: sgd(d, lambda n: 0.2, epochs=3, batch=7),
        lambda: average
    ),
    "fedavg, steps": (
        ["local_epochs=null", "local_steps=13", "batch_size=10"],
        lambda d: sgd(d, lambda n: 0.2, steps=13, batch=10),
        lambda: average,
    ),
    "fedavg, decay": (["learning_rate_decay=0.5"],
        lambda d: sgd(d, lambda n: 0.2 * 0.5 ** (n - 1)), lambda: average),
    "fedavg, server rate": (
        ["server_learning_rate=0.3"], lambda d: sgd(d, lambda n: 0.2), lambda: lambda w,
        mean: w - 0.3 * mean
    ),
    "fedprox": (
        ["mu=2.0", "local_epochs=2"], lambda d: sgd(d, lambda n: 0.2, mu=2.0, epochs=2),
        lambda: average
    ),
    "fedprox, steps": (
        ["mu=2.0", "local_epochs=null", "local_steps=20"],
        lambda d: sgd(d, lambda n: 0.2, mu=2.0, steps=20),
        lambda: average,
    ),
    "fedavgm": (["server_momentum=0.7"], lambda d: sgd(d, lambda n: 0.2),
        lambda: Momentum(1.0, 0.7)),
    "fedadagrad": ([], lambda d: sgd(d, lambda n: 0.2),
        lambda: server("fedadagrad", 0.03, beta1=0.0)),
    "fedadam": (["learning_rate=0.1"], lambda d: sgd(d, lambda n: 0.1),
        lambda: server("fedadam", 0.03)),
    "fedyogi": (["server_learning_rate=0.1"], lambda d: sgd(d, lambda n: 0.2),
        lambda: server("fedyogi", 0.1)),
    "fedsgd": ([], full_gradient, lambda: lambda w, mean: w - 0.5 * mean),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_algorithm_is_what_numpy_says_it_is(federate: Callable, case: str) -> None:
    changes, client, server_step = CASES[case]
    option = case.split(",")[0]
    federation = federate(
        f"federation={option}", *FINE, *(f"federation.{change}" for change in changes)
    ).play()
    expected = play(federation, client(federation.dataset), server_step(), ALL)
    assert federation.config.federation.algorithm == option
    before = federation.initial
    for after, due in zip(federation.weights, expected, strict=True):
        assert np.abs(after - due).max() < 2e-4 * np.abs(due - before).max() + 2e-6
        before = after
    totals = federation.parties.keeper.totals
    assert (totals.contributors, totals.samples, totals.saturated) == (4, 300, 0)


def test_every_algorithm_is_among_these() -> None:
    assert {case.split(",")[0] for case in CASES} == set(SCHEMAS["federation"]) - {"own"}


def test_fedprox_without_its_term_is_fedavg_to_the_bit(federate: Callable) -> None:
    plain = federate(*FINE).play()
    proximal = federate("federation=fedprox", "federation.mu=0", *FINE).play()
    assert [w.tobytes() for w in plain.weights] == [w.tobytes() for w in proximal.weights]


def test_fedprox_keeps_clients_nearer(federate: Callable) -> None:
    moved = []
    for mu in (0, 1, 4):
        federation = federate(
            "federation=fedprox", f"federation.mu={mu}", "federation.local_epochs=5", *FINE
        ).play()
        moved.append(np.linalg.norm(federation.weights[0] - federation.initial))
    assert moved[0] > 1.3 * moved[1] > 1.6 * moved[2]


def test_fedsgds_decay_is_of_the_servers_steps(federate: Callable) -> None:
    federation = federate("federation=fedsgd", "federation.learning_rate_decay=0.5", *FINE).play()
    rates = iter([0.5, 0.25, 0.125])
    expected = play(
        federation, full_gradient(federation.dataset), lambda w, mean: w - next(rates) * mean, ALL
    )
    assert np.abs(federation.weights[-1] - expected[-1]).max() < 1e-5


def test_training_loss_is_the_mean_over_batches(federate: Callable) -> None:
    """Of an epoch, whichever way it is asked for: 75 samples in 5 batches of 15."""
    from hyperlock.learning.local import LearningRate, sgd_epochs, sgd_steps
    from hyperlock.learning.network import Network
    from hyperlock.learning.types import LocalData

    federation = federate("federation.batch_size=15", *FINE)
    network: Network = federation.parties.network
    data = LocalData(federation.dataset.x_train[:75], federation.dataset.y_train[:75])
    rate = LearningRate(0.1)
    weights = federation.initial
    epoch, steps = (
        trainer(weights, data, 1, np.random.default_rng(0))
        for trainer in (sgd_epochs(network, 1, rate), sgd_steps(network, 5, 15, rate))
    )
    assert (epoch.vector == steps.vector).all() and epoch.loss == pytest.approx(steps.loss)
    twice = sgd_steps(network, 2 * 5, 15, LearningRate(1e-12))(
        weights, data, 1, np.random.default_rng(0)
    )
    start = network.evaluate(weights, data.x, data.y).loss * 75
    assert twice.loss == pytest.approx(start, rel=1e-4)


@pytest.mark.parametrize("option", sorted(SCHEMAS["federation"].keys() - {"own"}))
def test_the_grids_range_holds_what_clients_send(federate: Callable, option: str) -> None:
    """8 bits on clients of different labels and sizes; the range follows the mean of the rounds
    before."""
    federation = federate(f"federation={option}", "encryption=none", "federation.rounds=8").play()
    totals = federation.parties.keeper.totals
    assert totals.saturated <= 1e-2 * totals.contributors * federation.initial.size
    assert federation.accuracies[-1] > 0.5


@pytest.mark.parametrize("option", ["fedavgm", "fedadam"])
def test_custody_and_scheme_change_no_optimiser(federate: Callable, option: str) -> None:
    runs = [
        federate(f"federation={option}", *changes).play()
        for changes in (
            (),
            ("keys=clients", "encryption=bfv"),
            ("encryption=none", "runtime.workers=3"),
        )
    ]
    first, *others = ([w.tobytes() for w in run.weights] for run in runs)
    assert others == [first, first]


# Clients that do not answer

LOSSY = ("federation.clients=12", "federation.dropout=0.4", "federation.round_attempts=3")


def test_a_round_without_the_lost_is_the_round_of_the_others(federate: Callable) -> None:
    federation = federate(*FINE, *LOSSY).play()
    names = federation.parties.clients
    lost = [drop_out(names, names, 0.4, 0, number) for number in (1, 2, 3)]
    assert [report.lost for report in federation.moved] == [len(absent) for absent in lost]
    assert [report.replies for report in federation.moved] == [12 - len(absent) for absent in lost]
    assert len({frozenset(absent) for absent in lost}) == 3 and all(lost)
    cohorts = [[i for i, name in enumerate(names) if name not in absent] for absent in lost]
    expected = play(federation, sgd(federation.dataset, lambda n: 0.2), average, cohorts)
    for after, due in zip(federation.weights, expected, strict=True):
        assert np.abs(after - due).max() < 1e-4
    totals = federation.parties.keeper.totals
    assert totals.contributors == len(cohorts[-1])
    assert totals.samples == sum(federation.parts[i].size for i in cohorts[-1])


def test_seed_round_client_and_attempt_decide_who_is_lost_and_the_rest_does_not() -> None:
    names = [f"client-{i}" for i in range(1000)]
    lost = drop_out(names, names, 0.3, 0, 1)
    assert 250 < len(lost) < 350
    assert drop_out(names[:500], names, 0.3, 0, 1) == lost & set(names[:500])
    others = [drop_out(names, names, 0.3, *ids) for ids in ((1, 1), (0, 2), (0, 1, 2), (0, 1, 3))]
    assert len({frozenset(absent) for absent in [lost, *others]}) == 5
    assert lost < drop_out(names, names, 0.6, 0, 1)
    assert drop_out(names, names, 0.0, 0, 1) == set()


def test_another_attempt_draws_another_cohort() -> None:
    names = [f"client-{i}" for i in range(30)]
    draws = [sample_cohort(names, 10, 0, 1, attempt) for attempt in (1, 2, 3)]
    assert draws[0] == sample_cohort(names, 10, 0, 1) and len(set(map(tuple, draws))) == 3
    assert all(len(set(draw)) == 10 and sorted(draw, key=names.index) == draw for draw in draws)


def test_a_round_with_too_few_answers_fails_or_is_tried_again(federate: Callable) -> None:
    lossy = (
        "encryption=none",
        "federation.clients=6",
        "federation.dropout=0.6",
        "federation.rounds=6",
    )
    names = [f"client-{i}" for i in range(6)]
    due = [
        [drop_out(names, names, 0.6, 0, number, attempt) for attempt in range(1, 9)]
        for number in range(1, 7)
    ]
    first_try = [len(attempts[0]) for attempts in due]
    assert max(first_try) > 3  # that is, fewer than keys.min_clients answer
    failing = next(number for number, lost in enumerate(first_try, start=1) if lost > 3)
    with pytest.raises(
        RoundFailed, match=f"round {failing}: .*keys.min_clients=3; [456] of 6 clients"
    ) as caught:
        federate(*lossy).play()
    assert "federation.round_attempts=5" in str(caught.value)
    federation = federate(*lossy, "federation.round_attempts=8").play()
    lost = [next(len(absent) for absent in attempts if len(absent) <= 3) for attempts in due]
    assert [report.lost for report in federation.moved] == lost


def test_a_dropped_client_of_a_cohort_still_learns_of_the_model_under_clients_keys(
    federate: Callable,
) -> None:
    changes = ("federation.clients=6", "federation.dropout=0.3", "federation.round_attempts=5")
    plain = federate(*changes).play()
    shared = federate(*changes, "keys=clients").play()
    assert [w.tobytes() for w in plain.weights] == [w.tobytes() for w in shared.weights]
    assert sum(report.lost for report in plain.moved) > 0


# Settings that cannot work

REFUSED = [
    ("fedavg", ["local_steps=5"], r"local_steps=5: federation\.local_epochs=1 is set too"),
    ("fedavg", ["local_epochs=null"], "local_epochs=null: .*nobody would train"),
    ("fedavg", ["local_epochs=null", "local_steps=0"], "local_steps=0: is too small"),
    ("fedavg", ["dropout=1"], "dropout=1.0: is out of range"),
    ("fedavg", ["dropout=-0.1"], "dropout=-0.1: is out of range"),
    ("fedavg", ["learning_rate_decay=0"], "learning_rate_decay=0.0: is no decay"),
    ("fedsgd", ["learning_rate_decay=1.1"], "learning_rate_decay=1.1: is no decay"),
    ("fedprox", ["mu=-1"], "mu=-1.0: is too small"),
    ("fedprox", ["mu=inf"], "mu=inf: is not finite"),
    ("fedavgm", ["server_momentum=1"], "server_momentum=1.0: is out of range"),
    ("fedadam", ["beta1=1"], "beta1=1.0: is out of range"),
    ("fedyogi", ["beta2=-0.5"], "beta2=-0.5: is out of range"),
    ("fedadagrad", ["tau=0"], "tau=0.0: must be a positive number"),
]


@pytest.mark.parametrize(("option", "changes", "message"), REFUSED, ids=lambda v: str(v))
def test_what_no_algorithm_can_use_is_refused(
    compose: Callable, option: str, changes: list, message: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^federation\.{message}"):
        parse(compose(f"federation={option}", *(f"federation.{change}" for change in changes)))
