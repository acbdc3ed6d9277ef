"""Splits: every sample to exactly one client, every client at least one, the same by seed."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperlock.data.split import Parts, dirichlet, iid, label_counts, quantity, shards
from hyperlock.errors import ConfigError

LABELS = (np.arange(1000) % 10).astype(np.int32)


def assert_a_split(parts: Parts, clients: int, samples: int) -> None:
    assert len(parts) == clients
    assert min(part.size for part in parts) >= 1
    assert (np.sort(np.concatenate(parts)) == np.arange(samples)).all()


def skew(parts: Parts, labels: np.ndarray) -> float:
    """How far clients' label shares lie from everyone's: mean total variation distance."""
    classes = labels.max() + 1
    everyone = np.bincount(labels, minlength=classes) / labels.size
    shares = [np.bincount(labels[part], minlength=classes) / part.size for part in parts]
    return float(np.mean([np.abs(share - everyone).sum() / 2 for share in shares]))


LABEL_LISTS = st.lists(st.integers(0, 5), min_size=1, max_size=60).map(
    lambda v: np.array(v, np.int32)
)


@given(labels=LABEL_LISTS, seed=st.integers(0, 2**32 - 1), data=st.data())
def test_iid_gives_every_sample_to_one_client_in_equal_parts(
    labels: np.ndarray, seed: int, data: st.DataObject
) -> None:
    clients = data.draw(st.integers(1, labels.size))
    parts = iid(labels, clients, seed)
    assert_a_split(parts, clients, labels.size)
    sizes = [part.size for part in parts]
    assert max(sizes) - min(sizes) <= 1


@given(
    labels=LABEL_LISTS,
    seed=st.integers(0, 2**32 - 1),
    alpha=st.sampled_from([1e-300, 1e-3, 0.1, 0.5, 1.0, 100.0, 1e6]),
    data=st.data(),
)
def test_dirichlet_gives_every_sample_to_one_client(
    labels: np.ndarray, seed: int, alpha: float, data: st.DataObject
) -> None:
    clients = data.draw(st.integers(1, labels.size))
    assert_a_split(dirichlet(labels, clients, seed, alpha), clients, labels.size)


SPLITS = [
    iid,
    partial(dirichlet, alpha=0.3),
    partial(shards, shards_per_client=1),
    partial(quantity, alpha=0.3),
]
each_split = pytest.mark.parametrize(
    "split", SPLITS, ids=["iid", "dirichlet", "shards", "quantity"]
)


@given(labels=LABEL_LISTS, seed=st.integers(0, 2**32 - 1), data=st.data())
def test_shards_give_every_sample_to_one_client_in_parts_of_like_size(
    labels: np.ndarray, seed: int, data: st.DataObject
) -> None:
    clients = data.draw(st.integers(1, labels.size))
    each = data.draw(st.integers(1, labels.size // clients))
    parts = shards(labels, clients, seed, each)
    assert_a_split(parts, clients, labels.size)
    sizes = [part.size for part in parts]
    assert max(sizes) - min(sizes) <= each


@given(
    labels=LABEL_LISTS,
    seed=st.integers(0, 2**32 - 1),
    alpha=st.sampled_from([1e-300, 1e-3, 0.1, 1.0, 1e6]),
    data=st.data(),
)
def test_quantity_gives_every_sample_to_one_client(
    labels: np.ndarray, seed: int, alpha: float, data: st.DataObject
) -> None:
    clients = data.draw(st.integers(1, labels.size))
    assert_a_split(quantity(labels, clients, seed, alpha), clients, labels.size)


@each_split
def test_the_seed_decides_the_split(split) -> None:
    first = split(LABELS, 7, 1)
    again = split(LABELS, 7, 1)
    other = split(LABELS, 7, 2)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert any(a.size != b.size or (a != b).any() for a, b in zip(first, other, strict=True))


def test_iid_parts_look_alike() -> None:
    assert skew(iid(LABELS, 5, 0), LABELS) < 0.15
    # Sorted labels are shuffled first.
    assert skew(iid(np.sort(LABELS), 5, 0), np.sort(LABELS)) < 0.15


def test_dirichlet_skew_grows_as_alpha_shrinks() -> None:
    def mean_skew(alpha: float) -> float:
        return float(
            np.mean([skew(dirichlet(LABELS, 10, seed, alpha), LABELS) for seed in range(10)])
        )

    skews = [mean_skew(alpha) for alpha in (100.0, 5.0, 0.5, 0.05)]
    assert skews == sorted(skews)
    assert skews[0] < 0.1 and skews[-1] > 0.6
    assert all(b - a > 0.05 for a, b in pairwise(skews))


def test_dirichlet_shares_have_the_mean_and_variance_of_their_law() -> None:
    """A client's share of a class: mean 1/K, variance (1/K)(1 - 1/K) / (K alpha + 1)."""
    clients = 4
    alpha = 0.7
    labels = np.zeros(2000, np.int32)
    shares = [
        [part.size / 2000 for part in dirichlet(labels, clients, seed, alpha)]
        for seed in range(400)
    ]
    assert np.mean(shares, axis=0) == pytest.approx([0.25] * 4, abs=0.05)
    assert np.var(shares) == pytest.approx(0.25 * 0.75 / (clients * alpha + 1), rel=0.15)


