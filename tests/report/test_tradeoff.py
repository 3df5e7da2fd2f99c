"""The frontier is a hull, interpolated inside its range only."""

import itertools
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from neuroprior.experiment.conditions import CONDITIONS
from neuroprior.experiment.results import METRICS_SCHEMA
from neuroprior.report.tradeoff import (
    frontier_sentence,
    main_level,
    on_hull,
    tradeoff,
    tradeoff_csv,
    tradeoff_table,
    upper_hull,
)

from .conftest import MANY, MakeRun, card_of


def test_hull_is_above_all_points_concave_and_made_of_them() -> None:
    points = [(float(x), float(y)) for x, y in np.random.default_rng(0).random((40, 2))]
    hull = upper_hull(points)
    assert set(hull) <= set(points)
    for x, y in points:
        height = on_hull(hull, x)
        assert height is not None
        assert height >= y - 1e-12
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.pairwise(hull)]
    assert slopes == sorted(slopes, reverse=True)
    lowered = [(x, y - 1e-6) if (x, y) in hull else (x, y) for x, y in points]
    assert upper_hull(lowered) != hull  # the least such function: it touches its vertices


def test_hull_of_a_triangle_is_interpolated_and_never_extrapolated() -> None:
    hull = upper_hull([(0.0, 1.0), (1.0, 0.0), (0.5, 0.2), (0.4, 0.9), (0.4, 0.1)])
    assert hull == [(0.0, 1.0), (0.4, 0.9), (1.0, 0.0)]
    assert on_hull(hull, 0.7) == pytest.approx(0.45)
    assert on_hull(hull, 1.0) == 0.0
    assert on_hull(hull, -0.01) is None
    assert on_hull(hull, 1.01) is None
    assert on_hull(upper_hull([(0.5, 0.5)]), 0.5) == 0.5
    assert on_hull([], 0.5) is None


def test_level_is_the_largest_shown_one_that_was_measured(make_run: MakeRun) -> None:
    assert main_level(make_run(seeds=(0,))) == 0.15
    assert (
        main_level(make_run(seeds=(0,), unfinished=("none", "neural_model", "neural_data", "shuffle", "blur"))) is None
    )


def test_no_control_is_above_the_frontier_and_the_brain_is_not_part_of_it(make_many: MakeRun) -> None:
    found = tradeoff(make_many())
    assert found is not None
    by_name = {point.card.name: point for point in found.points}
    for point in found.points:
        if point.card.plain:
            assert point.frontier is not None
            assert point.noisy.mean <= point.frontier + 1e-12
    assert {name for name, point in by_name.items() if point.card.plain} == {
        *("none", "lowpass", "pixel", "blur", "blur@sigma=2")
    }
    assert by_name["neural_model@alpha=80"].frontier is None  # of lower clean accuracy than any control


@pytest.mark.parametrize("name", [name for name, one in CONDITIONS.items() if one.plain and name not in MANY])
def test_a_plain_control_above_the_hull_moves_it_and_any_other_condition_does_not(
    make_many: MakeRun, name: str
) -> None:
    results = make_many(seeds=(0,))
    before = tradeoff(results)
    assert before is not None
    high = (0.9, 0.7)
    old = on_hull(before.hull, high[0])
    assert old is not None
    assert old < high[1]
    rows = [
        dict(condition=name, seed=0, metric="noise_accuracy", tap=None, x=x, value=value, n=10_000)
        for x, value in zip((0.0, before.sigma), high, strict=True)
    ]
    metrics = pa.concat_tables([results.metrics, pa.Table.from_pylist(rows, schema=METRICS_SCHEMA)])
    card = card_of(name, "Above", "", "")
    for plain in (True, False):
        cards = (*results.conditions, replace(card, plain=plain))
        found = tradeoff(replace(results, metrics=metrics, conditions=cards))
        assert found is not None
        assert (high in found.hull) == plain
        assert (found.hull == before.hull) == (not plain)
        assert ("Above" in frontier_sentence(found)) == plain
    assert card.plain


def test_table_and_csv_say_the_difference_or_leave_it_blank(make_many: MakeRun) -> None:
    results = make_many()
    table = tradeoff_table(results)
    assert table is not None
    rows = {row[0]: row for row in table.rows}
    assert rows["None"][-1] == "+0.0"
    assert rows["Neural (model) α 80"][-2:] == ("–", "–")
    header, *lines = tradeoff_csv(results)
    assert [line[0] for line in lines] == list(MANY)
    for line in lines:
        cells = dict(zip(header, line, strict=True))
        assert (cells["difference"] == "") == (cells["frontier_noisy"] == "")
        if cells["difference"]:
            gap = float(cells["noisy_mean"]) - float(cells["frontier_noisy"])
            assert float(cells["difference"]) == pytest.approx(gap, abs=1e-12)
