"""Differential privacy across sites: the same terms at all, counted by each for itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hyperlock.errors import RoundFailed
from hyperlock.experiment import private
from hyperlock.experiment import run as experiment
from hyperlock.experiment.simulation import build_terms
from hyperlock.parties.spending import Spending
from hyperlock.settings.parse import parse
from tests.sites.project import LIMITS, Pipe, Project
from tests.sites.test_sites import DATA, across, project

__all__ = ["across", "project"]

SAMPLE = (
    "privacy=sample", "federation=fedsgd", "privacy.delta=1e-4", "privacy.epsilon=4",
    "privacy.record_rate=1.0", "keys.min_clients=3",
)  # fmt: skip


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise that is always the same, so that runs can be compared."""
    built = private.build_guarantee

    def seeded(*given: Any) -> private.Guarantee | None:
        found = built(*given)
        return found and replace(found, source=lambda count: np.full(count, 77, np.uint8).tobytes())

    monkeypatch.setattr("hyperlock.sites.party.build_guarantee", seeded)
    monkeypatch.setattr("hyperlock.experiment.simulation.build_guarantee", seeded)


@pytest.mark.parametrize("custody", ["authority", "clients"])
def test_the_model_is_that_of_one_process(
    project: Project, across: Callable, compose: Callable, silent: None, custody: str
) -> None:
    """All samples of all clients are in every round; noise is the same."""
    trust = "malicious" if custody == "authority" else "curious"
    same = (*SAMPLE, f"keys={custody}", f"trust={trust}")
    if custody == "clients":
        limits = LIMITS + "  keys: [clients]\n"
        for name in project.kit.sites:
            path = project.folders[name].path
            (path / "site.yaml").write_text(limits.format(path=path / "data.npz"))
    evaluated = () if custody == "authority" else ("objective=privacy/epsilon",)
    report = across(Pipe(project.parties()), *same, *evaluated)
    alone = experiment.run(compose(*DATA, *same, *evaluated))
    if custody == "authority":
        assert report.weights.tobytes() == alone.weights.tobytes()
    for name in ("privacy/epsilon", "privacy/epsilon_hidden", "privacy/noise_to_clip"):
        assert report.metrics[name] == alone.metrics[name]
    assert 0 < report.metrics["privacy/epsilon"] <= 4
    # The key holder, or each site where they share the key, has counted for itself.
    holders = ["keyholder"] if custody == "authority" else project.kit.sites
    for name in holders:
        [spent] = (project.folders[name].path / "runs").glob("**/spent")
        assert len(Spending(spent).releases) == 3


@pytest.mark.parametrize(
    ("limit", "settings", "said"),
    [
        ("2.0", SAMPLE, "epsilon 4 of one sample, and the site's limit is epsilon 2.0"),
        ("2.0", (), "no differential privacy, and the site's limit is epsilon 2.0"),
        (
            "2.0",
            (*SAMPLE, "privacy.epsilon=null", "privacy.noise_multiplier=1"),
            "privacy without a budget",
        ),
        ("4.0", SAMPLE, ""),
    ],
)
def test_a_sites_own_limit_refuses_more(
    project: Project,
    across: Callable,
    caplog: pytest.LogCaptureFixture,
    limit: str,
    settings: tuple[str, ...],
    said: str,
) -> None:
    path = project.folders["hospital-b"].path
    limits = LIMITS + f"  epsilon: {limit}\n"
    (path / "site.yaml").write_text(limits.format(path=path / "data.npz"))
    if not said:
        assert across(Pipe(project.parties()), *settings).rounds == 3
        return
    with pytest.raises(RoundFailed):
        across(Pipe(project.parties()), *settings, "federation.round_attempts=1")
    assert said in caplog.text


def test_an_offer_that_costs_more_than_it_says_is_refused(
    project: Project, across: Callable, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    """By each party's own accounting, whatever the coordinator's says."""

    def cheated(config: Any, guarantee: private.Guarantee | None) -> Any:
        told = replace(config.privacy, noise_multiplier=0.2)
        return replace(config, privacy=told)

    monkeypatch.setattr("hyperlock.sites.coordinator.with_noise", cheated)
    with pytest.raises(RoundFailed):
        across(
            Pipe(project.parties()), *SAMPLE, "federation.round_attempts=1", "runtime.patience=1"
        )
    assert "the offer's privacy does not hold" in caplog.text


def test_a_guarantee_lives_in_the_terms(compose: Callable) -> None:
    """Parties that promise different things do not come together."""
    config = parse(compose(*DATA, *SAMPLE))
    found = private.build_guarantee(config, 650, 100.0)
    assert found is not None
    other = replace(found, expected=found.expected + 1)
    terms = [build_terms(config, 100.0, bytes(32), one) for one in (found, found, other)]
    assert terms[0].digest == terms[1].digest != terms[2].digest
