"""Rounds with a hostile client, under both schemes and in both forms."""

from __future__ import annotations

from typing import Any

import pytest

from hyperlock.encryption.ciphertexts import PackedScheme
from tests.security.scene import FORMS, SCHEMES, Scene


@pytest.fixture(
    scope="module", params=[(name, form) for name in SCHEMES for form in FORMS], ids=" ".join
)
def known_scene(request: pytest.FixtureRequest) -> Scene:
    name, form = request.param
    return Scene(SCHEMES[name], form)


@pytest.fixture
def scene(known_scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """One that records what SEAL's reader is handed."""
    scheme = type(known_scene.cast.scheme)
    read = scheme.read

    def recording(self: PackedScheme, context: Any, framed: bytes) -> Any:
        known_scene.reads.append(framed)
        return read(self, context, framed)

    monkeypatch.setattr(scheme, "read", recording)
    return known_scene
