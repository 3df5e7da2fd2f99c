"""Curves, crossovers and half power frequencies are those of the rows."""

import dataclasses
import math

import numpy as np
import pyarrow as pa
import pytest

from neuroprior.experiment.results import METRICS_SCHEMA, RunResults
from neuroprior.report.frequencies import METRICS, frequency_csv, frequency_table
from neuroprior.report.frequency_plate import frequency_plate

from .conftest import CARDS, CUTOFFS, LOST, MakeRun


def values(results: RunResults, condition: str, metric: str) -> dict[float | None, list[float]]:
    """One value a seed, by x."""
    found: dict[float | None, list[float]] = {}
    for row in results.metrics.to_pylist():
        if (row["condition"], row["metric"]) == (condition, metric):
            found.setdefault(row["x"], []).append(row["value"])
    return found


def kept(results: RunResults, *metrics: str, but: tuple[str, int, str] | None = None) -> RunResults:
    rows = [
        row
        for row in results.metrics.to_pylist()
        if row["metric"] in metrics and (row["condition"], row["seed"], row["metric"]) != but
    ]
    return dataclasses.replace(results, metrics=pa.Table.from_pylist(rows, schema=METRICS_SCHEMA))


def test_the_table_has_crossovers_and_half_powers_and_a_dash_for_none(make_probed: MakeRun) -> None:
    results = make_probed()
    table = frequency_table(results)
    assert table is not None
    assert table.header == (
        *("Condition", "Hybrid crossover", "Half power, L0", "Half power, L1", "Half power, L2", "Half power, L∞"),
        "Seeds",
    )
    for name, row in zip(CARDS, table.rows, strict=True):
        for metric, cell in zip(
            ("hybrid_crossover", *(f"perturbation_half_power_{n}" for n in LOST)), row[1:-1], strict=True
        ):
            one = values(results, name, metric).get(None)
            wanted = "–" if one is None else f"{np.mean(one):.3g} ± {np.std(one, ddof=1) / math.sqrt(3):.2g}"
            assert cell == wanted
    assert table.rows[3][:2] == ("Shuffle", "–")
    assert "800 to 802 hybrids" in table.caption or "800 hybrids" in table.caption
    assert "over 190 of them" in table.caption


def test_a_crossover_that_some_seeds_lack_says_its_n(make_probed: MakeRun) -> None:
    results = make_probed()
    table = frequency_table(kept(results, *METRICS, but=("none", 1, "hybrid_crossover")))
    assert table is not None
    assert table.rows[0][1].endswith("(n = 2)")
    assert "(n = " not in table.rows[1][1]


def test_the_plate_draws_the_rows(make_probed: MakeRun) -> None:
    results = make_probed()
    plate = frequency_plate(results)
    names = ["low-pass", "high-pass", "hybrids", *(f"spectrum-{norm}" for norm in LOST)]
    assert [panel.name for panel in plate.panels] == [f"frequency-{name}" for name in names]
    panels = dict(zip(names, (panel.figure.axes[0] for panel in plate.panels), strict=True))
    drawn = {line.get_label(): line.get_ydata() for line in panels["low-pass"].lines}
    for name, card in CARDS.items():
        low = values(results, name, "low_pass_accuracy")
        np.testing.assert_allclose(drawn[card.label], [100 * np.mean(low[cutoff]) for cutoff in CUTOFFS])
    assert "2,000 test images" in plate.caption
    assert "n = 3 seeds" in plate.caption
    assert "No crossover: Shuffle." in plate.caption


def test_hybrids_are_drawn_as_a_difference_with_marks_where_it_is_nought(make_probed: MakeRun) -> None:
    results = make_probed()
    axes = frequency_plate(results).panels[2].figure.axes[0]
    curves = [line.get_ydata() for line in axes.lines if len(line.get_xdata()) == len(CUTOFFS)]
    marks = {line.get_label(): line.get_xydata().tolist() for line in axes.lines if str(line.get_label())[0] != "_"}
    for curve, (name, card) in zip(curves, CARDS.items(), strict=True):
        low, high = (values(results, name, f"hybrid_{part}") for part in ("low", "high"))
        np.testing.assert_allclose(curve, [100 * (np.mean(low[x]) - np.mean(high[x])) for x in CUTOFFS], atol=1e-9)
        crossover = values(results, name, "hybrid_crossover").get(None)
        assert marks[card.label] == ([] if crossover is None else [[pytest.approx(np.mean(crossover)), 0.0]])


def test_half_powers_are_marked_on_the_curve(make_probed: MakeRun) -> None:
    results = make_probed(seeds=(0,))
    axes = frequency_plate(results).panels[-1].figure.axes[0]
    (mark,) = [line for line in axes.lines if line.get_label() == "None"]
    share = values(results, "none", "perturbation_spectrum_linf")
    half = values(results, "none", "perturbation_half_power_linf")[None][0]
    assert mark.get_xdata()[0] == pytest.approx(half)
    assert mark.get_ydata()[0] == pytest.approx(100 * np.interp(half, [*share], [one[0] for one in share.values()]))  # type: ignore[arg-type]
    assert sum(one[0] for one in share.values()) == pytest.approx(1)


def test_each_panel_stands_alone_and_nothing_is_drawn_of_nothing(make_probed: MakeRun, make_run: MakeRun) -> None:
    results = make_probed(seeds=(0,))
    plate = frequency_plate(kept(results, "perturbation_spectrum_l2", "perturbation_half_power_l2"))
    assert [panel.name for panel in plate.panels] == ["frequency-spectrum-l2"]
    assert "Hybrids" not in plate.caption
    assert "SEM" not in plate.caption
    assert frequency_table(kept(results, "low_pass_accuracy")) is None
    nothing = make_run(seeds=(0,))
    assert frequency_plate(nothing).absent
    assert frequency_table(nothing) is None
    assert len(frequency_csv(nothing)) == 1


def test_csv_has_every_row(make_probed: MakeRun) -> None:
    results = make_probed(seeds=(0, 1))
    header, *rows = frequency_csv(results)
    wanted = [row for row in results.metrics.to_pylist() if row["metric"] in METRICS]
    assert len(rows) == len(wanted) / 2
    column = header.index("mean")
    assert sum(float(row[column]) for row in rows) == pytest.approx(sum(row["value"] for row in wanted) / 2)
    crossover = [row for row in rows if row[2] == "hybrid_crossover"]
    assert {row[header.index("cycles_per_image")] for row in crossover} == {""}
