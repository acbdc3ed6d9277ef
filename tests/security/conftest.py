"""Rounds with a hostile client, under every scheme and in both forms."""

from __future__ import annotations

import pytest

from hyperlock.encryption import seal
from tests.security.scene import FORMS, SCHEMES, Scene


@pytest.fixture(
    scope="module", params=[(name, form) for name in SCHEMES for form in FORMS], ids=" ".join
)
def known_scene(request: pytest.FixtureRequest) -> Scene:
    name, form = request.param
    return Scene(SCHEMES[name], form)


@pytest.fixture
def scene(known_scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """One that records what SEAL is handed."""
    monkeypatch.setattr(seal, "ciphertext", known_scene.watch)
    return known_scene
