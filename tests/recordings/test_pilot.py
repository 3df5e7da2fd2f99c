"""From a pilot to a plan: the extrapolation against mice whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest

from neuroprior.recordings import STILL, Noise, packaged_photographs, plan_recording, simulate_scan
from neuroprior.similarity import align_matrices, centered_cosine, oracle_similarity, oracle_trials
from neuroprior.types import InputError

SHOWN = packaged_photographs(n_train=2, n_oracle=50)
ORACLE = SHOWN.ids[2:]


def record(neurons: int, repeats: int, session: int = 0):
    return simulate_scan(
        SHOWN,
        ORACLE,
        n_neurons=neurons,
        n_repeats=repeats,
        session=session,
        seed=5,
        behaviour=STILL,
        noise=Noise(shared=0.0),
    )


@pytest.fixture(scope="module")
def plan():
    return plan_recording([record(400, 10).scan])


@pytest.fixture(scope="module")
def truth():
    """S of so many neurons of the animal that it is next to that of all."""
    many = record(4000, 2, session=9).truth_for("oracle")
    return dict(zip(many.image_ids.tolist(), range(len(many.image_ids)), strict=True)), centered_cosine(
        many.mean * many.weights
    )


@pytest.mark.parametrize(("neurons", "repeats", "scans"), [(100, 3, 1), (1200, 10, 1), (400, 5, 3)])
def test_what_is_predicted_is_what_comes(plan, truth, neurons, repeats, scans):
    row, s = truth
    given = [oracle_similarity(*oracle_trials(record(neurons, repeats, 20 + h).scan)) for h in range(scans)]
    ids, matrices = align_matrices(given)
    rows = [row[image] for image in ids.tolist()]
    above = np.triu_indices(len(rows), 1)
    r = np.corrcoef(matrices.mean(axis=0)[above], s[np.ix_(rows, rows)][above])[0, 1]
    assert plan.correlation(neurons, repeats, scans) == pytest.approx(r, abs=0.06)


def test_more_of_anything_is_nearer_the_truth(plan):
    assert plan.correlation(800, 10) >= plan.correlation(400, 10) > plan.correlation(400, 5)
    assert plan.correlation(400, 10, 4) > plan.correlation(400, 10)
    assert plan.error(400, 10, 4) == pytest.approx(plan.error(400, 10) / 4)


def test_the_scans_asked_for_reach_the_aim_and_one_less_does_not(plan):
    n = plan.scans_for(0.95, 100, 5)
    assert n > 1
    assert plan.correlation(100, 5, n) >= 0.95
    assert plan.correlation(100, 5, n - 1) < 0.95


def test_the_fit_is_near_what_was_measured(plan):
    measured = np.array([r for _, _, r in plan.measured])
    assert np.abs(measured - np.array(plan.fitted)).max() < 0.06


def test_the_interval_holds_what_other_images_would_have_given(plan):
    low, high = plan.interval(1200, 10)
    assert low < plan.correlation(1200, 10) < high
    assert high - low < 0.2
    assert plan.interval(1200, 10, 8)[0] > low


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_planned_from_noise(seed):
    scan = record(120, 8).scan
    noise = np.random.default_rng(seed).gamma(1.0, size=scan.responses.shape).astype(np.float32)
    with pytest.raises(InputError, match="two halves of the pilot agree no better than chance"):
        plan_recording([replace(scan, responses=noise)], seed=seed)


def test_what_cannot_be_planned_from():
    with pytest.raises(InputError, match="a plan needs 10, so that halves can be compared"):
        plan_recording([record(90, 3).scan])
    with pytest.raises(InputError, match="30 neurons with a weight above 0; a plan needs 80"):
        plan_recording([record(30, 4).scan])
    with pytest.raises(InputError, match="no pilot scan given"):
        plan_recording([])


def test_numbers_out_of_range(plan):
    with pytest.raises(InputError, match="repeats is 0; it must be 1 or more"):
        plan.correlation(100, 0)
    with pytest.raises(InputError, match=r"aim is 1\.0; a correlation to reach lies above 0 and below 1"):
        plan.scans_for(1.0, 100, 5)
