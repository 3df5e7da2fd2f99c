"""Every alpha is drawn once, and `none` stands at 0 for the lines that start there."""

import dataclasses

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from neuroprior.experiment.conditions import condition_named
from neuroprior.report.sweep import alpha_series
from neuroprior.report.sweep_plate import sweep_plate
from neuroprior.report.tables import noise_curve

from .conftest import MakeRun, card_of


def test_figure_draws_none_at_zero_and_each_alpha_once(make_many: MakeRun) -> None:
    results = make_many()
    axes = sweep_plate(results).panels[0].figure.axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "2", "20", "80"]
    wanted = [
        100 * estimate.mean
        for name in ("none", "neural_model@alpha=2", "neural_model", "neural_model@alpha=80")
        if (estimate := noise_curve(results, name).at(0.15)) is not None
    ]
    assert axes.lines[0].get_ydata() == pytest.approx(wanted)


def test_attacks_in_training_make_a_series_of_their_own_that_does_not_start_at_none(make_many: MakeRun) -> None:
    results = make_many(seeds=(0,))
    names = ("none", "neural_model", "neural_model@alpha=2", "adversarial+neural_model")
    names += ("adversarial+neural_model@alpha=2",)
    rows = results.metrics.filter(pc.field("condition") == "adversarial+neural_model")
    renamed = rows.set_column(0, rows.schema.field(0), pa.array([names[-1]] * len(rows)))
    cards = tuple(card_of(name, condition_named(name).label, "", "") for name in names)
    metrics = pa.concat_tables([results.metrics, renamed])
    results = dataclasses.replace(results, conditions=cards, metrics=metrics)
    assert [series.head.name for series in alpha_series(results)] == ["neural_model", "adversarial+neural_model"]
    plain, attacked = (line.get_xdata() for line in sweep_plate(results).panels[0].figure.axes[0].lines)
    assert list(plain) == [0, 1, 2]
    assert list(attacked) == [1, 2]
