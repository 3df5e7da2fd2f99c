"""Figure 5 and its tables: medians of a ledger that is known, in the words of the page."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from neuroprior.experiment.results import METRICS_SCHEMA, RunResults
from neuroprior.experiment.steps.attacking import attacked_name
from neuroprior.report.page import render_page
from neuroprior.report.perturbation_plate import perturbation_figure, perturbation_plate
from neuroprior.report.perturbations import descent_of, norms_attacked, perturbation_csv, perturbation_table, queries_of
from neuroprior.robustness import Ledger
from neuroprior.types import AttackRecord, InputError

SCALE = {"none": 1.0, "neural_model": 2.0}


@pytest.fixture
def attacked(make_run) -> RunResults:
    """Two conditions, two seeds, three images: one wrong, one lost at 0.1, one at 0.3 (after 0.5 at first)."""
    run = make_run(conditions=("none", "neural_model"), seeds=(0, 1))
    records, rows = [], run.metrics.to_pylist()
    for condition, scale in SCALE.items():
        for seed in (0, 1):
            size = scale * (1 + 0.1 * seed)
            for sample, distance, trace in (
                ("a", 0.0, ()),
                ("b", 0.1 * size, ((2, 1, 0.1 * size),)),
                ("c", 0.3 * size, ((5, 4, 0.5 * size), (11, 10, 0.3 * size))),
            ):
                wrong = not distance
                records.append(
                    AttackRecord(
                        model=attacked_name(condition, seed),
                        sample=sample,
                        attack="clean" if wrong else "ddn",
                        setting="",
                        repetition=0,
                        norm="l2",
                        distance=distance,
                        forwards=1 if wrong else 12,
                        gradients=0 if wrong else 11,
                        verified=not wrong,
                        status="already_wrong" if wrong else "found",
                        trace=trace,
                    )
                )
            numbers = dict(median=0.1 * size, median_of_right=0.2 * size, mean=0.4 / 3 * size)
            counts = dict(already_wrong=1.0, not_found=0.0, quarantined=0.0, gradients=22 / 3)
            for what, value in {**numbers, **counts}.items():
                rows.append(
                    dict(condition=condition, seed=seed, metric=f"{what}_l2", tap=None, x=None, value=value, n=3)
                )
    metrics = pa.Table.from_pylist(rows, schema=METRICS_SCHEMA)
    return replace(run, metrics=metrics, attacks=Ledger.of_records(records))


def test_the_curve_is_the_median_of_each_seed(attacked):
    curve = descent_of(attacked, "neural_model", "l2", [0, 1, 4, 10, 11])
    assert curve.x == (1.0, 4.0, 10.0, 11.0)  # before the first gradient, two of three images have nothing
    np.testing.assert_allclose([values[0] for values in curve.by_seed], 0.2)  # of 0, 0.2 and more
    np.testing.assert_allclose([values[1] for values in curve.by_seed], 0.22)
    assert set(curve.counts) == {3}


def test_queries_go_up_to_what_an_image_cost(attacked):
    queries = queries_of(attacked.attacks)
    assert queries[0] == 1
    assert queries[-1] == 11
    assert queries == sorted(set(queries))


def test_the_table_has_medians_and_counts(attacked):
    table = perturbation_table(attacked, "l2")
    assert table is not None
    assert table.rows[0] == ("None", "0.105 ± 0.005", "0.21 ± 0.01", "0.14 ± 0.0067", "1", "0", "0", "7.333", "2")
    assert "3 test images" in table.caption
    assert perturbation_table(attacked, "linf") is None
    assert norms_attacked(attacked) == ("l2",)
    csv = perturbation_csv(attacked)
    assert csv[0][:5] == ["condition", "label", "norm", "seed", "n_images"]
    assert [row[:5] for row in csv[1:3]] == [["none", "None", "l2", str(seed), "3"] for seed in (0, 1)]
    assert float(csv[1][5]) == pytest.approx(0.1)


def test_an_infinite_median_is_said(attacked):
    rows = [row | ({"value": np.inf} if row["metric"] == "median_l2" else {}) for row in attacked.metrics.to_pylist()]
    table = perturbation_table(replace(attacked, metrics=pa.Table.from_pylist(rows, schema=METRICS_SCHEMA)), "l2")
    assert table is not None
    assert table.rows[0][1] == "∞"


def test_the_page_shows_it_where_something_was_attacked(attacked, make_run):
    plate = perturbation_plate(attacked)
    assert [panel.name for panel in plate.panels] == ["perturbation-l2"]
    assert "3 test images" in plate.caption
    assert "Smallest perturbations, L2" in render_page(attacked)
    assert "Smallest perturbation" not in render_page(make_run())


def test_any_ledger_gives_the_figure(attacked):
    axes = perturbation_figure(attacked.attacks).axes[0]
    assert [line.get_label() for line in axes.get_lines()] == list(attacked.attacks.models)
    assert axes.get_lines()[0].get_ydata()[-1] == pytest.approx(0.1)
    assert perturbation_figure(attacked.attacks, count="forwards").axes[0].get_xlabel() == "forwards of an image"
    lost = Ledger.of_records([AttackRecord("net", "a", "ddn", "", 0, "l2", np.inf, 1, 1, False, "not_found")])
    with pytest.raises(InputError, match="nothing to draw"):
        perturbation_figure(lost)
    other = Ledger.of_records([AttackRecord("net", "a", "pgd", "", 0, "linf", 0.1, 1, 1, True)])
    with pytest.raises(InputError, match="name one"):
        perturbation_figure(attacked.attacks + other)
