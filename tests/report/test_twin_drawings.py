"""Figures of a twin show the numbers that they are given, where they belong."""

import numpy as np
import pytest

from neuroprior.report.svg import house_style, svg_text
from neuroprior.report.twin_drawings import (
    exciting_figure,
    filters_figure,
    learning_figure,
    oracle_figure,
    positions_figure,
    scores_figure,
)
from neuroprior.twin import FitEpoch


def shown(axes) -> np.ndarray:
    """What an axes' picture looks like: 0 black, 1 white."""
    picture = axes.get_images()[0]
    return np.asarray(picture.norm(picture.get_array()), dtype=np.float64)


def test_filters_are_gray_at_0_and_turn_over_with_their_sign():
    filters = np.random.default_rng(0).standard_normal((3, 5, 5)).astype(np.float32)
    filters[1] *= 100
    filters[2] = 0
    plain, turned = filters_figure(filters), filters_figure(-filters)
    for one, other in zip(plain.axes, turned.axes, strict=True):
        assert np.allclose(shown(one) + shown(other), 1, atol=1e-6)
    assert [len(f.axes) for f in (plain, turned)] == [3, 3]
    assert max(np.abs(shown(plain.axes[k]) - 0.5).max() for k in (0, 1)) == pytest.approx(0.5)
    assert (shown(plain.axes[2]) == 0.5).all()


@pytest.mark.parametrize("n", [1, 4, 5, 64])
def test_pictures_lie_inside_the_figure_and_apart(n):
    figure = filters_figure(np.ones((n, 9, 9), dtype=np.float32))
    boxes = [axes.get_position() for axes in figure.axes]
    assert len(boxes) == n
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= 1 and box.y1 <= 1 for box in boxes)
    for i, one in enumerate(boxes):
        for other in boxes[:i]:
            assert one.x0 >= other.x1 or one.x1 <= other.x0 or one.y0 >= other.y1 or one.y1 <= other.y0


def test_exciting_images_are_shown_as_they_are():
    images = np.array([[[0.0, 255.0], [127.5, 51.0]]] * 2, dtype=np.float32)
    images[1] /= 5
    figure = exciting_figure(images, ["a $5 neuron", "another of them with a long name"])
    for axes, image in zip(figure.axes, images, strict=True):
        assert np.allclose(shown(axes), image / 255)
    with pytest.raises(ValueError, match="zip"):
        exciting_figure(images, ["one title for two"])


def test_grays_and_a_heading_leave_the_pictures_where_they_belong():
    images = np.array([[[90.0, 110.0], [100.0, 95.0]]], dtype=np.float32)
    figure = exciting_figure(images, ["a neuron"], (90.0, 110.0), heading="a scan of $5")
    assert np.allclose(shown(figure.axes[0]), [[0, 1], [0.5, 0.25]])
    plain = exciting_figure(images, ["a neuron"])
    sizes = [f.axes[0].get_position().height * f.get_size_inches()[1] for f in (figure, plain)]
    assert sizes[0] == pytest.approx(sizes[1])


def test_positions_are_in_the_images_frame_with_y_downwards():
    centres = np.array([[0.0, 0.0], [64.0, 36.0], [16.0, 30.0]])
    figure = positions_figure(centres, (36, 64), np.array([0.0, 100.0, 50.0]))
    axes = figure.axes[0]
    (dots,) = axes.collections
    assert np.allclose(dots.get_offsets(), centres)
    assert (axes.get_xlim(), axes.get_ylim()) == ((0, 64), (36, 0))
    assert np.allclose(dots.get_array(), [0, 100, 50])
    assert len(positions_figure(centres, (36, 64)).axes[0].collections) == 1


def history() -> list[FitEpoch]:
    r = [0.1, 0.2, 0.35, 0.3, float("nan"), 0.34]
    return [FitEpoch(k + 1, 2.0 / (k + 1), 0.01, r[k], 0.01 if k < 4 else 0.003) for k in range(6)]


def test_learning_curves_mark_the_best_epoch_and_falls_of_the_rate():
    upper, lower = learning_figure(history()).axes
    assert np.allclose(upper.lines[0].get_xydata(), [(e.epoch, e.loss) for e in history()])
    for axes in (upper, lower):
        assert [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"] == [5]
    assert lower.lines[-1].get_xydata() == pytest.approx(np.array([[3, 0.35]]))
    assert lower.get_title(loc="left") == "best: 0.350, epoch 3"
    assert upper.get_title(loc="left") == "learning rate 0.01 → 0.003"
    steady = learning_figure(history()[:3]).axes[0]
    assert len(steady.lines) == 1
    assert learning_figure([FitEpoch(1, 2.0, 0.01, float("nan"), 0.01)]).axes[1].get_title(loc="left") == ""


def test_scores_count_every_neuron_that_has_one():
    rng = np.random.default_rng(0)
    single, average = rng.uniform(-0.1, 0.5, 200), rng.uniform(0, 0.8, 200)
    feve = np.where(average > 0.4, rng.normal(0.5, 1.0, 200).clip(-9, 1), np.nan)
    figure = scores_figure(single, average, feve)
    counted = [sum(bar.get_height() for bar in axes.patches) for axes in figure.axes]
    assert counted == [200, 200, np.isfinite(feve).sum()]
    means = [axes.lines[0].get_xdata()[0] for axes in figure.axes]
    assert means == pytest.approx([single.mean(), average.mean(), np.nanmedian(feve)])
    low = scores_figure(single, feve=np.full(9, -3.0))
    assert [axes.get_title(loc="left").split(":")[0] for axes in low.axes] == [
        "single-trial correlation",
        "fraction of explainable variance",
    ]
    assert low.axes[1].lines[0].get_xdata()[0] == low.axes[1].get_xlim()[0] == -0.5
    assert low.axes[1].patches[0].get_height() == 9
    above = scores_figure(single, feve=np.linspace(0.9, 1.3, 100)).axes[1]
    assert above.get_xlim()[1] > above.lines[0].get_xdata()[0] == pytest.approx(1.1)
    nothing = scores_figure(single, average, np.full(3, np.nan))
    assert nothing.axes[2].get_title(loc="left") == "fraction of explainable variance: n = 0"


def test_the_line_against_the_oracle_has_the_slope_of_the_fraction():
    oracle = np.array([0.2, 0.5, 0.8, np.nan, 0.4])
    single = np.array([0.1, 0.3, 0.35, 0.2, np.nan])
    for fraction in (0.5, 2.0, -0.1):
        axes = oracle_figure(oracle, single, fraction, "a scan").axes[0]
        assert np.allclose(axes.collections[0].get_offsets(), np.stack([oracle, single], 1)[:3])
        identity, line = (np.asarray(one.get_xydata()) for one in axes.lines)
        assert np.array_equal(identity[:, 0], identity[:, 1])
        assert line[0].tolist() == [0, 0]
        assert line[1, 1] == pytest.approx(fraction * line[1, 0])
        assert line[1].max() == pytest.approx(0.8)
        assert axes.get_title(loc="left") == "a scan"


def test_the_same_numbers_give_the_same_figure():
    with house_style():
        first, again = (svg_text(learning_figure(history())) for _ in range(2))
    assert first == again
