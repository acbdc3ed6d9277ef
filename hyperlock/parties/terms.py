"""The terms of a run: what every party must have been told alike.

A server that gave one client a smaller learning rate or another weight unit could make the others'
updates vanish in the sum. So each party signs the digest of its terms with every message, and a sum
is released only if all of them are the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property


@dataclass(frozen=True)
class Terms:
    """Public, and the same for all.

    Attributes:
        weight_unit: the sample count that gives a client weight 1.
        initial_range: of every tensor's grid before the first round.
        range_factor: a tensor's next range is this times its largest mean magnitude in a round.
        settings: whatever else decides what clients compute: the model, the algorithm and its
            rates, the seed, by name.
    """

    weight_unit: float
    initial_range: float
    range_factor: float
    settings: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of all of them, 32 bytes."""
        content = {
            "weight_unit": self.weight_unit,
            "initial_range": self.initial_range,
            "range_factor": self.range_factor,
            "settings": dict(self.settings),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()
