"""Pictures: they come out whatever the numbers, and what they say can be read."""

from io import BytesIO

import numpy as np
import pytest

from hyperlock import plots


def drawn(figure) -> int:
    """Bytes of the figure as PNG; drawing it is what finds most mistakes."""
    file = BytesIO()
    figure.savefig(file)
    return len(file.getvalue())


@pytest.mark.parametrize(("clients", "classes"), [(1, 2), (3, 10), (20, 10), (100, 10), (1000, 10), (100, 300)])
def test_a_split_of_any_size_is_drawn(clients, classes):
    counts = np.random.default_rng(0).integers(0, 50, (clients, classes))
    figure = plots.split_figure(counts, "split")
    sizes, cells, _ = figure.axes
    assert [bar.get_height() for bar in sizes.patches] == counts.sum(axis=1).tolist()
    assert (cells.images[0].get_array() == counts.T).all()
    texts = [text.get_text() for text in cells.texts]
    assert texts == ([str(n) for n in counts.ravel()] if clients * classes <= 200 else [])
    assert drawn(figure) > 5000
    assert max(figure.get_size_inches()) < 10