def test_dirichlet_draws_a_clients_samples_of_a_class_at_random() -> None:
    """The file's order may mean something, such as who wrote the digits."""
    for part in dirichlet(np.zeros(1000, np.int32), 3, 0, 100.0):
        assert part.max() - part.min() > 900


@pytest.mark.parametrize("clients", [4, 5, 1000])
@each_split
def test_more_clients_than_samples_are_refused(split, clients: int) -> None:
    labels = np.zeros(3, np.int32)
    with pytest.raises(
        ConfigError, match=f"federation.clients={clients}: .*only 3 training samples"
    ) as caught:
        split(labels, clients, 0)
    assert "at most 3" in str(caught.value)
    assert_a_split(split(labels, 3, 0), 3, 3)


@pytest.mark.parametrize("split", [dirichlet, quantity])
@pytest.mark.parametrize("alpha", [0.0, -1.0, 1.7e308, float("inf"), float("nan")])
def test_an_alpha_that_is_no_concentration_is_refused(split, alpha: float) -> None:
    with pytest.raises(ConfigError, match=r"split\.alpha="):
        split(LABELS, 3, 0, alpha)


@pytest.mark.parametrize("each", [0, -1, 6, 10**9])
def test_more_shards_than_samples_or_none_are_refused(each: int) -> None:
    with pytest.raises(ConfigError, match=r"split\.shards_per_client=") as caught:
        shards(np.arange(11, dtype=np.int32), 2, 0, each)
    assert "1 to 5" in str(caught.value)


def test_two_shards_give_clients_two_classes_as_in_the_paper() -> None:
    """60,000 samples of 10 equal classes: 200 shards of 300, each of one class, two for each of 100
    clients."""
    labels = np.random.default_rng(0).permutation(60_000).astype(np.int32) % 10
    counts = label_counts(labels, shards(labels, 100, 0, 2), 10)
    assert set(np.unique(counts)) <= {0, 300, 600}
    assert (counts.sum(axis=1) == 600).all() and (counts.sum(axis=0) == 6000).all()
    # The others drew both shards from one class.
    assert (np.count_nonzero(counts, axis=1) == 2).mean() > 0.8


def test_more_shards_give_more_classes() -> None:
    skews = [skew(shards(LABELS, 10, 0, each), LABELS) for each in (1, 2, 5, 25)]
    assert skews == sorted(skews, reverse=True) and skews[0] > 0.85 and skews[-1] < 0.4


def test_which_samples_of_a_class_a_shard_has_is_chance() -> None:
    for part in shards(np.zeros(1000, np.int32), 3, 0, 1):
        assert part.max() - part.min() > 900


def test_quantity_leaves_labels_alike_and_sizes_by_the_law() -> None:
    """A client's share of all samples: mean 1/K, variance (1/K)(1 - 1/K) / (K alpha + 1)."""
    clients = 4
    alpha = 0.7
    labels = np.sort(np.arange(2000, dtype=np.int32) % 10)
    splits = [quantity(labels, clients, seed, alpha) for seed in range(400)]
    shares = [[part.size / 2000 for part in parts] for parts in splits]
    assert np.mean(shares, axis=0) == pytest.approx([0.25] * 4, abs=0.05)
    assert np.var(shares) == pytest.approx(0.25 * 0.75 / (clients * alpha + 1), rel=0.15)
    large = [part for parts in splits for part in parts if part.size > 500]
    assert skew(large, labels) < 0.1


def test_counts_are_of_each_client_and_class() -> None:
    parts = [np.array([0, 1, 2]), np.array([3])]
    counts = label_counts(np.array([2, 0, 2, 1], np.int32), parts, 4)
    assert counts.tolist() == [[1, 0, 2, 0], [0, 1, 0, 0]]


def test_a_huge_alpha_approaches_iid() -> None:
    parts = dirichlet(LABELS, 10, 0, 1e9)
    assert max(part.size for part in parts) < 200
