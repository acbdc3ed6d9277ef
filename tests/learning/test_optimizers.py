"""Server-side optimisers: pure steps. What they compute is held against NumPy in
test_algorithms.py."""

import numpy as np
import pytest

from hyperlock.learning.optimizers import Adaptive, Momentum, Sgd, adagrad, adam, yogi

OPTIMIZERS = {
    "sgd": Sgd(0.5, 0.9),
    "momentum": Momentum(0.5, 0.9),
    "adagrad": Adaptive(adagrad, 0.1, 0.0, 0.0, 1e-3),
    "adam": Adaptive(adam, 0.1, 0.9, 0.99, 1e-3),
    "yogi": Adaptive(yogi, 0.1, 0.9, 0.99, 1e-3),
}
WEIGHTS = np.linspace(-1, 1, 7).astype(np.float32)
MEANS = np.random.default_rng(0).normal(size=(4, 7))


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_same_steps_give_the_same_bits_and_change_nothing_they_were_given(kind):
    def run():
        weights = WEIGHTS
        optimizer = OPTIMIZERS[kind]
        for mean in MEANS:
            given = weights.copy(), mean.copy()
            after, following = optimizer.step(weights, mean)
            again, _ = optimizer.step(weights, mean)
            assert after.dtype == np.float32 and after.tobytes() == again.tobytes()
            assert (weights == given[0]).all() and (mean == given[1]).all()
            weights = after
            optimizer = following
        return weights.tobytes()

    assert run() == run()


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_step_goes_against_the_mean_and_no_update_is_no_step(kind):
    after, _ = OPTIMIZERS[kind].step(WEIGHTS, MEANS[0])
    assert (np.sign(WEIGHTS - after) == np.sign(MEANS[0])).all()
    still, _ = OPTIMIZERS[kind].step(WEIGHTS, np.zeros(7))
    assert (still == WEIGHTS).all()


def test_momentum_of_none_is_sgd():
    plain = Sgd(0.5)
    momentum = Momentum(0.5, 0.0)
    a = b = WEIGHTS
    for mean in MEANS:
        (a, plain), (b, momentum) = plain.step(a, mean), momentum.step(b, mean)
    assert (a == b).all()


@pytest.mark.parametrize("kind", ["adagrad", "adam", "yogi"])
def test_with_a_large_tau_adaptive_steps_are_plain_ones(kind):
    """Reddi et al. 2021: tau is the degree of adaptivity."""
    tau = 1e6
    optimizer = Adaptive(
        {"adagrad": adagrad, "adam": adam, "yogi": yogi}[kind], 2 * tau, 0.0, 1 - 1e-9, tau
    )
    after, _ = optimizer.step(WEIGHTS, MEANS[0])
    assert np.allclose(after, WEIGHTS - MEANS[0], atol=1e-4)
