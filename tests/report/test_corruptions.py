"""Means over kinds and severities are those of the rows; errors are divided seed by seed."""

import dataclasses
import math

import numpy as np
import pyarrow as pa
import pytest

from neuroprior.experiment.results import METRICS_SCHEMA, RunResults
from neuroprior.report.corruption_plate import corruption_plate
from neuroprior.report.corruptions import (
    GROUPS,
    corruption_csv,
    corruption_curves,
    corruption_error_csv,
    corruption_table,
    kind_said,
    kinds_table,
)
from neuroprior.robustness import EXTRA_CORRUPTIONS, SEVERITIES, USUAL_CORRUPTIONS

from .conftest import CARDS, MakeRun


def without(results: RunResults, **named: object) -> RunResults:
    """The run without the rows that have all of these values."""
    rows = [
        row
        for row in results.metrics.to_pylist()
        if not all(row[name] in (value if isinstance(value, tuple) else (value,)) for name, value in named.items())
    ]
    return dataclasses.replace(results, metrics=pa.Table.from_pylist(rows, schema=METRICS_SCHEMA))


Measured = dict[tuple[str, int, str], list[float]]


def measured(results: RunResults) -> Measured:
    """Accuracies by condition, seed and kind, severities ascending."""
    found: Measured = {}
    for row in results.metrics.to_pylist():
        if row["metric"].startswith("corruption."):
            key = (row["condition"], row["seed"], row["metric"].removeprefix("corruption."))
            found.setdefault(key, []).append(row["value"])
    return found


def said(values: list[float]) -> str:
    """Mean and SEM of one value a seed, in percent, as a table has them."""
    return f"{100 * np.mean(values):.1f} ± {100 * np.std(values, ddof=1) / math.sqrt(len(values)):.1f}"


def test_groups_hold_every_usual_kind_once_in_its_order() -> None:
    assert tuple(kind for kinds in GROUPS.values() for kind in kinds) == USUAL_CORRUPTIONS
    assert [kind_said(kind) for kind in ("gaussian_noise", "jpeg_compression", "fog")] == [
        *("Gaussian noise", "JPEG compression", "fog")
    ]


def test_the_tables_numbers_are_those_of_the_rows(make_probed: MakeRun) -> None:
    results = make_probed()
    rows = measured(results)
    table, kinds, extra = (
        corruption_table(results),
        kinds_table(results),
        kinds_table(results, extra=True),
    )
    assert table is not None
    assert kinds is not None
    assert extra is not None
    assert table.header == (
        *(
            "Condition",
            "Noise",
            "Blur",
            "Weather",
            "Digital",
            "Mean corruption error",
            "Error relative to None",
            "Seeds",
        ),
    )
    blurs = [float(np.mean([rows["neural_model", seed, kind] for kind in GROUPS["Blur"]])) for seed in (0, 1, 2)]
    errors, ratios = [], []
    for seed in (0, 1, 2):
        mine, theirs = (
            np.array([1 - np.mean(rows[name, seed, kind]) for kind in USUAL_CORRUPTIONS])
            for name in ("neural_model", "none")
        )
        errors.append(float(mine.mean()))
        ratios.append(float((mine / theirs).mean()))
    row = table.rows[1]
    assert (row[0], row[2], row[5], row[6]) == ("Neural (model)", said(blurs), said(errors), said(ratios))
    assert table.rows[0][6] == "100.0 ± 0.0"  # `none` against itself, of the same seed
    assert [len(one.rows) for one in (kinds, extra)] == [15, 4]
    assert kinds.row_notes == tuple(group.lower() for group, members in GROUPS.items() for _ in members)
    fog = [float(np.mean(rows["shuffle", seed, "fog"])) for seed in (0, 1, 2)]
    assert dict(zip(kinds.header, kinds.rows[USUAL_CORRUPTIONS.index("fog")], strict=True))["Shuffle"] == said(fog)


