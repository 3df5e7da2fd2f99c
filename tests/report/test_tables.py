"""The numbers of the tables are the numbers of the metrics, and spreads are what they are called."""

import csv
import math
import statistics
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from neuroprior.experiment.results import METRICS_SCHEMA
from neuroprior.report import write_report
from neuroprior.report.page import render_page
from neuroprior.report.paired import paired_tables
from neuroprior.report.sweep import gamma_table
from neuroprior.report.tables import (
    NOT_MEASURED,
    curve_of,
    headline_table,
    noise_table,
    over_seeds,
    percent,
    plain,
    seeds_phrase,
    shown_levels,
    summary_rows,
    tap_table,
    weights_of,
)
from neuroprior.types import InputError

from .conftest import MANY, SIGMAS, TAPS, WEIGHTS, MakeRun, accuracy


def _rows(*rows: tuple[str, int, float | None, float]) -> pa.Table:
    return pa.Table.from_pylist(
        [dict(condition=c, seed=s, metric="noise_accuracy", tap=None, x=x, value=v, n=10) for c, s, x, v in rows],
        schema=METRICS_SCHEMA,
    )


def test_sem_is_the_hand_computed_one() -> None:
    # 1, 2, 6: mean 3, squares 4 + 1 + 9 = 14, variance 14 / 2 = 7, SEM sqrt(7 / 3)
    estimate = over_seeds([1.0, 2.0, 6.0])
    assert estimate.mean == 3.0
    assert estimate.sem == pytest.approx(math.sqrt(7 / 3), rel=1e-15)
    assert estimate.n == 3


@pytest.mark.parametrize("n", [2, 3, 5])
def test_sem_is_the_standard_deviation_over_root_n(n: int) -> None:
    values = np.random.default_rng(n).random(n).tolist()
    sem = over_seeds(values).sem
    assert sem == pytest.approx(statistics.stdev(values) / math.sqrt(n), rel=1e-12)
    assert sem != pytest.approx(statistics.pstdev(values) / math.sqrt(n), rel=1e-3)  # ddof 0 would be too small


def test_one_seed_has_no_sem_and_none_is_an_error() -> None:
    assert over_seeds([0.5]).sem is None
    assert "±" not in percent(over_seeds([0.5])) + plain(over_seeds([0.5]))
    assert over_seeds([0.5, 0.5]).sem == 0.0  # two equal seeds do have a spread: none
    with pytest.raises(InputError, match="no value"):
        over_seeds([])


def test_curve_is_sorted_and_averages_each_x_over_its_own_seeds() -> None:
    curve = curve_of(
        _rows(("a", 1, 0.1, 0.4), ("a", 0, 0.0, 0.8), ("a", 0, 0.1, 0.2), ("b", 0, 0.1, 9.0)), "a", "noise_accuracy"
    )
    assert curve.x == (0.0, 0.1)
    assert [e.n for e in curve.estimates] == [1, 2]
    assert curve.estimates[1].mean == pytest.approx(0.3)
    assert seeds_phrase([e.n for e in curve.estimates]) == "n = 1 to 2 seeds"


def test_a_seed_that_stands_twice_is_an_error() -> None:
    with pytest.raises(InputError, match=r"seed 0.*twice"):
        curve_of(_rows(("a", 0, 0.1, 0.4), ("a", 0, 0.1, 0.4)), "a", "noise_accuracy")


def test_taps_do_not_mix_with_the_weighted_correlation(make_run: MakeRun) -> None:
    metrics = make_run(seeds=(0,)).metrics
    assert curve_of(metrics, "neural_model", "similarity_correlation").only().mean == 0.5  # type: ignore[union-attr]
    for k, tap in enumerate(TAPS):
        found = curve_of(metrics, "neural_model", "similarity_correlation", tap).only()
        assert found is not None
        assert found.mean == pytest.approx(0.1 * k)


def test_summary_holds_the_metrics_means(make_run: MakeRun) -> None:
    results = make_run(seeds=(0, 1, 2))
    levels = shown_levels(results)
    assert levels == (0.04, 0.1, 0.15)  # 0.05 is as far from 0.04 as from 0.06: the lower one
    for row in summary_rows(results):
        name = row.condition.name
        wanted = [statistics.fmean(accuracy(name, seed, sigma) for seed in (0, 1, 2)) for sigma in (0.0, *levels)]
        assert [e.mean for e in (row.clean, *row.at_noise) if e is not None] == pytest.approx(wanted, rel=1e-12)
        assert row.n_images == 500
        assert (row.similarity is None) == (name in ("none", "blur"))


def test_shown_levels_are_measured_ones_and_never_the_clean_one(make_run: MakeRun) -> None:
    results = make_run(metrics=_rows(("none", 0, 0.0, 0.9), ("none", 0, 0.2, 0.5)), conditions=("none",))
    assert shown_levels(results) == (0.2,)
    assert shown_levels(make_run(metrics=_rows(("none", 0, 0.0, 0.9)), conditions=("none",))) == ()


def test_headline_says_target_and_weights_of_every_row(make_run: MakeRun) -> None:
    results = make_run()
    table = headline_table(results)
    assert len(table.row_notes) == len(table.rows) == len(results.conditions)
    for note, card in zip(table.row_notes, results.conditions, strict=True):
        assert card.target in note
        assert (weights_of(results, card.name) in note) == (card.name in results.targets)
    assert weights_of(results, "neural_model") == WEIGHTS
    assert weights_of(results, "none") == NOT_MEASURED


