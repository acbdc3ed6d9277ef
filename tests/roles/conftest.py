"""Casts under every scheme."""

import pytest
from cast import Cast

from hyperlock.encryption.bfv import Bfv
from hyperlock.encryption.bfv_parameters import bfv_parameters
from hyperlock.encryption.ckks import Ckks
from hyperlock.encryption.plain import Plain


@pytest.fixture(params=["ckks", "bfv", "none"])
def cast(request: pytest.FixtureRequest, ckks: Ckks) -> Cast:
    if request.param == "bfv":
        return Cast(Bfv(bfv_parameters(4096, "auto", "auto", 8, 16, 128)))
    return Cast(ckks if request.param == "ckks" else Plain(8, 16))


@pytest.fixture
def ckks_cast(ckks: Ckks) -> Cast:
    return Cast(ckks)