def test_errors_are_divided_by_the_network_of_the_same_seed_and_by_no_other(make_probed: MakeRun) -> None:
    results = make_probed()
    rows = measured(results)
    table = corruption_table(without(results, condition="none", seed=2))
    assert table is not None
    assert table.rows[0][-1] == "2"
    assert table.rows[1][-2].endswith("(n = 2)")
    assert table.rows[1][-3] == said(  # its own error stays one of three seeds
        [
            float(np.mean([1 - np.mean(rows["neural_model", seed, kind]) for kind in USUAL_CORRUPTIONS]))
            for seed in (0, 1, 2)
        ]
    )
    for lacking in (without(results, condition="none"), without(results, metric="corruption.fog", condition="none")):
        other = corruption_table(lacking)
        assert other is not None
        assert "Error relative to None" not in other.header


def test_a_part_of_the_kinds_has_no_mean_error(make_probed: MakeRun) -> None:
    kept = ("corruption.fog", "corruption.pixelate", "corruption.spatter")
    results = make_probed(seeds=(0,), conditions=("none", "blur"))
    rows = [row for row in results.metrics.to_pylist() if row["metric"] in kept and row["x"] == 3]
    results = dataclasses.replace(results, metrics=pa.Table.from_pylist(rows, schema=METRICS_SCHEMA))
    table = corruption_table(results)
    assert table is not None
    assert table.header == ("Condition", "Weather", "Digital", "Seeds")
    assert len(corruption_error_csv(results)) == 1
    assert "severity 3, on 1,000 test images" in table.caption
    assert table.caption.endswith("n = 1 seed, no spread.")
    assert [panel.name for panel in corruption_plate(results).panels] == ["corruption-weather", "corruption-digital"]


def test_a_seed_that_lacks_a_severity_is_not_averaged_with_the_others(make_probed: MakeRun) -> None:
    results = without(make_probed(), condition="blur", seed=1, metric="corruption.snow", x=4.0)
    assert sorted(corruption_curves(results, "blur")) == [0, 2]
    assert sorted(corruption_curves(results, "none")) == [0, 1, 2]


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_the_plate_draws_the_groups_means(make_probed: MakeRun, seeds: tuple[int, ...]) -> None:
    results = make_probed(seeds=seeds)
    rows = measured(results)
    plate = corruption_plate(results)
    assert [panel.name for panel in plate.panels] == [f"corruption-{group.lower()}" for group in GROUPS]
    assert ("± SEM" in plate.caption) == (len(seeds) > 1)
    assert "1,000 test images" in plate.caption
    for panel, kinds in zip(plate.panels, GROUPS.values(), strict=True):
        axes = panel.figure.axes[0]
        drawn = {line.get_label(): line.get_ydata() for line in axes.lines}
        for name in CARDS:
            wanted = np.mean([rows[name, seed, kind] for seed in seeds for kind in kinds], axis=0)
            np.testing.assert_allclose(drawn[CARDS[name].label], 100 * wanted)
        assert len(axes.collections) == (5 if len(seeds) > 1 else 0)
        assert f"at severity {SEVERITIES[-1]}: None " in panel.alt
    assert len({panel.figure.axes[0].get_ylim() for panel in plate.panels}) == 1  # groups can be compared


def test_csv_has_every_row_and_none_without_a_measurement(make_probed: MakeRun, make_run: MakeRun) -> None:
    results = make_probed(seeds=(0, 1))
    header, *rows = corruption_csv(results)
    assert len(rows) == len(CARDS) * (len(USUAL_CORRUPTIONS) + len(EXTRA_CORRUPTIONS)) * len(SEVERITIES)
    total = sum(row["value"] for row in results.metrics.to_pylist() if row["metric"].startswith("corruption."))
    assert sum(float(row[header.index("accuracy_mean")]) for row in rows) == pytest.approx(total / 2)
    assert {row[2] for row in rows} == {"noise", "blur", "weather", "digital", "extra"}
    errors = corruption_error_csv(results)
    assert [row[0] for row in errors[1:]] == [*CARDS]
    assert float(errors[1][errors[0].index("error_relative_to_none_mean")]) == pytest.approx(1)
    nothing = make_run(seeds=(0,))
    assert corruption_table(nothing) is None
    assert kinds_table(nothing) is None
    assert corruption_plate(nothing).absent
    assert len(corruption_csv(nothing)) == len(corruption_error_csv(nothing)) == 1
