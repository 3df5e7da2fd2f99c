"""The table of twins says the numbers of the metrics, each variant once, recorded trials last."""

import pyarrow as pa

from neuroprior.experiment.results import METRICS_SCHEMA
from neuroprior.report.tables import NOT_MEASURED
from neuroprior.report.twins_table import twins_table

from .conftest import MakeRun


def metrics(*rows: tuple[str, str, float, int]) -> pa.Table:
    return pa.Table.from_pylist(
        [dict(condition=c, seed=s, metric=m, tap=None, x=None, value=v, n=10) for c, m, v, s in rows],
        schema=METRICS_SCHEMA,
    )


ROWS = (
    ("neural_data", "similarity_to_truth", 0.2845, 0),
    ("neural_data", "similarity_to_truth_oracle", 0.7453, 0),
    ("neural_model", "similarity_to_truth", 0.9199, 0),
    ("neural_model", "similarity_to_truth_oracle", 0.9125, 0),
    ("neural_model", "twin_correlation", 0.7779, 0),
    ("neural_model", "twin_single_trial_correlation", 0.6326, 0),
    ("neural_model@twin=no_shifter", "similarity_to_truth", 0.8437, 0),
)


def test_each_variant_has_its_numbers(make_run: MakeRun) -> None:
    table = twins_table(make_run(conditions=("none", "neural_model"), metrics=metrics(*ROWS)))
    assert table is not None
    assert table.header[1:3] == ("Training images: r with the true S", "Oracle images: r with the true S")
    assert table.rows == (
        ("Neural (model)", "0.920", "0.912", "0.778", "0.633"),
        ("Neural (model) twin no_shifter", "0.844", NOT_MEASURED, NOT_MEASURED, NOT_MEASURED),
        ("Recorded responses", "0.284", "0.745", NOT_MEASURED, NOT_MEASURED),
    )
    assert "n = 1 seed, no spread" in table.caption


def test_several_fits_have_a_spread(make_run: MakeRun) -> None:
    again = ("neural_model", "similarity_to_truth", 0.9223, 1)
    table = twins_table(make_run(conditions=("neural_model",), metrics=metrics(*ROWS, again)))
    assert table is not None
    assert table.rows[0][1] == "0.921 ± 0.001"
    assert "Mean ± SEM over seeds (ddof 1), n = 1 to 2 seeds" in table.caption


def test_a_run_without_simulated_twins_has_no_such_table(make_run: MakeRun) -> None:
    assert twins_table(make_run()) is None
