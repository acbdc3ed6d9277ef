"""Casts under both schemes."""

import pytest
from cast import Cast

from hyperlock.encryption.ckks import Ckks
from hyperlock.encryption.plain import Plain


@pytest.fixture(params=["ckks", "none"])
def cast(request: pytest.FixtureRequest, ckks: Ckks) -> Cast:
    return Cast(ckks if request.param == "ckks" else Plain(8, 16))


@pytest.fixture
def ckks_cast(ckks: Ckks) -> Cast:
    return Cast(ckks)
