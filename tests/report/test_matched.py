"""Matched clean accuracy: a condition on the line of blur gains nothing, and nothing is extrapolated."""

from dataclasses import replace

import pyarrow as pa
import pytest

from neuroprior.experiment.results import METRICS_SCHEMA, RunResults
from neuroprior.report.matched import expected_at, gains, matched_csv, matched_table

from .conftest import MakeRun, card_of

LABELS = {"none": "None", "blur": "Blur σ 1 px", "blur@sigma=2": "Blur σ 2 px", "neural_model": "Neural (model)"}
# (clean, noisy), to which every seed adds its own luck, the same for all of its networks
POINTS = {"none": (0.9, 0.2), "blur": (0.8, 0.4), "blur@sigma=2": (0.6, 0.5)}


def run_of(make_run: MakeRun, neural: tuple[float, float], seeds: tuple[int, ...] = (0, 1, 2, 3)) -> RunResults:
    rows = [
        dict(condition=name, seed=seed, metric="noise_accuracy", tap=None, x=x, value=y + 0.01 * seed, n=500)
        for name, point in {**POINTS, "neural_model": neural}.items()
        for seed in seeds
        for x, y in zip((0.0, 0.15), point, strict=True)
    ]
    cards = [card_of(name, label, "", "no target") for name, label in LABELS.items()]
    return make_run(seeds=(0,), cards=cards, metrics=pa.Table.from_pylist(rows, schema=METRICS_SCHEMA))


def test_the_line_is_straight_between_neighbours_and_ends_at_its_ends() -> None:
    line = [*POINTS.values()]
    assert expected_at(line, 0.85) == pytest.approx(0.3)
    assert expected_at(line, 0.7) == pytest.approx(0.45)
    assert expected_at(line[::-1], 0.7) == pytest.approx(0.45)  # in whatever order
    assert expected_at(line, 0.9) == pytest.approx(0.2)
    assert expected_at(line, 0.91) is None
    assert expected_at(line, 0.59) is None


def test_where_the_line_bends_down_its_hull_counts() -> None:
    assert expected_at([(0.6, 0.5), (0.7, 0.2), (0.8, 0.3)], 0.7) == pytest.approx(0.4)


def test_a_condition_on_the_line_gains_nothing_and_one_above_it_gains_its_height(make_run: MakeRun) -> None:
    (on,) = gains(run_of(make_run, (0.85, 0.3)))
    assert on.gain is not None
    assert on.gain.mean == pytest.approx(0)
    assert on.gain.n == 4
    (above,) = gains(run_of(make_run, (0.7, 0.5)))
    assert above.gain is not None
    assert above.gain.mean == pytest.approx(0.05)
    # The luck that a seed gives all of its networks is no gain and no spread: the line is each seed's own.
    assert above.gain.low == pytest.approx(0.05)
    assert above.gain.high == pytest.approx(0.05)


@pytest.mark.parametrize(("clean", "word"), [(0.95, "above"), (0.5, "below")])
def test_outside_the_range_it_says_so_and_gives_no_number(make_run: MakeRun, clean: float, word: str) -> None:
    results = run_of(make_run, (clean, 0.6))
    (one,) = gains(results)
    assert one.gain is None
    table = matched_table(results)
    assert table is not None
    assert table.rows == (("Neural (model)", f"outside the range (4 {word})"),)
    assert "matched clean accuracy" in table.caption
    assert "no seed is inside it" in table.caption
    header, row = matched_csv(results)
    assert dict(zip(header, row, strict=True))["gain_mean"] == ""


def test_only_the_controls_that_a_seed_has_make_its_line(make_run: MakeRun) -> None:
    whole = run_of(make_run, (0.7, 0.5))
    lost = [row for row in whole.metrics.to_pylist() if (row["condition"], row["seed"]) != ("blur@sigma=2", 3)]
    metrics = pa.Table.from_pylist(lost, schema=METRICS_SCHEMA)
    (one,) = gains(replace(whole, metrics=metrics))
    assert one.gain is not None
    assert (one.gain.n, one.below) == (3, 1)
    table = matched_table(replace(whole, metrics=metrics))
    assert table is not None
    assert table.rows[0][1].endswith("(n = 3; 1 below)")


def test_one_seed_has_no_interval(make_run: MakeRun) -> None:
    table = matched_table(run_of(make_run, (0.7, 0.5), seeds=(0,)))
    assert table is not None
    assert table.rows == (("Neural (model)", "+5.0"),)
    assert "one seed has no interval" in table.caption


def test_without_a_blur_there_is_no_line(make_run: MakeRun) -> None:
    assert matched_table(make_run(conditions=("none", "neural_model"))) is None
    assert matched_table(make_run(unfinished=("blur",))) is None
