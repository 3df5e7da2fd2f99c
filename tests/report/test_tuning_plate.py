"""Taps stand in the network's order; numbers are those of the rows."""

import dataclasses
import math

import numpy as np
import pyarrow as pa

from neuroprior.experiment.results import METRICS_SCHEMA, RunResults
from neuroprior.report.tuning import MEASURES, tuned_taps, tuning_csv, tuning_table
from neuroprior.report.tuning_plate import tuning_plate

from .conftest import CARDS, TAPS, MakeRun


def values(results: RunResults, condition: str, metric: str, tap: str) -> list[float]:
    """One value a seed."""
    return [
        row["value"]
        for row in results.metrics.to_pylist()
        if (row["condition"], row["metric"], row["tap"]) == (condition, metric, tap)
    ]


def test_tables_have_the_rows_numbers(make_probed: MakeRun) -> None:
    results = make_probed()
    for measure in MEASURES:
        table = tuning_table(results, measure)
        assert table is not None
        assert (
            "over 64 units a tap" if measure is MEASURES[-1] else "51 to 64 responsive units a tap"
        ) in table.caption
        assert table.header == ("Condition", *TAPS, "Seeds")
        for name, row in zip(CARDS, table.rows, strict=True):
            for tap, cell in zip(TAPS, row[1:], strict=False):
                scale, digits = (100, (".1f", ".1f")) if measure.share else (1, (".3g", ".2g"))
                one = scale * np.array(values(results, name, measure.metric, tap))
                assert cell == f"{one.mean():{digits[0]}} ± {one.std(ddof=1) / math.sqrt(3):{digits[1]}}"


def test_the_plate_draws_the_means_over_the_taps_in_order(make_probed: MakeRun) -> None:
    results = make_probed()
    plate = tuning_plate(results)
    shown = [measure for measure in MEASURES if measure.shown]
    assert [panel.name for panel in plate.panels] == [f"tuning-{one.metric.replace('_', '-')}" for one in shown]
    for panel, measure in zip(plate.panels, shown, strict=True):
        axes = panel.figure.axes[0]
        assert [tick.get_text() for tick in axes.get_xticklabels()] == list(TAPS)
        for container, name in zip(axes.containers, CARDS, strict=True):
            wanted = [np.mean(values(results, name, measure.metric, tap)) for tap in TAPS]
            line = container[0]
            np.testing.assert_allclose(
                line.get_xdata(orig=False), range(len(TAPS))
            )  # side by side, equal lines would differ
            np.testing.assert_allclose(line.get_ydata(orig=False), np.multiply(100 if measure.share else 1, wanted))
        assert panel.alt.startswith(measure.heading)
    assert "bars ± SEM (ddof 1), n = 3 seeds" in plate.caption
    assert "SEM" not in tuning_plate(make_probed(seeds=(0,))).caption


def test_a_tap_whose_units_do_not_answer_keeps_its_place(make_probed: MakeRun) -> None:
    results = make_probed(seeds=(0,))
    silent = [
        row for row in results.metrics.to_pylist() if row["tap"] != "layer1" or row["metric"] == "responsive_units"
    ]
    results = dataclasses.replace(results, metrics=pa.Table.from_pylist(silent, schema=METRICS_SCHEMA))
    assert tuned_taps(results) == TAPS
    table = tuning_table(results, MEASURES[0])
    assert table is not None
    assert {row[2] for row in table.rows} == {"–"}
    line = tuning_plate(results).panels[0].figure.axes[0].containers[0][0]
    assert line.get_xdata(orig=False).tolist() == [0, 2, 3, 4]


def test_csv_has_every_row_and_none_without_a_measurement(make_probed: MakeRun, make_run: MakeRun) -> None:
    header, *rows = tuning_csv(make_probed(seeds=(0, 1)))
    assert header == ["condition", "label", "measure", "tap", "mean", "sem", "n_seeds", "n_units"]
    assert len(rows) == len(CARDS) * len(MEASURES) * len(TAPS)
    assert {len(row) for row in rows} == {len(header)}
    nothing = make_run(seeds=(0,))
    assert tuning_plate(nothing).absent
    assert all(tuning_table(nothing, measure) is None for measure in MEASURES)
    assert len(tuning_csv(nothing)) == 1
