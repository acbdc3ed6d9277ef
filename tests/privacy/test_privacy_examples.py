"""The worked examples in the docstrings do what they say."""

import doctest
from types import ModuleType

import pytest

from hyperlock.privacy import account, accounting, budget, gaussian, mechanism, noise


@pytest.mark.parametrize(
    "module",
    [account, accounting, budget, gaussian, mechanism, noise],
    ids=lambda module: module.__name__,
)
def test_an_example_gives_what_it_shows(module: ModuleType) -> None:
    tried = doctest.testmod(module)
    assert tried.attempted > 0 and tried.failed == 0
