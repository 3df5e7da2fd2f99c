"""A sweep is what differs in alpha alone."""

import dataclasses

import pytest

from neuroprior.experiment.conditions import condition_named
from neuroprior.report.sweep import alpha_series, blur_row, gamma_table
from neuroprior.report.tables import curve_of

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


def test_blur_row_goes_from_none_to_the_widest(make_many: MakeRun) -> None:
    results = make_many(seeds=(0,))
    assert [card.name for card in blur_row(results)] == ["none", "blur", "blur@sigma=2"]
    names = ("blur@sigma=2", "adversarial+blur", "blur", "blur@sigma=0.5", "lowpass@sigma=1", "none")
    cards = tuple(card_of(name, name, "", "") for name in names)
    row = blur_row(dataclasses.replace(results, conditions=cards))
    assert [card.name for card in row] == ["none", "blur@sigma=0.5", "blur", "blur@sigma=2"]


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
