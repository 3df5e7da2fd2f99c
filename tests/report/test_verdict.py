"""The verdict says what the intervals allow, whichever way it falls."""

import math

import pytest

from neuroprior.report.verdict import difference, verdict

from .conftest import MakeRun


def _seeds(values: list[float], first: int = 0) -> dict[int, float]:
    return dict(enumerate(values, first))


def test_interval_is_paired_over_common_seeds() -> None:
    # differences -1, -1.5, -0.5: mean -1, s = 0.5, t_{0.975, 2} = 4.302653
    gap = difference(_seeds([1.0, 2.0, 3.0]), _seeds([2.0, 3.5, 3.5]))
    assert gap.paired
    assert (gap.mean, gap.low, gap.high) == pytest.approx((-1, -1 - 1.2420689, -1 + 1.2420689), rel=1e-6)
    assert gap.n == "n = 3 seeds, paired"


def test_interval_is_welchs_without_common_seeds() -> None:
    # against the published form: equal n and equal variance give nu = 2 (n - 1) = 4, t = 2.776445
    gap = difference(_seeds([1.0, 2.0, 3.0]), _seeds([2.0, 3.0, 4.0], first=10))
    assert not gap.paired
    half = 2.7764451 * math.sqrt(1 / 3 + 1 / 3)
    assert gap.mean == -1.0
    assert (gap.low, gap.high) == pytest.approx((-1 - half, -1 + half), rel=1e-6)


def test_interval_is_antisymmetric_and_absent_for_one_seed() -> None:
    for first in (0, 7):
        a, b = _seeds([0.1, 0.4, 0.2]), _seeds([0.3, 0.35], first)
        there, back = difference(a, b), difference(b, a)
        assert there.low is not None
        assert back.high is not None
        assert there.low == pytest.approx(-back.high)
    assert difference(_seeds([0.9]), a).low is None
    assert difference(_seeds([0.9], first=5), a).low is None


def test_higher_and_no_clear_difference_follow_from_the_numbers(make_run: MakeRun) -> None:
    said = " ".join(verdict(make_run()))
    assert "30.8 ± 0.9 % and None 16.7 ± 0.9 %: higher (+14.2 points" in said
    assert "Shuffle 13.8 ± 0.9 %: higher" in said
    assert "Blur σ 1 px 32.7 ± 0.9 %: no clear difference" in said
    # -7, -2 and -7 points seed by seed
    assert "On clean images, Neural (model) reaches 59.3 ± 0.9 % and None 64.7 ± 0.9 %: no clear difference" in said


def test_it_begins_with_what_came_out(make_run: MakeRun) -> None:
    lead = verdict(make_run())[0]
    assert lead.startswith("In this run, at the highest noise (σ = 0.15), Neural (model) kept 30.8 ± 0.9 %, more than ")
    more, _, less = lead.partition("; no more than ")
    assert "None" in more
    assert "Shuffle" in more
    assert "Blur" in less


def test_one_seed_is_no_verdict(make_run: MakeRun) -> None:
    said = verdict(make_run(seeds=(4,)))
    assert said[0].endswith("One seed each: this proves nothing yet.")
    assert said[1].startswith("No verdict where n = 1 seed")
    assert not any(word in sentence for sentence in said for word in ("higher", "lower", "clear", "±", "Welch"))
    assert "500 test images alone leave a standard error of up to 2.2 points" in said[-1]  # 50 / sqrt(500) = 2.24


def test_what_was_not_run_is_said(make_run: MakeRun) -> None:
    said = " ".join(verdict(make_run(conditions=("none", "neural_model", "shuffle"), unfinished=("shuffle",))))
    assert "This run has no blur control" in said
    assert "Shuffle has no measurement" in said
    assert "higher (+14.2 points" in said
    assert "cannot speak" in verdict(make_run(conditions=("none", "blur")))[0]
    assert "nothing to compare" in verdict(make_run(unfinished=("neural_model",)))[0]
