"""Pictures: they come out whatever the numbers, and what they say can be read."""

from io import BytesIO

import numpy as np
import pytest
from matplotlib.text import Text

from hyperlock.metrics import ROUND
from hyperlock.tracking import plots


def drawn(figure) -> int:
    """Bytes of the figure as PNG; drawing it is what finds most mistakes."""
    file = BytesIO()
    figure.savefig(file)
    return len(file.getvalue())


def cut_off(figure) -> list[str]:
    """The texts that reach beyond the figure: its margins are stated and not measured."""
    figure.draw_without_rendering()
    texts = [each for each in figure.findobj(Text) if each.get_visible() and each.get_text()]
    ticks = {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for label in axis.get_ticklabels()
    }
    # Matplotlib keeps labels of ticks that are out of view, and draws none of them.
    shown = {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis._update_ticks()
        for label in (tick.label1, tick.label2)
    }
    whole = figure.bbox
    return [
        text.get_text()
        for text in texts
        if text in shown or text not in ticks
        if (box := text.get_window_extent()).x0 < 0
        or box.y0 < 0
        or box.x1 > whole.x1
        or box.y1 > whole.y1
    ]


@pytest.mark.parametrize("size", [1, 600, 90_000])
def test_no_text_is_cut_off(size):
    counts = np.random.default_rng(0).integers(0, size + 1, (10, 10))
    seconds = dict.fromkeys(ROUND, 1.25 * size)
    figures = [
        plots.split_figure(counts, "mlp-ckks-10c: training samples by client and class"),
        plots.confusion_figure(counts, "answers"),
        plots.confusion_figure(counts[:2, :2], "mlp-ckks-10c: answers on the test set"),
        plots.accuracy_figure({i: 0.97 + i / 1e5 for i in range(9)}, "accuracy", 0.97003),
        plots.accuracy_figure({1: 0.1, 2: 1.0}, "accuracy", 0.97003),
        plots.stages_figure(seconds, "mlp-ckks-10c: where the time goes"),
        plots.bytes_figure(1.25 * size, 1000, "plaintext", "mlp-ckks-10c: bytes"),
        plots.bytes_figure(1.2e8, 10_000_000, "CKKS", "mlp-ckks-10c: bytes"),
    ]
    assert [cut_off(figure) for figure in figures] == [[]] * len(figures)


@pytest.mark.parametrize(
    ("clients", "classes"), [(1, 2), (3, 10), (20, 10), (100, 10), (1000, 10), (100, 300)]
)
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


@pytest.mark.parametrize("classes", [2, 10, 60])
def test_a_confusion_matrix_is_drawn_with_a_class_that_has_no_samples(classes):
    counts = np.random.default_rng(0).integers(0, 50, (classes, classes))
    counts[1] = 0
    figure = plots.confusion_figure(counts, "answers")
    shares = np.asarray(figure.axes[0].images[0].get_array()) ** 2
    assert np.allclose(shares.sum(axis=1), (counts.sum(axis=1) > 0).astype(float))
    assert len(figure.axes[0].texts) == (classes**2 if classes <= 20 else 0)
    assert drawn(figure) > 5000


@pytest.mark.parametrize(
    "accuracies", [{1: 0.9}, {5: 0.9, 10: 0.93, 12: 0.95}, {i: 1 - 1 / i for i in range(1, 900)}]
)
@pytest.mark.parametrize("target", [None, 0.97])
def test_accuracies_are_drawn_at_their_rounds(accuracies, target):
    figure = plots.accuracy_figure(accuracies, "accuracy", target)
    lines = figure.axes[0].lines
    assert list(lines[0].get_xdata()) == list(accuracies) and list(lines[0].get_ydata()) == list(
        accuracies.values()
    )
    assert len(lines) == (1 if target is None else 2)
    assert drawn(figure) > 5000
