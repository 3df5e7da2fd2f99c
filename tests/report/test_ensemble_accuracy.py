"""Accuracy that an ensemble of attacks leaves at a radius: the numbers of the rows, and whose strength it is."""

from dataclasses import replace

import numpy as np
import pytest

from neuroprior.report.further import ATTACKED, ensemble_table, measure_csv

from .conftest import MakeRun


@pytest.mark.parametrize(("measure", "columns"), [(ATTACKED[0], 2), (ATTACKED[1], 3)], ids=("linf", "l2"))
def test_the_table_has_the_rows_numbers(make_probed: MakeRun, make_run: MakeRun, measure, columns: int) -> None:
    made = make_probed(seeds=(0, 1))
    results = replace(made, recipe_yaml=made.recipe_yaml + "\nensemble: {strength: quick}\n")
    table = ensemble_table(results, measure)
    assert table is not None
    assert "Strength: quick, with fewer steps" in table.caption
    assert "Misclassified before any attack, of each network's images: " in table.caption
    assert "did not hold when checked again, and do not count: 0." in table.caption
    assert len(table.header) == columns + 2
    assert "200 test images" in table.caption
    blur = [
        row["value"]
        for row in results.metrics.to_pylist()
        if (row["condition"], row["metric"]) == ("blur", measure.metric)
    ]
    by_seed = 100 * np.array(blur).reshape(2, columns)
    sem = by_seed.std(0, ddof=1) / np.sqrt(2)
    wanted = [f"{mean:.1f} ± {spread:.1f}" for mean, spread in zip(by_seed.mean(0), sem, strict=True)]
    assert list(table.rows[-1]) == ["Blur σ 1 px", *wanted, "2"]
    assert len(measure_csv(results, measure)) == 1 + 5 * columns
    assert ensemble_table(make_run(seeds=(0,)), measure) is None


def test_whole_levels_of_eight_bits_are_written_as_such() -> None:
    assert [ATTACKED[0].column(x).split("\N{NO-BREAK SPACE}")[-1] for x in (8 / 255, 0.00784, 0.001, 0.004)] == [
        *("8/255", "2/255", "0.001", "0.004")
    ]
    assert ATTACKED[1].column(0.5).endswith("0.5")
