"""The functions that `_target_` of an encryption option names: each takes its group's keys and the
number of clients, and gives the scheme that its parameters describe."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature

import pytest

from hyperlock.encryption.bfv import Bfv, bfv
from hyperlock.encryption.bfv_parameters import bfv_parameters
from hyperlock.encryption.ckks import Ckks, ckks
from hyperlock.encryption.ckks_parameters import ckks_parameters
from hyperlock.encryption.extent import Extent
from hyperlock.encryption.plain import Plain, plain
from hyperlock.encryption.scheme import Scheme
from hyperlock.errors import ConfigError
from hyperlock.settings.schema import SCHEMAS

SHARED = {"extent": Extent(8), "max_clients": 16, "length": 101_788}
AUTO = {"coeff_mod_bits": "auto", "security": 128}
NOT_THE_SCHEMES = {"scheme", "value_bits", "initial_range", "range_factor", "_target_"}


@pytest.mark.parametrize(("option", "make"), [("ckks", ckks), ("bfv", bfv), ("none", plain)])
def test_a_scheme_takes_the_keys_of_its_group(option: str, make: Callable[..., Scheme]) -> None:
    keys = set(SCHEMAS["encryption"][option].__dataclass_fields__)
    assert set(signature(make).parameters) == keys - NOT_THE_SCHEMES | {"extent", "length"}


def test_a_scheme_is_the_one_of_its_parameters() -> None:
    made = ckks(poly_modulus=8192, scale_bits="auto", **AUTO, **SHARED)
    assert made == Ckks(ckks_parameters(8192, "auto", "auto", Extent(8), 16, 128, 101_788))
    made = bfv(poly_modulus="auto", fields=2, **AUTO, **SHARED)
    assert made == Bfv(bfv_parameters("auto", "auto", 2, Extent(8), 16, 128, 101_788))
    assert plain(**SHARED) == Plain(Extent(8), 16)


@pytest.mark.parametrize("make", [ckks, bfv])
def test_a_scheme_that_is_unsafe_is_refused(make: Callable[..., Scheme]) -> None:
    rest = {"scale_bits": "auto"} if make is ckks else {"fields": "auto"}
    with pytest.raises(ConfigError, match=r"encryption\.poly_modulus=1024"):
        make(poly_modulus=1024, **rest, **AUTO, **SHARED)


@pytest.mark.parametrize("margin", [0, 3])
def test_the_margin_of_ckks_is_the_scale_over_the_smallest(margin: int) -> None:
    chosen = ckks_parameters(8192, "auto", "auto", Extent(8), 16, 128)
    least = chosen.scale_bits - int(chosen.margin_bits)
    assert ckks_parameters(8192, "auto", least + margin, Extent(8), 16, 128).margin_bits == margin
    with pytest.raises(ConfigError, match="too small for the grid"):
        ckks_parameters(8192, "auto", least - 1, Extent(8), 16, 128)
