"""An Invite is typed terms: what is in it decides numbers and options, and names no code but
HyperLock's and what a site lists itself."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperlock.errors import HyperLockError, MessageRefused
from hyperlock.learning.types import Samples
from hyperlock.settings.parse import parse
from hyperlock.sites.offer import Offer
from hyperlock.sites.site import read
from hyperlock.version import VERSION

SAMPLES = Samples((8, 8), np.dtype("float32"), 10)
RUN = (
    "runtime=flower", "runtime.folder=/nowhere", "runtime.weight_unit=100",
    "federation.clients=3", "encryption=bfv", "tracking=none", "dataset=digits",
)  # fmt: skip
SIZES = {"logistic": (640, 10), "mlp": (8192, 128, 1280, 10)}


@pytest.fixture(scope="module")
def offered(compose: Callable) -> Callable[..., Offer]:
    def offered(*settings: str, model: str = "logistic") -> Offer:
        config = parse(compose(*RUN, f"model={model}", *settings))
        return Offer.of(config, SAMPLES, SIZES[model], 100.0, bytes(32))

    return offered


def altered(offer: Offer, **settings: Any) -> Offer:
    """With other settings, by `group` or `group__key`."""
    changed = {group: dict(node) if isinstance(node, dict) else node
               for group, node in offer.settings.items()}  # fmt: skip
    for name, value in settings.items():
        group, _, key = name.partition("__")
        if key:
            changed[group][key] = value
        else:
            changed[group] = value
    return Offer.read(replace(offer, settings=changed).payload)


@pytest.mark.parametrize("federation", ["fedavg", "fedadam", "fedprox", "fedsgd"])
@pytest.mark.parametrize("encryption", ["bfv", "ckks"])
@pytest.mark.parametrize("model", ["logistic", "mlp"])
def test_settings_come_out_as_they_went_in(
    offered: Callable, compose: Callable, federation: str, encryption: str, model: str
) -> None:
    typed = (f"federation={federation}", f"encryption={encryption}", "seed=7")
    offer = offered(*typed, model=model)
    there = Offer.read(offer.payload)
    assert there == offer and there.fingerprint == offer.fingerprint
    config = parse(compose(*RUN, f"model={model}", *typed))
    found = there.config(sites=3)
    for group in ("model", "federation", "encryption", "keys", "trust", "seed"):
        assert getattr(found, group) == getattr(config, group), group


@pytest.mark.parametrize(
    "changes",
    [
        {"model___target_": "os.system"},
        {"model___target_": "planted.net", "model__command": "touch /tmp/x"},
        {"model___target_": "hyperlock.process.end_interrupted"},
        {"model___target_": "hyperlock.data.datasets.npz"},
        {"model___target_": ["os", "system"]},
        {"model___target_": None},
        {"federation___target_": "subprocess.run"},
        {"federation___target_": "planted.net"},
        {"encryption___target_": "planted.net"},
        {"encryption": {"_target_": "planted.net"}},
    ],
    ids=str,
)
def test_no_function_is_imported_that_nobody_here_has_named(
    offered: Callable, changes: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "planted.py").write_text("def net(**settings):\n    raise SystemExit\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MessageRefused, match="neither HyperLock's nor in the `functions`"):
        altered(offered(), **changes).config(sites=3)
    assert "planted" not in sys.modules
    # Where the site lists it, it may be named.
    if changes.get("model___target_") == "planted.net":
        config = altered(offered(), model={"_target_": "planted.net", "units": 3}).config(
            sites=3, functions=("planted.net",)
        )
        assert config.model == {"_target_": "planted.net", "units": 3}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model__shell": "rm"}, "sets model.shell, which is no setting"),
        ({"federation__rounds": "${oc.env:HOME}"}, "which is no value"),
        ({"federation__rounds": "???"}, "which is no value"),
        ({"federation__rounds": "many"}, "federation cannot be"),
        ({"federation__rounds": 0}, "the offer cannot work"),
        ({"federation__learning_rate": float("nan")}, "the offer cannot work"),
        ({"federation__clients": 4}, "for 4 sites, and the project has 3"),
        ({"federation__dropout": 0.5}, "the offer cannot work"),
        ({"keys__custody": "server"}, "the offer cannot work"),
        ({"keys__custody": "everybody"}, "which is no option"),
        ({"trust__level": "blind"}, "which is no option"),
        ({"keys__min_clients": 2}, "the offer cannot work"),
        ({"encryption__security": 64.5}, "encryption cannot be"),
        ({"seed": "0"}, "seed is no number"),
        ({"model": []}, "is no group"),
        ({"model": {1: 2}}, "is no group|not an offer"),
        ({"encryption__poly_modulus": b"4096"}, "is no value"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(offered: Callable, changes: dict, reason: str) -> None:
    with pytest.raises(MessageRefused, match=reason):
        altered(offered(), **changes).config(sites=3)


@pytest.mark.parametrize(
    "change",
    [
        lambda parts: parts[:-1],
        lambda parts: [*parts, 0],
        lambda parts: [*parts[:2], [[8, 0], "float32", 10], *parts[3:]],
        lambda parts: [*parts[:2], [[8] * 9, "float32", 10], *parts[3:]],
        lambda parts: [*parts[:2], [[8, 8], "object", 10], *parts[3:]],
        lambda parts: [*parts[:3], [], *parts[4:]],
        lambda parts: [*parts[:3], [2**40], *parts[4:]],
        lambda parts: [*parts[:3], [True], *parts[4:]],
        lambda parts: [*parts[:4], float("inf"), parts[5]],
        lambda parts: [*parts[:4], 1, parts[5]],
        lambda parts: [*parts[:5], b""],
        lambda parts: [parts[0], {**parts[1], "dataset": {}}, *parts[2:]],
        lambda parts: dict(enumerate(parts)),
        lambda parts: "offer",
    ],
)
def test_what_is_no_offer_is_refused(offered: Callable, change: Callable) -> None:
    parts = msgpack.unpackb(offered().payload)
    with pytest.raises(MessageRefused, match="not an offer"):
        Offer.read(msgpack.packb(change(parts)))


def test_another_version_is_named(offered: Callable) -> None:
    other = replace(offered(), version="9.9.9").payload
    with pytest.raises(MessageRefused, match=rf"HyperLock '9\.9\.9', .* {VERSION}"):
        Offer.read(other)


@given(data=st.binary(max_size=300))
def test_any_bytes_are_an_offer_or_refused(data: bytes) -> None:
    with pytest.raises(MessageRefused):
        Offer.read(data)


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("mlp", {"model__units": 10**9}),
        ("mlp", {"model__layers": 10**6}),
        ("mlp", {"model__units": 129}),
    ],
)
def test_a_model_is_no_larger_than_its_offer_says(
    offered: Callable, model: str, changes: dict
) -> None:
    """Or a coordinator would have a site fill its memory."""
    offer = altered(offered(model=model), **changes)
    with pytest.raises(MessageRefused, match="larger tensors than its offer says"):
        offer.refuse_larger(offer.config(sites=3))
    good = offered(model=model)
    good.refuse_larger(good.config(sites=3))


# A site's limits


SITE = """
dataset: {path: /data/own.npz}
limits:
  models: [logistic, planted.net]
  rounds: 5
  min_clients: 3
  parameters: 1000
  until: 2027-01-31
