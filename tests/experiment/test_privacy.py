"""Runs under differential privacy: what is released, what is not told, and what it costs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

from hyperlock.encryption.totals import Totals
from hyperlock.errors import ClientFailure, ConfigError, ReleaseRefused
from hyperlock.experiment import simulation, summary
from hyperlock.experiment.checkpoint import load
from hyperlock.experiment.private import Guarantee, build_guarantee
from hyperlock.experiment.run import run
from hyperlock.parties.model import GlobalModel, ModelKeeper
from hyperlock.privacy import gaussian
from hyperlock.privacy.sampling import balanced, by_chance, most_rounds
from hyperlock.settings.parse import parse
from hyperlock.settings.private import WITHHELD

SMALL = (
    "dataset=digits", "dataset.train_samples=300", "model=logistic", "tracking=none",
    "federation.clients=6", "federation.rounds=3", "keys.min_clients=5",
)  # fmt: skip
CLIENT = (*SMALL, "privacy=client", "privacy.epsilon=null", "privacy.noise_multiplier=0.5")
SAMPLE = (
    *SMALL, "privacy=sample", "federation=fedsgd", "privacy.epsilon=null", "privacy.delta=1e-4",
    "privacy.noise_multiplier=1.0", "privacy.record_rate=0.2",
)  # fmt: skip


@pytest.fixture
def known_noise(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Noise, and samples drawn, from a seed; called before each run that is to have the same."""
    promised = simulation.promised
    rng = np.random.default_rng(0)

    def seeded(*given: Any) -> Guarantee | None:
        found = promised(*given)
        return found and replace(found, source=lambda count: rng.bytes(count))

    def drawn(count: int, rate: float) -> np.ndarray:
        return by_chance(count, rate, lambda size: rng.bytes(size))

    monkeypatch.setattr(simulation, "promised", seeded)
    monkeypatch.setattr(simulation, "by_chance", drawn)

    def again() -> None:
        nonlocal rng
        rng = np.random.default_rng(7)

    return again


