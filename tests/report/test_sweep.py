"""A sweep is what differs in alpha alone; measures that a run has not made are absent."""

import dataclasses

import pyarrow.compute as pc
import pytest

from neuroprior.experiment.results import ConditionCard
from neuroprior.report.further import ATTACK, FEW_SHOT, LINEAR_PROBE, Measure, measure_csv, measure_table
from neuroprior.report.plates import histogram_plate, sweep_plate
from neuroprior.report.sweep import alpha_series, blur_row, gamma_table
from neuroprior.report.tables import curve_of, noise_curve

from .conftest import TAPS, MakeRun


def test_series_are_ordered_by_alpha_and_the_bare_name_has_the_recipes(make_many: MakeRun) -> None:
    (series,) = alpha_series(make_many(seeds=(0,)))
    assert (series.name, series.label) == ("neural_model", "Neural (model)")
    assert series.alphas == (2.0, 20.0, 80.0)
    assert [card.name for card in series.cards] == ["neural_model@alpha=2", "neural_model", "neural_model@alpha=80"]


def test_what_differs_in_more_than_alpha_is_no_series(make_many: MakeRun) -> None:
    names = ("neural_model", "neural_model@alpha=2,scale=lineage", "pixel@alpha=4", "shuffle@alpha=4")
    cards = tuple(ConditionCard(name, name, "", "") for name in names)
    results = dataclasses.replace(make_many(seeds=(0,)), conditions=cards)
    assert alpha_series(results) == []
    assert gamma_table(results) is None
    more = (*cards, ConditionCard("neural_model@scale=lineage,alpha=8", "mine", "", ""))
    (series,) = alpha_series(dataclasses.replace(results, conditions=more))
    assert (series.name, series.alphas) == ("neural_model@scale=lineage", (2.0, 8.0))


def test_blur_row_goes_from_none_to_the_widest(make_many: MakeRun) -> None:
    assert [card.name for card in blur_row(make_many(seeds=(0,)))] == ["none", "blur", "blur@sigma=2"]


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


def test_table_holds_the_gamma_of_the_last_epoch(make_many: MakeRun) -> None:
    results = make_many()
    table = gamma_table(results)
    assert table is not None
    assert table.header == ("Condition", "α", *TAPS, "Seeds")
    assert [row[1] for row in table.rows] == ["2", "20", "80"]
    for k, tap in enumerate(TAPS):
        curve = curve_of(results.metrics, "neural_model", "gamma", tap)
        assert curve.x[-1] == 39
        assert table.rows[1][2 + k] == f"{curve.estimates[-1].mean:.2f}"
    assert sum(float(cell) for cell in table.rows[1][2:-1]) == pytest.approx(1, abs=0.03)


def test_one_target_of_many_conditions_is_drawn_once(make_many: MakeRun) -> None:
    plate = histogram_plate(make_many(seeds=(0,)))
    labels = [text.get_text() for one in plate.panels[0].figure.legends for text in one.get_texts()]
    assert labels == ["Neural (model)", "Neural (data), simulated", "Shuffle"]
    assert "Neural (model) (also of Neural (model), α = 2, Neural (model), α = 80)" in plate.caption


@pytest.mark.parametrize(("measure", "columns"), [(ATTACK, 6), (FEW_SHOT, 2), (LINEAR_PROBE, 1)])
def test_measures_have_a_table_and_a_csv_where_they_were_made(
    make_many: MakeRun, make_run: MakeRun, measure: Measure, columns: int
) -> None:
    results = make_many(seeds=(0, 1))
    table = measure_table(results, measure)
    assert table is not None
    assert len(table.header) == columns + 2
    assert len(table.rows) == 14
    assert not any(cell == "–" for row in table.rows for cell in row)
    header, *rows = measure_csv(results, measure)
    assert len(rows) == 14 * columns
    chosen = results.metrics.filter((pc.field("metric") == measure.metric) & (pc.field("condition") == "none"))
    assert sum(float(row[header.index("accuracy_mean")]) for row in rows[:columns]) == pytest.approx(
        sum(chosen["value"].to_pylist()) / 2
    )
    assert measure_table(make_run(seeds=(0,)), measure) is None
    assert len(measure_csv(make_run(seeds=(0,)), measure)) == 1