functions: [planted.net]
"""
TODAY = datetime.date(2027, 1, 31)


@pytest.fixture
def limits(tmp_path: Path) -> Any:
    (tmp_path / "site.yaml").write_text(SITE)
    return read(tmp_path / "site.yaml").limits


@pytest.mark.parametrize(
    ("settings", "model", "today", "due"),
    [
        (("federation.rounds=5",), "logistic", TODAY, []),
        ((), "logistic", TODAY, ["10 rounds"]),
        (("federation.rounds=5",), "mlp", TODAY, ["model mlp", "9610 parameters"]),
        (("federation.rounds=5", "trust=curious"), "logistic", TODAY, ["trust=curious"]),
        (
            ("federation.rounds=5", "trust=curious", "keys=clients"),
            "logistic",
            TODAY,
            ["keys=clients, and the site's are authority", "trust=curious"],
        ),
        (("federation.rounds=5", "encryption=none"), "logistic", TODAY, ["encryption=none"]),
        (("federation.rounds=5", "federation.local_epochs=50"), "logistic", TODAY, ["50 local"]),
        (
            ("federation.rounds=5", "federation.local_epochs=null", "federation.local_steps=99"),
            "logistic",
            TODAY,
            ["99 local"],
        ),
        (
            ("federation.rounds=5", "trust=curious", "keys.min_clients=2", "keys.colluders=0"),
            "logistic",
            TODAY,
            ["trust=curious", "keys.min_clients=2", "keys.colluders=0"],
        ),
        (("federation.rounds=5",), "logistic", datetime.date(2027, 2, 1), ["today is 2027-02-01"]),
    ],
    ids=str,
)
def test_what_is_outside_the_limits_is_named(
    offered: Callable, limits: Any, settings: tuple, model: str, today: Any, due: list[str]
) -> None:
    offer = offered(*settings, model=model)
    found = offer.outside(offer.config(sites=3), limits, today)
    assert len(found) == len(due)
    assert all(text.startswith(start) for text, start in zip(found, due, strict=True)), found


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("rounds: 5", "rounds: five"), "five"),
        (("rounds: 5", "round: 5"), "round"),
        (("rounds: 5", "rounds: 0"), "below 1"),
        (("until: 2027-01-31", "until: soon"), "is no date"),
        (("/data/own.npz", "own.npz"), "not absolute"),
        (("limits:", "limits: ["), "not YAML"),
        (("path: /data/own.npz", ""), "path"),
    ],
    ids=str,
)
def test_a_site_file_that_cannot_be_is_one_clear_error(
    tmp_path: Path, change: tuple[str, str], reason: str
) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(SITE.replace(*change))
    with pytest.raises(HyperLockError, match=reason) as caught:
        read(path)
    assert str(path) in str(caught.value)