@pytest.fixture
def allowing(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Runs that promise each client so many releases."""
    promised = simulation.promised

    def allow(most: int) -> None:
        def limited(*given: Any) -> Guarantee | None:
            found = promised(*given)
            return found and replace(found, participations=most)

        monkeypatch.setattr(simulation, "promised", limited)

    return allow


@pytest.mark.parametrize("unit", [CLIENT, SAMPLE], ids=["client", "sample"])
def test_with_the_same_noise_every_scheme_custody_and_trust_gives_the_same_bits(
    compose: Callable, known_noise: Callable[[], None], unit: Sequence[str]
) -> None:
    weights = set()
    for settings in (
        ("encryption=none",),
        ("encryption=bfv",),
        ("encryption=ckks",),
        ("encryption=bfv", "keys=server"),
        ("encryption=bfv", "trust=malicious"),
    ):
        known_noise()
        weights.add(run(compose(*unit, *settings)).weights.tobytes())
    assert len(weights) == 1


def test_the_noise_does_not_come_from_the_runs_seed(compose: Callable) -> None:
    first, second = (run(compose(*CLIENT, "encryption=none")).weights for _ in range(2))
    assert not np.array_equal(first, second)
    plain = [run(compose(*SMALL, "encryption=none")).weights.tobytes() for _ in range(2)]
    assert plain[0] == plain[1]  # the control


@pytest.mark.parametrize("unit", [CLIENT, SAMPLE], ids=["client", "sample"])
def test_of_clients_data_nothing_is_told_but_noised_sums(
    compose: Callable, unit: Sequence[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every field of the totals, every metric, every picture."""
    told: list[Totals] = []
    step = GlobalModel.step

    def noted(self: GlobalModel, totals: Totals, update: np.ndarray) -> GlobalModel:
        told.append(totals)
        after = step(self, totals, update)
        assert after.grid.ranges == self.grid.ranges
        return after

    monkeypatch.setattr(GlobalModel, "step", noted)
    tracked = [text for text in unit if text != "tracking=none"]
    uri = f"sqlite:///{tmp_path}/runs.db"
    report = run(compose(*tracked, f"tracking.uri={uri}", f"paths.outputs={tmp_path}"))
    for totals in told:
        for field in fields(Totals):
            due = 6 if field.name == "contributors" else 0
            assert getattr(totals, field.name) == due, field.name
    assert not set(WITHHELD) & report.final().keys()

    # What is in the record.
    client = mlflow.MlflowClient(uri)
    [experiment] = [one for one in client.search_experiments() if one.name == "hyperlock"]
    [found] = client.search_runs([experiment.experiment_id])
    assert not set(WITHHELD) & found.data.metrics.keys()
    pictures = [one.path for one in client.list_artifacts(found.info.run_id, "plots")]
    assert "plots/privacy.png" in pictures and not any("split" in path for path in pictures)
    assert found.data.metrics["privacy/epsilon"] == report.metrics["privacy/epsilon"] > 0
    assert found.data.tags["privacy"] == ("client" if unit is CLIENT else "sample")


def test_a_client_whose_training_diverges_sends_zeros_and_noise(compose: Callable) -> None:
    """That it failed would tell of its data."""
    diverging = ("encryption=none", "model=mlp", "federation.learning_rate=1e30")
    report = run(compose(*CLIENT, *diverging))
    assert report.metrics["updates/accepted"] == 6 and np.isfinite(report.weights).all()
    with pytest.raises(ClientFailure):
        run(compose(*SMALL, *diverging))


# What it costs


def test_epsilon_is_that_of_the_rounds_that_a_client_was_in(compose: Callable) -> None:
    """With plain Gaussians in closed form: three rounds at z = 0.5."""
    report = run(compose(*CLIENT, "encryption=none"))
    ideal = gaussian.epsilon(math.sqrt(3) / 0.5, 1e-5)
    assert report.metrics["privacy/epsilon"] == pytest.approx(ideal, rel=2e-3)
    assert report.metrics["privacy/epsilon_hidden"] == report.metrics["privacy/epsilon"]
    balanced_thirds = ("federation.fraction=0.5", "keys.min_clients=3", "federation.rounds=4")
    report = run(compose(*CLIENT, "encryption=none", *balanced_thirds))
    twice = gaussian.epsilon(math.sqrt(2) / 0.5, 1e-5)
    assert report.metrics["privacy/epsilon"] == pytest.approx(twice, rel=2e-3)


def test_a_budget_decides_the_noise(compose: Callable) -> None:
    budget = ("privacy=client", "privacy.epsilon=8", "encryption=none")
    report = run(compose(*SMALL, *budget))
    assert 7.9 < report.metrics["privacy/epsilon"] <= 8
    assert report.guarantee is not None
    assert report.guarantee.mechanism.promise.noise == pytest.approx(1.0, rel=0.2)


def test_cohorts_by_chance_are_hidden_from_who_sees_models(compose: Callable) -> None:
    many = (
        "federation.clients=60", "federation.fraction=0.5", "keys.min_clients=10",
        "privacy.sampling=poisson", "encryption=none", "privacy.noise_multiplier=1.0",
        "federation.round_attempts=3",
    )  # fmt: skip
    report = run(compose(*CLIENT, *many))
    assert 0 < report.metrics["privacy/epsilon_hidden"] < report.metrics["privacy/epsilon"]


def test_a_run_by_chance_ends_at_its_budget(compose: Callable, allowing: Callable) -> None:
    many = (
        "federation.clients=40", "federation.fraction=0.5", "keys.min_clients=10",
        "privacy.sampling=poisson", "encryption=none", "federation.rounds=12",
        "privacy.epsilon=8", "privacy.noise_multiplier=null", "federation.round_attempts=3",
    )  # fmt: skip
    report = run(compose(*CLIENT, *many))
    assert report.metrics["privacy/epsilon"] <= 8 and report.rounds == 12
    allowing(3)
    assert 3 <= run(compose(*CLIENT, *many)).rounds < 8


def test_the_last_round_that_a_budget_allows_is_evaluated_and_kept(
    compose: Callable, allowing: Callable, tmp_path: Path
) -> None:
    """As the last one of any run is."""
    many = (
        "federation.clients=40", "federation.fraction=0.5", "keys.min_clients=10",
        "privacy.sampling=poisson", "encryption=none", "federation.rounds=12",
        "federation.round_attempts=3", "federation.evaluate_every=100", "checkpoint_every=100",
    )  # fmt: skip
    allowing(3)
    report = run(compose(*CLIENT, *many), tmp_path)
    assert report.rounds < 12 and list(report.accuracies) == [report.rounds]
    assert load(tmp_path).round == report.rounds


def test_what_was_released_was_spent_also_in_a_run_that_was_killed(
    compose: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where clients share the key, a round that is not in a checkpoint is decrypted again: its
    noise is another, and it costs again."""
    settings = (*CLIENT, "encryption=none", "keys=clients", "keys.min_clients=6")
    whole = run(compose(*settings)).metrics["privacy/epsilon"]
    take = ModelKeeper.take

    def killed(self: ModelKeeper, *given: Any) -> None:
        if self.round == 1:
            raise KeyboardInterrupt
        take(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(ModelKeeper, "take", killed)
        with pytest.raises(KeyboardInterrupt):
            run(compose(*settings), tmp_path)
    start = load(tmp_path)
    assert start.round == 1
    again = run(compose(*settings), tmp_path, (), start).metrics["privacy/epsilon"]
    assert again == pytest.approx(gaussian.epsilon(math.sqrt(4) / 0.5, 1e-5), rel=2e-3)
    assert again > whole


def test_the_key_holder_keeps_to_the_budget_whatever_the_server_asks(
    compose: Callable, allowing: Callable
) -> None:
    allowing(1)
    with pytest.raises(ReleaseRefused, match="was in 1 releases, which is all"):
        run(compose(*CLIENT, "encryption=none"))


def test_a_run_goes_on_with_as_many_rounds_as_its_noise_was_made_for(
    compose: Callable, tmp_path: Path
) -> None:
    settings = (*SMALL, "privacy=client", "encryption=none")
    run(compose(*settings), tmp_path)
    with pytest.raises(ConfigError, match=r"^federation\.rounds=6: the noise of this run was made"):
        run(compose(*settings, "federation.rounds=6"), tmp_path, (), load(tmp_path))
    own = (*CLIENT, "encryption=none")
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    run(compose(*own), other)
    longer = run(compose(*own, "federation.rounds=4"), other, (), load(other))
    assert longer.rounds == 4


# Refused, each with the figure


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("privacy.delta=0.2",), r"privacy\.delta=0\.2: one client in 6 .*below 1/6"),
        (("privacy.clip=0",), r"privacy\.clip=0"),
        (("privacy.epsilon=0",), r"privacy\.epsilon=0"),
        (("privacy.epsilon=1e-9",), r"privacy\.epsilon=1e-09: no noise reaches it"),
        (("privacy.epsilon=null", "privacy.noise_multiplier=null"), "nothing says how much noise"),
        (("privacy.noise_multiplier=0.5", "privacy.epsilon=2"), r"federation\.rounds=3: .*budget"),
        (("keys.min_clients=2",), r"keys\.min_clients=2: .*fewer than two shares"),
        (("encryption.value_bits=6",), r"encryption\.value_bits=6: a clip of .* below the root"),
        (("privacy.sampling=poison",), r"privacy\.sampling=poison: .*privacy\.sampling=poisson"),
        (("privacy.sampling=poisson", "trust=malicious"), "cohorts are shown"),
        (("privacy.sampling=all", "federation.cohort=5"), r"federation\.cohort=5: .*balanced"),
        (("objective=train/loss",), "nothing is told that is not noised"),
        (("privacy=sample",), r"federation\.local_epochs=1: .*has no bound"),
        (("privacy=sample", "federation.local_epochs=null", "federation.local_steps=3"),
         r"federation\.local_steps=3: .*has no bound"),
        (("privacy=sample", "federation=fedsgd", "privacy.delta=0.01"),
         r"privacy\.delta=0\.01: with 300 samples"),
        (("privacy=sample", "federation=fedsgd", "privacy.sampling=poisson"), "in secret"),
    ],
    ids=str,
)  # fmt: skip
def test_what_promises_nothing_is_refused(
    compose: Callable, settings: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        run(compose(*SMALL, "privacy=client", *settings))
    assert re.search(said, str(caught.value), re.DOTALL), caught.value
    assert "try: " in str(caught.value) or "allowed: " in str(caught.value)


def test_a_server_optimiser_takes_one_clipped_gradient(compose: Callable) -> None:
    one = (
        "federation.local_epochs=null", "federation.local_steps=1", "encryption=none",
        "federation.learning_rate=0.5", "federation.rounds=25",
    )  # fmt: skip
    for name in ("fedadam", "fedavgm"):
        settings = [text for text in SAMPLE if text != "federation=fedsgd"]
        report = run(compose(*settings, f"federation={name}", *one))
        assert report.accuracy > 0.4, name


def test_too_much_noise_is_said_beforehand(
    compose: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    report = run(compose(*SMALL, "privacy=client", "privacy.epsilon=1", "encryption=none"))
    assert "times the clip" in caplog.text and "or privacy=sample" in caplog.text
    assert "nothing is promised there" in caplog.text
    said = dict(summary.rows(report))["privacy"]
    assert (
        said.startswith("of one client: epsilon ") and " at delta 1e-05 for who sees sums" in said
    )
    assert said.endswith("the server sees each update, and nothing is promised there")


# Who and what is in a round


@pytest.mark.parametrize(("clients", "size"), [(10, 5), (10, 4), (7, 3), (5, 5), (9, 2)])
def test_balanced_cohorts_ask_everybody_equally_often(clients: int, size: int) -> None:
    names = [f"client-{i}" for i in range(clients)]
    for rounds in (1, 3, 8, 25):
        counts = dict.fromkeys(names, 0)
        for number in range(1, rounds + 1):
            cohort = balanced(names, size, 3, number)
            assert len(set(cohort)) == size
            for name in cohort:
                counts[name] += 1
        assert max(counts.values()) <= most_rounds(clients, size, rounds)
        assert max(counts.values()) - min(counts.values()) <= 1


def test_chance_is_as_likely_as_it_says_and_never_the_seeds() -> None:
    found = [by_chance(10_000, 0.2) for _ in range(2)]
    assert not np.array_equal(*found)
    assert all(1800 < len(one) < 2200 for one in found)
    assert len(by_chance(50, 1.0)) == 50 and not len(by_chance(50, 1e-16))


def test_a_guarantee_is_the_same_at_all_parties(compose: Callable) -> None:
    config = parse(compose(*SMALL, "privacy=client"))
    found = [build_guarantee(config, 650, 50.0) for _ in range(2)]
    assert found[0] == found[1]
    assert build_guarantee(parse(compose(*SMALL)), 650, 50.0) is None


@pytest.mark.parametrize("name", ["privacy_client", "privacy_sample"])
def test_as_typed_noise_costs_at_most_so_many_bytes(compose: Callable, name: str) -> None:
    """A parameter, against the same run at 8 bits without."""
    sizes = (7840, 10)
    config = parse(compose(f"experiment={name}", "privacy.epsilon=1"))
    guarantee = build_guarantee(config, sum(sizes), 60_000 / config.federation.clients)
    plain = parse(compose(f"experiment={name}", "privacy=none", "encryption.value_bits=8"))
    found = []
    for each, promised in ((config, guarantee), (plain, None)):
        scheme = simulation.build_scheme(each, sizes, promised)
        length = simulation.build_vector(each, sizes, promised).length
        found.append(scheme.chunk_count(length) * scheme.layout.whole_bytes / sum(sizes))
    assert found[0] - found[1] <= 1.4
