"""Membership inference finds what was overfitted to, and sees nothing where there is nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from hyperlock.audit import membership
from hyperlock.audit.membership import LOSS, PER_CLASS, Membership
from hyperlock.audit.past import Past, find
from hyperlock.data import datasets


@pytest.fixture(scope="module")
def overfitted(played: Callable[..., Path]) -> Past:
    job = (
        "dataset.train_samples=100", "model=mlp", "model.units=16", "federation.clients=4",
        "federation.rounds=6", "federation.local_epochs=15", "federation.learning_rate=0.3",
        "encryption=none",
    )  # fmt: skip
    return find(str(played("overfitted", *job)))


def test_an_overfitted_model_tells_its_few_samples(overfitted: Past) -> None:
    found = membership.infer(overfitted)
    # All held-out samples were cut off the set that members were drawn from.
    assert (found.samples, found.cut_off) == (100, 100)
    for attack in (LOSS, PER_CLASS):
        area = found.curves[attack].area
        assert area.low > 0.53 and area.low < area.value < area.high, attack


def exchanged(past: Past, seed: int) -> Membership:
    """The same model, asked about members and others that were exchanged at random."""
    x = np.concatenate([past.dataset.x_train, past.cut_off[0]])
    y = np.concatenate([past.dataset.y_train, past.cut_off[1]])
    order = np.random.default_rng(seed).permutation(len(y))
    used = len(past.dataset.y_train)
    mine, theirs = order[:used], order[used:]
    dataset = replace(past.dataset, x_train=x[mine], y_train=y[mine])
    return membership.infer(replace(past, dataset=dataset, cut_off=(x[theirs], y[theirs])))


def test_members_that_are_none_are_not_told(overfitted: Past) -> None:
    inside = dict.fromkeys((LOSS, PER_CLASS), 0)
    for seed in range(5):
        for attack, curve in exchanged(overfitted, seed).curves.items():
            inside[attack] += curve.area.low <= 0.5 <= curve.area.high
    assert min(inside.values()) >= 4  # of five intervals of 95%


def test_the_area_is_that_of_others_code_and_the_interval_covers_it() -> None:
    rng = np.random.default_rng(0)
    members = rng.normal(0.5, 1, 300).round(1)  # many are equal
    others = rng.normal(0, 1, 200).round(1)
    curve = membership.curve(members, others, rng)
    labels = np.repeat([1, 0], [300, 200])
    expected = roc_auc_score(labels, np.concatenate([members, others]))
    assert curve.area.value == pytest.approx(expected)
    # By theory, of two normals: Phi(0.5 / sqrt(2)).
    assert curve.area.low < 0.638 < curve.area.high
    assert 0.07 < curve.area.high - curve.area.low < 0.13
    threshold = np.sort(others)[::-1][2]  # three false alarms would be 1.5%
    assert curve.few.value == pytest.approx(np.mean(members > threshold))
    assert (np.diff(curve.true) >= 0).all() and curve.true[-1] == 1


def test_what_was_cut_off_is_all_that_was_not_kept(overfitted: Past) -> None:
    whole = datasets.digits(0.2, 0)
    kept, left = overfitted.dataset.x_train, overfitted.cut_off[0]
    assert len(kept) + len(left) == len(whole.x_train)
    rows = np.concatenate([kept, left]).reshape(len(whole.x_train), -1)
    before = whole.x_train.reshape(len(whole.x_train), -1)
    assert sorted(map(bytes, rows)) == sorted(map(bytes, before))
    assert not len(whole.left_out(None, 0)[1])


def test_losses_are_those_of_an_evaluation(overfitted: Past) -> None:
    x, y = overfitted.tests
    losses = overfitted.network.losses(overfitted.last.weights, x, y)
    expected = overfitted.network.evaluate(overfitted.last.weights, x, y).loss
    assert losses.shape == y.shape and losses.mean() == pytest.approx(expected, rel=1e-5)


def test_test_samples_fill_up_what_was_not_cut_off(overfitted: Past) -> None:
    few = (overfitted.cut_off[0][:30], overfitted.cut_off[1][:30])
    found = membership.infer(replace(overfitted, cut_off=few))
    assert (found.samples, found.cut_off) == (100, 30)
    assert "30 cut off the training set and 70 of the test set" in found.words


def test_members_are_of_clients_that_took_part(overfitted: Past) -> None:
    federation = replace(overfitted.config.federation, cohort=3)
    config = replace(overfitted.config, federation=federation)
    once = replace(overfitted.checkpoint, round=1)
    past = replace(overfitted, config=config, checkpoint=once)
    assert len(membership._members(past)[1]) == 75
