"""What the trials of a sweep have spent together, and the picture of what accuracy costs."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hyperlock.errors import HyperLockError
from hyperlock.learning.network import Network
from hyperlock.privacy import gaussian
from hyperlock.privacy.account import TAG, Account
from hyperlock.privacy.accounting import Spent
from hyperlock.sweep.spent import composed
from hyperlock.sweep.tradeoff import Tradeoff, tradeoff, tradeoff_figure
from hyperlock.sweep.trials import FINISHED, Trial
from tests.sweep.test_sweeps import STORE_BEFORE, Store, Sweep, store_before, sweep

__all__ = ["store_before", "sweep"]

PRIVATE = (
    "hparams_search=none", "privacy=client", "privacy.epsilon=null", "encryption=none",
    "privacy.noise_multiplier=0.5,1.0", "hydra/sweeper/sampler=grid", "model=logistic",
    "federation.clients=5", "keys.min_clients=5", "federation.rounds=3",
    "hydra.sweeper.study_name=ours",
)  # fmt: skip
DELTA = 1e-5


@STORE_BEFORE
def test_a_sweep_counts_all_of_its_trials_together(
    sweep: Sweep,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also when it is continued, and one that failed with what it had released by then."""
    assert sweep(*PRIVATE, "hydra.sweeper.n_trials=1") == 0
    store = Store(tmp_path)
    [parent] = store.parents()
    [first] = store.children(parent)
    alone = first.data.metrics["privacy/epsilon"]
    assert first.data.metrics["privacy/participations"] == 3
    assert parent.data.metrics["privacy/epsilon_composed"] == pytest.approx(alone)

    # The next one fails when its second sum is released, and before that is in its record.
    evaluate = Network.evaluate
    evaluations = iter(range(3))

    def failing(self: Network, *given: Any) -> Any:
        if next(evaluations) == 1:
            raise HyperLockError("no room on the disk")
        return evaluate(self, *given)

    monkeypatch.setattr(Network, "evaluate", failing)
    assert sweep(*PRIVATE, "hydra.sweeper.n_trials=2") == 0
    [parent] = store.parents()
    _, second = store.children(parent)
    assert second.info.status == "FAILED"
    assert second.data.metrics["privacy/participations"] == 2

    # Three releases of the one and two of the other, in closed form.
    noise = [float(run.data.params["privacy.noise_multiplier"]) for run in (first, second)]
    mu = math.sqrt(3 / noise[0] ** 2 + 2 / noise[1] ** 2)
    together = parent.data.metrics["privacy/epsilon_composed"]
    ideal = gaussian.epsilon(mu, DELTA)
    assert ideal <= together < 1.02 * ideal  # shares are no Gaussians
    said = (
        f"2 trials on the same data: together epsilon {together:.3g} at delta 1e-05 of one client"
    )
    assert f"{said} (the best alone: {alone:.3g})" in parent.data.tags["mlflow.note.content"]


def run(number: int, status: str = "FINISHED", unit: str = "client", **metrics: float) -> Any:
    """A trial's run as MLflow has it; `unit` "none" is one without privacy."""
    tags = {"trial": str(number), "privacy": unit}
    if unit != "none":
        tags[TAG] = Account(unit, DELTA, planned=5, release=Spent(1, noise=1.0)).text()
    named = {name.replace("__", "/"): value for name, value in metrics.items()}
    data = SimpleNamespace(tags=tags, metrics=named)
    return SimpleNamespace(info=SimpleNamespace(status=status), data=data)


def test_a_trial_that_was_killed_counts_with_all_that_it_may_have_released() -> None:
    runs = [run(0, privacy__participations=2), run(1, "KILLED", privacy__participations=1)]
    found = composed(runs, best=[0])
    assert found is not None and found.epsilon == pytest.approx(
        gaussian.epsilon(math.sqrt(7), DELTA), rel=1e-6
    )
    assert f"(the best alone: {gaussian.epsilon(math.sqrt(2), DELTA):.3g})" in found.line


def test_nothing_is_promised_beside_a_trial_without_privacy() -> None:
    private = run(0, privacy__participations=2)
    found = composed([private, run(1, unit="none")], best=[1])
    assert found is not None and found.epsilon is None
    assert found.line.startswith("nothing is promised any more, since 1 trial had no privacy")
    mixed = composed([private, run(1, unit="sample", privacy__participations=2)], best=[0])
    assert mixed is not None and mixed.epsilon is None and "units differ" in mixed.line
    assert composed([run(0, unit="none")], best=[0]) is None
    assert composed([], best=[]) is None


def priced(number: int, accuracy: float, epsilon: float, hidden: float) -> Any:
    cost = {"privacy__epsilon": epsilon, "privacy__epsilon_hidden": hidden}
    return run(number, accuracy=accuracy, **cost)


def test_seeds_are_one_point_of_the_picture() -> None:
    settings = [{"privacy.epsilon": epsilon, "seed": seed} for epsilon in (8, 1) for seed in (0, 1)]
    settings += [{"privacy": "none", "seed": 0}]
    rows = [Trial(number, FINISHED, params) for number, params in enumerate(settings)]
    runs = [
        priced(0, 0.90, 8.0, 4.0),
        priced(1, 0.92, 8.0, 4.0),
        priced(2, 0.80, 1.0, 0.5),
        priced(3, 0.84, 1.0, 0.5),
        run(4, unit="none", accuracy=0.95),
    ]
    found = tradeoff(rows, runs)
    assert isinstance(found, Tradeoff) and (found.unit, found.delta) == ("client", DELTA)
    assert [(point.known, point.hidden) for point in found.private] == [(1.0, 0.5), (8.0, 4.0)]
    assert [point.accuracies for point in found.private] == [(0.80, 0.84), (0.90, 0.92)]
    assert [point.accuracies for point in found.plain] == [(0.95,)]

    # Epsilon alone is on a logarithmic axis; both of them are drawn, and what there is without.
    [axes] = tradeoff_figure(found, "ours").axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    assert axes.get_xlabel().startswith("epsilon of one client, at delta 1e-05")
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert sorted(labels) == [
        "who took part is hidden",
        "who took part is known",
        "without privacy",
    ]
    assert tradeoff(rows[:2], runs[:2]) is None
