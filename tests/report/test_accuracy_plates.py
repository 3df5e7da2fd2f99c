"""What is drawn is what was measured; bands need seeds, and chance needs the number of classes."""

import dataclasses

import numpy as np

from neuroprior.report.accuracy_plates import noise_plate
from neuroprior.report.tables import noise_curve

from .conftest import MakeRun


def test_chance_is_named_beside_the_axes(make_run: MakeRun) -> None:
    (words,) = noise_plate(make_run()).panels[0].figure.axes[0].texts
    assert words.get_text() == "chance"
    assert words.xy == (1.0, 10.0)  # type: ignore[attr-defined]


def test_chance_is_told_only_where_the_classes_are_known(make_run: MakeRun) -> None:
    results = make_run()
    assert "Dotted: chance" in noise_plate(results).caption
    assert "Dotted: chance" not in noise_plate(dataclasses.replace(results, n_classes=None)).caption


def test_bands_are_drawn_for_seeds_and_not_for_a_seed(make_run: MakeRun) -> None:
    for seeds, bands in (((0,), 0), ((0, 1), 5)):
        results = make_run(seeds=seeds)
        axes = noise_plate(results).panels[0].figure.axes[0]
        assert len(axes.collections) == bands


def test_noise_figure_draws_the_means(make_run: MakeRun) -> None:
    results = make_run()
    axes = noise_plate(results).panels[0].figure.axes[0]
    drawn = {line.get_label(): line.get_ydata() for line in axes.lines}
    for card in results.conditions:
        means = [100 * e.mean for e in noise_curve(results, card.name).estimates]
        assert np.allclose(drawn[card.label], means)
