"""Casts under every scheme, and under those that encrypt; their updates take several ciphertexts."""

import pytest
from cast import Cast

from hyperlock.encryption.bfv import Bfv
from hyperlock.encryption.bfv_parameters import bfv_parameters
from hyperlock.encryption.ckks import Ckks
from hyperlock.encryption.plain import Plain
from hyperlock.encryption.scheme import Scheme


@pytest.fixture(scope="session")
def schemes(ckks: Ckks) -> dict[str, Scheme]:
    return {"ckks": ckks, "bfv": Bfv(bfv_parameters(2048, [34, 20], "auto", 8, 16, 128)), "none": Plain(8, 16)}


@pytest.fixture(params=["ckks", "bfv", "none"])
def cast(request: pytest.FixtureRequest, schemes: dict[str, Scheme]) -> Cast:
    return Cast(schemes[request.param])


@pytest.fixture(params=["ckks", "bfv"])
def encrypted_cast(request: pytest.FixtureRequest, schemes: dict[str, Scheme]) -> Cast:
    return Cast(schemes[request.param])
