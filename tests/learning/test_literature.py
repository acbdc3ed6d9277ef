"""What the papers report comes out here too."""

from pathlib import Path

import pytest

from hyperlock.experiment.run import run

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_2nn_reaches_97_percent_in_no_more_rounds_than_the_paper_says(compose):
    """McMahan et al. 2017, table 1: 87 rounds with B=10, E=1, C=0.1, IID. The scheme does not
    change the model."""
    overrides = (
        "encryption=none",
        "tracking=none",
        f"dataset.path={ROOT}/data/mnist.npz",
        "federation.rounds=87",
    )
    report = run(compose("experiment=fedavg_paper_2nn", *overrides))
    assert report.rounds_to_target is not None and report.accuracy >= 0.97
