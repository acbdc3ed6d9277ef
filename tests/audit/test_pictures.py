"""The pictures of an audit can be read, whatever is in them."""

from __future__ import annotations

import numpy as np
import pytest

from hyperlock.audit import membership, pictures
from hyperlock.audit.inversion import Row
from hyperlock.audit.membership import LOSS, PER_CLASS, Membership
from tests.tracking.test_plots import cut_off

MEANINGS = (
    "samples of one client",
    "that client's update\n(123,456 samples, its noise on it)",
    "another client's, who has\nnone of these samples",
    "the sum of 1,000 clients' updates,\nif there were no noise",
    "that update's ciphertext\n(ckks), its bytes",
)
TITLE = "logistic-ckks-1000c: what each message of round 1001, which would be the next, gives away"


@pytest.mark.parametrize("shape", [(8, 8), (28, 28, 1), (32, 32, 3)])
@pytest.mark.parametrize("columns", [1, 8])
def test_what_rows_are_is_beside_them(columns: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    rows = [
        Row(f"row {i}", meaning, rng.random((columns, *shape)), rng.random(columns))
        for i, meaning in enumerate(MEANINGS)
    ]
    figure = pictures.inversion_figure(rows, TITLE)
    assert cut_off(figure) == []
    tiles = min(axes.get_window_extent().x0 for axes in figure.axes)
    labels = [text for text in figure.texts if "SSIM" in text.get_text()]
    assert len(labels) == len(rows)
    assert all(text.get_window_extent().x1 < tiles for text in labels)
    assert figure.get_size_inches()[0] * figure.dpi == 1440


@pytest.mark.parametrize("samples", [2, 300])
def test_curves_and_their_words_fit(samples: int) -> None:
    rng = np.random.default_rng(0)
    curves = {
        attack: membership.curve(rng.normal(size=samples), rng.normal(size=samples), rng)
        for attack in (LOSS, PER_CLASS)
    }
    figure = pictures.membership_figure(Membership(curves, samples, samples // 2), TITLE)
    assert cut_off(figure) == []
