"""What a run came to: evaluated rounds and others, the target, each class."""

import math

import numpy as np
import pytest

from hyperlock.encryption.totals import Totals
from hyperlock.errors import ConfigError, HyperLockError
from hyperlock.experiment.report import Report, class_accuracies, objective
from hyperlock.experiment.rounds import RoundResult, Traffic
from hyperlock.experiment.summary import markdown
from hyperlock.learning.types import Evaluation
from hyperlock.metrics import metric_names
from hyperlock.settings.parse import parse


def report(*accuracies, target=None):
    made = Report("name", "ckks", 128, "a key holder", target, parameters=10)
    for accuracy in accuracies:
        result = RoundResult(
            traffic=Traffic(100.0, 50, 3, 0, 0),
            totals=Totals(3, 30, 3.0, 0),
            weights=np.zeros(10, np.float32),
            evaluation=None if accuracy is None else Evaluation(accuracy, 1.0),
            seconds={},
            wall=0.1,
        )
        made.add_round(result)
    return made


def test_rounds_that_are_not_evaluated_have_no_accuracy():
    made = report(0.5, None, None, 0.7, None)
    assert made.rounds == 5 and made.accuracies == {1: 0.5, 4: 0.7} and made.accuracy == 0.7
    assert (
        "accuracy" not in made.metrics
        and "loss" not in made.metrics
        and made.metrics["train/loss"] == 0.1
    )
    assert {"accuracy", "loss"} <= report(None, 0.5).metrics.keys()
    assert math.isnan(report().accuracy) and math.isnan(report(None).accuracy)


def test_the_first_round_that_reaches_the_target_counts():
    assert report(0.5, 0.6, None, 0.7, 0.65, target=0.6).rounds_to_target == 2
    assert report(0.5, 0.6, target=0.61).rounds_to_target is None
    assert report(0.5, 0.6).rounds_to_target is None
    reached = report(0.5, None, 0.7, target=0.6)
    assert reached.final()["rounds_to_target"] == 3
    assert "0.6 reached in round 3" in markdown(reached) and "0.7000 after 3 rounds" in markdown(
        reached
    )
    missed = report(0.5, target=0.6)
    assert "rounds_to_target" not in missed.final() and "0.6 not reached" in markdown(missed)
    assert "target" not in markdown(report(0.5))


def test_every_final_metric_may_be_an_objective():
    across_sites = {"sites/accuracy", "sites/tested"}
    private = {name for name in metric_names() if name.startswith("privacy/")}
    assert set(report(0.5, target=0.4).final()) == set(metric_names()) - across_sites - private


def test_rounds_to_target_as_an_objective(compose):
    composed = compose("objective=rounds_to_target", "federation.target_accuracy=0.6")
    parse(composed)
    assert objective(composed, report(0.5, 0.7, target=0.6)) == 2
    with pytest.raises(HyperLockError, match=r"0\.6 was not reached in 1 rounds"):
        objective(composed, report(0.5, target=0.6))
    with pytest.raises(ConfigError, match=r"federation\.target_accuracy=null: .*rounds_to_target"):
        parse(compose("objective=[accuracy,rounds_to_target]"))


@pytest.mark.parametrize("setting", ["target_accuracy=0", "target_accuracy=97", "evaluate_every=0"])
def test_what_no_evaluation_can_use_is_refused(compose, setting):
    with pytest.raises(ConfigError, match=rf"^federation\.{setting.split('=')[0]}="):
        parse(compose(f"federation.{setting}"))


def test_accuracy_by_class_leaves_out_classes_without_samples():
    assert class_accuracies(np.array([[8, 2, 0], [0, 0, 0], [1, 0, 3]])) == {
        "class/0": 0.8,
        "class/2": 0.75,
    }


def test_confusion_agrees_with_accuracy(federate):
    federation = federate("federation.rounds=2", "encryption=none").play()
    data = federation.dataset
    counts = federation.parties.network.confusion(
        federation.weights[-1], data.x_test, data.y_test, data.classes
    )
    assert counts.sum(axis=1).tolist() == np.bincount(data.y_test, minlength=data.classes).tolist()
    assert np.trace(counts) / counts.sum() == pytest.approx(federation.accuracies[-1])
    x = data.x_test.reshape(len(data.y_test), -1)
    weights = federation.weights[-1]
    answers = (x @ weights[:-10].reshape(-1, 10) + weights[-10:]).argmax(axis=1)
    for row in range(data.classes):
        assert (
            counts[row].tolist()
            == np.bincount(answers[data.y_test == row], minlength=data.classes).tolist()
        )


@pytest.mark.parametrize(
    ("objective", "evaluation", "good"),
    [
        ("loss", "sites", False),
        ("loss", "both", True),
        ("accuracy", "sites", True),
        ("sites/accuracy", "both", True),
        ("sites/accuracy", "sites", False),
        ("sites/tested", "coordinator", False),
    ],
)
def test_an_objective_is_one_that_somebody_evaluates(compose, objective, evaluation, good):
    across = ("runtime=flower", "runtime.folder=/nowhere", "runtime.weight_unit=1")
    composed = compose(*across, f"objective={objective}", f"runtime.evaluation={evaluation}")
    if good:
        assert parse(composed)
        return
    with pytest.raises(ConfigError, match=f"^objective={objective}: "):
        parse(composed)
