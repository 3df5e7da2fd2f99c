"""A sweep is what differs in alpha alone; measures that a run has not made are absent."""

import dataclasses

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from neuroprior.experiment.conditions import condition_named
from neuroprior.report.further import ATTACK, FEW_SHOT, LINEAR_PROBE, Measure, measure_csv, measure_table
from neuroprior.report.plates import histogram_plate, sweep_plate
from neuroprior.report.sweep import alpha_series, blur_row, gamma_table
from neuroprior.report.tables import curve_of, noise_curve

from .conftest import TAPS, MakeRun, card_of


def test_series_are_ordered_by_alpha_and_the_bare_name_has_the_recipes(make_many: MakeRun) -> None:
    (series,) = alpha_series(make_many(seeds=(0,)))
    assert (series.head.name, series.label) == ("neural_model", "Neural (model)")
    assert series.alphas == (2.0, 20.0, 80.0)
    assert [card.name for card in series.cards] == ["neural_model@alpha=2", "neural_model", "neural_model@alpha=80"]


def test_what_differs_in_more_than_alpha_is_no_series(make_many: MakeRun) -> None:
    names = ("neural_model", "neural_model@alpha=2,scale=lineage", "pixel@alpha=4", "shuffle@alpha=4")
    cards = tuple(card_of(name, name, "", "") for name in names)
    results = dataclasses.replace(make_many(seeds=(0,)), conditions=cards)
    assert alpha_series(results) == []
    assert gamma_table(results) is None
    more = (*cards, card_of("neural_model@scale=lineage,alpha=8", "Neural (model) scale lineage α 8", "", ""))
    (series,) = alpha_series(dataclasses.replace(results, conditions=more))
    assert [card.name for card in series.cards] == [names[1], more[-1].name]
    assert series.alphas == (2.0, 8.0)


def test_alpha_is_the_cards_whatever_the_recipe_says(make_many: MakeRun) -> None:
    # a ramp has no one alpha, and pixel (10) and regression have their own
    names = ("neural_model@alpha=5", "neural_model", "pixel", "pixel@alpha=10", "pixel@alpha=4", "regression")
    cards = tuple(card_of(name, condition_named(name).label, "", "") for name in names)
    ramp = "regularizer:\n  alpha: {start: 0.0, end: 7.0}\n"
    found = alpha_series(dataclasses.replace(make_many(seeds=(0,)), conditions=cards, recipe_yaml=ramp))
    assert [(series.label, series.alphas) for series in found] == [
        ("Neural (model)", (5.0, 20.0)),
        ("Pixel", (4.0, 10.0)),
    ]
    assert [card.name for card in found[1].cards] == ["pixel@alpha=4", "pixel"]


def test_a_series_without_the_bare_condition_is_labelled_without_an_alpha(make_many: MakeRun) -> None:
    cards = tuple(card_of(f"shuffle@alpha={k}", f"Shuffle α {k}", "", "") for k in (20, 2))
    (series,) = alpha_series(dataclasses.replace(make_many(seeds=(0,)), conditions=cards))
    assert (series.label, series.head.name, series.alphas) == ("Shuffle", "shuffle@alpha=2", (2.0, 20.0))


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


def test_blur_row_goes_from_none_to_the_widest(make_many: MakeRun) -> None:
    results = make_many(seeds=(0,))
    assert [card.name for card in blur_row(results)] == ["none", "blur", "blur@sigma=2"]
    names = ("blur@sigma=2", "adversarial+blur", "blur", "blur@sigma=0.5", "lowpass@sigma=1", "none")
    cards = tuple(card_of(name, name, "", "") for name in names)
    row = blur_row(dataclasses.replace(results, conditions=cards))
    assert [card.name for card in row] == ["none", "blur@sigma=0.5", "blur", "blur@sigma=2"]


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
    assert labels == ["Neural (model)", "Neural (simulated data)", "Shuffle"]
    assert "Neural (model) (also of Neural (model) α 2, Neural (model) α 80)" in plate.caption


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