def test_an_unfinished_condition_has_dashes_and_no_number(make_run: MakeRun) -> None:
    table = headline_table(make_run(unfinished=("shuffle",)))
    row = next(row for row in table.rows if row[0] == "Shuffle")
    assert set(row[1:]) == {NOT_MEASURED, "not finished"}


def test_what_alpha_0_and_a_collapsed_network_do_not_have_is_blank(make_many: MakeRun) -> None:
    # no similarity loss is computed at alpha 0, and a network that gives all images one feature has no correlation
    results = make_many(seeds=(0, 1))
    name, metric = pc.field("condition"), pc.field("metric")
    gone = (name == "neural_model@alpha=2") & pc.is_in(metric, pa.array(["similarity_loss", "gamma"]))
    gone |= pc.is_in(name, pa.array(["vgg", "none"])) & (metric == "similarity_correlation")
    gone |= (name == "neural_model") & (metric == "similarity_correlation") & (pc.field("seed") == 0)
    results = replace(results, metrics=results.metrics.filter(~gone))
    headline = {row[0]: row for row in headline_table(results).rows}
    assert headline["VGG-19 conv3_1"][-3] == NOT_MEASURED
    assert headline["Neural (model)"][-3].endswith("(n = 1)")
    taps = tap_table(results)
    assert taps is not None
    rows = {row[0]: row[1:] for row in taps.rows}
    assert len(rows) == len(MANY)
    assert set(rows["VGG-19 conv3_1"]) == set(rows["None"]) == {NOT_MEASURED}
    assert NOT_MEASURED not in rows["Neural (model)"]
    gammas = gamma_table(results)
    assert gammas is not None
    assert [set(row[2:]) == {NOT_MEASURED} for row in gammas.rows] == [True, False, False]  # alpha 2, 20, 80
    against_none = dict(paired_tables(results))["None"]
    column = against_none.header.index("Held-out similarity\N{NO-BREAK SPACE}r")
    assert {row[column] for row in against_none.rows} == {NOT_MEASURED}
    assert "VGG" in render_page(results)

    nobody = replace(results, metrics=results.metrics.filter(metric != "similarity_correlation"))
    assert tap_table(nobody) is None
    assert {row[-3] for row in headline_table(nobody).rows} == {NOT_MEASURED}


def test_a_value_with_fewer_seeds_than_its_row_says_so(make_run: MakeRun) -> None:
    metrics = _rows(("none", 0, 0.0, 0.9), ("none", 1, 0.0, 0.8), ("none", 0, 0.1, 0.5))
    (row,) = headline_table(make_run(metrics=metrics, conditions=("none",))).rows
    assert row[2] == "50.0 (n = 1)"
    assert "(n" not in row[1]


def test_a_value_that_is_not_finite_is_said_not_hidden() -> None:
    assert percent(over_seeds([math.nan, 0.5])) == "not finite"
    assert plain(over_seeds([math.nan])) == "not finite"


def test_a_long_target_is_said_where_it_first_comes(make_many: MakeRun) -> None:
    notes = dict(zip(MANY, headline_table(make_many(seeds=(0,))).row_notes, strict=True))
    assert notes["neural_model"] == f"target: {CARD_TARGET}; weights: {WEIGHTS}"
    assert notes["neural_model@alpha=2"] == "target and weights: as Neural (model)"
    assert notes["none"] == notes["blur"] == "no target"


def test_rows_are_as_long_as_their_header(make_run: MakeRun) -> None:
    results = make_run()
    for table in (headline_table(results), noise_table(results), tap_table(results)):
        assert table is not None
        assert all(len(row) == len(table.header) for row in table.rows)


CARD_TARGET = "similarity of a V1 twin's responses"


def test_heldout_correlation_is_said_to_be_with_the_neural_target_for_everyone(make_run: MakeRun) -> None:
    # the shuffled network's similarity is compared with the unpermuted target: no caption may say "its target"
    results = make_run()
    table = tap_table(results)
    assert table is not None
    caption = headline_table(results).caption
    assert f"S_neural ({CARD_TARGET}, weights {WEIGHTS}) is the same for every condition" in caption
    assert "S_neural is the first table's, the same for every condition" in table.caption
    assert "its target" not in caption + table.caption


def test_csv_holds_full_precision_and_empty_sem_for_one_seed(make_run: MakeRun) -> None:
    for seeds in ((0,), (0, 1, 2)):
        results = make_run(seeds=seeds)
        folder = write_report(results).parent
        with (folder / "noise.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == len(results.conditions) * len(SIGMAS)
        for row in rows:
            values = [accuracy(row["condition"], seed, float(row["sigma"])) for seed in seeds]
            assert float(row["accuracy_mean"]) == math.fsum(values) / len(values)
            assert row["n_seeds"] == str(len(seeds))
            assert (row["accuracy_sem"] == "") == (len(seeds) == 1)
        with (folder / "summary.csv").open(newline="") as file:
            summary = {row["condition"]: row for row in csv.DictReader(file)}
        assert list(summary) == [card.name for card in results.conditions]
        assert float(summary["none"]["clean_accuracy_mean"]) == pytest.approx(
            statistics.fmean(accuracy("none", seed, 0.0) for seed in seeds), rel=1e-15
        )
        assert summary["none"]["heldout_similarity_correlation_mean"] == ""
