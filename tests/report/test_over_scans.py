"""Models and controls beside recordings: the table's numbers are the scans', and a page shows what the run has."""

import csv
import dataclasses
import io
import json

import numpy as np
import pytest

from neuroprior.recordings import packaged_photographs, scan_stability, simulate_scan
from neuroprior.report.over_scans import ceiling_table, nearness, over_scans_csv, over_scans_table
from neuroprior.report.page import render_page, write_figures, write_report
from neuroprior.report.stability_page import stability_json, write_stability
from neuroprior.report.stability_plates import fluctuations_plate, recorded_plate, scatter_plate
from neuroprior.similarity import lowpass_target, pixel_target, target_from_population

from .conftest import MakeRun

SHOWN = packaged_photographs(n_train=2, n_oracle=24)
ORACLE = SHOWN.select(SHOWN.ids[2:])


@pytest.fixture(scope="module")
def mice():
    return [
        simulate_scan(SHOWN, ORACLE.ids, n_neurons=80, n_repeats=4, seed=1, animal=k, name=f"mouse{k}")
        for k in range(3)
    ]


@pytest.fixture(scope="module")
def found(mice):
    models = {
        "pixel_raw": pixel_target(ORACLE, threshold=None),
        "lowpass": lowpass_target(ORACLE),
        "neural_model": [target_from_population(mouse.truth.select(ORACLE.ids), ORACLE) for mouse in mice],
    }
    return scan_stability([mouse.scan for mouse in mice], models)


def test_the_brains_model_comes_first_and_its_difference_is_of_each_scans_r(found):
    rows = {one.name: one for one in nearness(found)}
    assert next(iter(rows)) == "neural_model"
    r = found.correlations()
    for name, one in rows.items():
        assert one.r == pytest.approx(r[name])
        if name == "neural_model":
            assert (one.paired, one.bootstrap, one.size) == (None, None, None)
            continue
        gaps = np.array(r["neural_model"]) - np.array(r[name])
        assert one.paired.mean == pytest.approx(gaps.mean())
        assert one.paired.n == 3
        if name != "mean of the other scans":
            assert one.bootstrap[0] < gaps.mean() < one.bootstrap[1]


def test_the_truth_of_the_neurons_is_nearer_than_blurred_pixels_and_the_interval_says_so(found):
    (one,) = [one for one in nearness(found) if one.name == "lowpass"]
    assert one.bootstrap[0] > 0


def test_one_scan_has_no_interval_over_animals_and_the_table_says_so(mice):
    single = scan_stability([mice[0].scan], {"twin": target_from_population(mice[0].truth.select(ORACLE.ids), ORACLE)})
    table = over_scans_table(single)
    assert table.rows[0][0] == "twin"
    assert "nothing is said of other animals" in table.caption
    assert all(row[-2:] == ("\N{EN DASH}", "\N{EN DASH}") for row in table.rows)
    assert next(row for row in table.rows if row[0] == "Single trials, apart from it")[4].startswith("[")


def test_without_a_model_the_other_scans_are_compared_with_single_trials(mice):
    rows = nearness(scan_stability([mouse.scan for mouse in mice]))
    assert rows[0].name == "mean of the other scans"


def test_nothing_to_compare_is_no_table(mice):
    few = simulate_scan(SHOWN, ORACLE.ids, n_neurons=30, n_repeats=2, name="few")
    found = scan_stability([few.scan])
    assert over_scans_table(found) is None
    assert len(over_scans_csv(found)) == 1
    assert ceiling_table(found) is None


def test_csv_and_table_say_the_same(found):
    rows = list(
        csv.DictReader(io.StringIO("\n".join(",".join(f'"{c}"' for c in row) for row in over_scans_csv(found))))
    )
    table = over_scans_table(found)
    assert [row["label"] for row in rows] == [row[0] for row in table.rows]
    for line, row in zip(rows, table.rows, strict=True):
        assert float(row[1].replace("\N{MINUS SIGN}", "-")) == pytest.approx(float(line["r_mean"]), abs=0.0051)
        assert line["n_scans"] == "3"
        assert line["n_images"] == "24"


def test_a_runs_page_shows_its_recordings(found, make_run: MakeRun):
    results = dataclasses.replace(make_run(), stability=found)
    page = render_page(results)
    for heading in ("The recordings", "Figure 1 A, B.", "Figure 1 C.", "Figure 1 D.", "The paper&#39;s Figure 3"):
        assert heading in page
    write_report(results)
    folder = results.folder / "report"
    assert (folder / "scans.csv").read_text().startswith("compared,label,against,")
    assert {"matrix-0.svg", "fluctuations.svg", "scatter-0.svg", "schematic.svg"} <= {
        file.name for file in (folder / "figures").iterdir()
    }


def test_why_there_is_none_is_said_in_one_line(make_run: MakeRun):
    why = "scan m: no image is shown twice"
    results = dataclasses.replace(make_run(), stability=why)
    for maker in (recorded_plate, fluctuations_plate, scatter_plate):
        assert maker(results).absent == f"{why}."
    unfinished = dataclasses.replace(make_run(), missing=("stability",))
    assert "The step that looks at the recordings is not finished." in render_page(unfinished)
    assert "The recordings" not in render_page(make_run())


@pytest.mark.parametrize("n_oracle", [2, 3])
def test_a_handful_of_images_has_no_interval_and_still_a_report(tmp_path, make_run: MakeRun, n_oracle):
    few = packaged_photographs(n_train=2, n_oracle=n_oracle)
    mouse = simulate_scan(few, few.ids[2:], n_neurons=30, n_repeats=4, name="few")
    found = scan_stability([mouse.scan], truths=[mouse.truth])
    assert all(one.bootstrap is None for one in nearness(found))
    assert "nan" not in str(over_scans_csv(found))
    write_report(dataclasses.replace(make_run(), stability=found))
    write_stability(found, tmp_path)


def test_the_mean_of_the_others_has_no_interval_over_scans(mice):
    """Each scan is in the mean of every other: of two, both numbers are one."""
    for n in (2, 3):
        rows = nearness(scan_stability([mouse.scan for mouse in mice[:n]]))
        assert rows[0].name == "mean of the other scans"
        for one in rows[1:]:
            assert one.bootstrap is None
            assert (one.paired.low, one.paired.high, one.paired.n) == (None, None, n)


def test_a_model_that_does_not_vary_is_a_dash_and_no_number(mice, tmp_path):
    flat = pixel_target(ORACLE, threshold=None)
    flat = dataclasses.replace(flat, matrix=np.eye(len(ORACLE), dtype=np.float32))
    found = scan_stability([mouse.scan for mouse in mice], {"flat": flat})
    assert [row[1] for row in over_scans_table(found).rows if row[0] == "flat"] == ["\N{EN DASH}"]
    assert "nan" not in str(over_scans_csv(found))
    json.dumps(stability_json(found), allow_nan=False)
    assert "flat: r = not defined" in write_stability(found, tmp_path)[0].read_text(encoding="utf-8")


def test_a_published_folder_has_no_picture_of_data(found, make_run: MakeRun, tmp_path):
    written = write_figures(dataclasses.replace(make_run(), stability=found), tmp_path, ["svg"])
    assert not any(file.name.startswith(("schematic", "noise-examples", "pairs")) for file in written)
