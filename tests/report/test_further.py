"""Measures that a run has not made are absent."""

import pyarrow.compute as pc
import pytest

from neuroprior.report.further import ATTACK, FEW_SHOT, LINEAR_PROBE, Measure, measure_csv, measure_table

from .conftest import MakeRun


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
