"""From a pilot to a plan: the extrapolation against mice whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest

from neuroprior.recordings import STILL, Noise, packaged_photographs, plan_recording, simulate_scan
from neuroprior.recordings.pilot import _error, _fitted, _products, _shares
from neuroprior.similarity import (
    align_matrices,
    centered_cosine,
    oracle_similarity,
    oracle_trials,
    pair_correlation,
)
from neuroprior.types import InputError

SHOWN = packaged_photographs(n_train=2, n_oracle=50)
ORACLE = SHOWN.ids[2:]
PAIRS = [(h, k) for h in range(3) for k in range(h)]


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
    return plan_recording([record(400, 10).scan], n_splits=4)


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
    low, high = plan.interval(neurons, repeats, scans)
    assert low < r < high
    assert plan.correlation(neurons, repeats, scans) == pytest.approx(r, abs=0.08 if neurons <= 400 else 0.15)


@pytest.mark.parametrize("snr", [0.2, 0.5])
def test_what_comes_of_mice_that_run_and_look_about(snr):
    """Behaviour, gaze and shared noise as they are by default; the truth: other sessions, less what they lack."""

    def session(number: int, neurons: int):
        return simulate_scan(SHOWN, ORACLE, n_neurons=neurons, session=number, seed=6, snr_median=snr).scan

    many = [oracle_trials(session(20 + h, 1000)) for h in range(3)]
    matrices = {}
    for n in (100, 400, 1000):
        parts = [(trials[:, :n], images, weights[:n]) for trials, images, weights in many]
        _, matrices[n] = align_matrices([oracle_similarity(*part) for part in parts])
    above = np.triu_indices(len(ORACLE), 1)
    one = float(np.mean([pair_correlation(matrices[1000][h][above], matrices[1000][k][above]) for h, k in PAIRS]))
    reliable = 2 * one / (1 + one)
    plans = [plan_recording([session(40 + h, 400)], n_splits=2, seed=h) for h in range(3)]
    within = 0
    for n, own in matrices.items():
        rest = [np.delete(matrices[1000], h, axis=0).mean(axis=0)[above] for h in range(3)]
        came = np.mean([pair_correlation(own[h][above], rest[h]) for h in range(3)]) / np.sqrt(reliable)
        assert np.mean([made.correlation(n, 10) for made in plans]) == pytest.approx(came, abs=0.08)
        within += sum(low < came < high for low, high in (made.interval(n, 10) for made in plans))
    assert within >= 7  # of 9


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
    assert high - low < 0.3
    assert plan.interval(1200, 10, 8)[0] > low


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_planned_from_noise(seed):
    scan = record(120, 8).scan
    noise = np.random.default_rng(seed).gamma(1.0, size=scan.responses.shape).astype(np.float32)
    with pytest.raises(InputError, match="standard errors above images permuted: too little to tell"):
        plan_recording([replace(scan, responses=noise)], seed=seed)


def test_a_weak_but_true_pilot_is_planned_from():
    """Its halves agree by less than three times the spread of one split's permutations."""
    weak = simulate_scan(SHOWN, ORACLE, n_neurons=300, n_repeats=10, session=1, seed=5, snr_median=0.2).scan
    made = plan_recording([weak], n_splits=2)
    low, high = made.interval(300, 10)
    assert 0 < low < made.correlation(300, 10) < high < 1


def test_products_are_means_over_trials_that_are_or_are_not_the_same():
    """The slow twin of the closed form."""
    drawn = np.random.default_rng(0).standard_normal((2, 3, 2, 3)).astype(np.float32)
    x = drawn + drawn.transpose(2, 3, 0, 1)
    seen: list[list[float]] = [[], [], []]
    for t, s, u, v in np.ndindex(3, 3, 3, 3):
        seen[(t == u) + (s == v)].append(float(x[0, t, 1, s] * x[0, u, 1, v]))
    assert _products(x)[:, 0, 1] == pytest.approx([np.mean(kind) for kind in seen], abs=1e-5)
    assert sum(_shares(3) * [len(seen[0]) / 36, len(seen[1]) / 36, len(seen[2]) / 9]) == pytest.approx(1)


@pytest.mark.parametrize("exponent", [1.0, 0.5])
def test_the_law_is_recovered_from_its_own_covariances(exponent):
    n = np.array([25.0, 50.0, 100.0, 200.0])
    private = np.array([400, 1000, 2000]) * n[:, None] ** -np.array([1, exponent, exponent])
    between = np.broadcast_to([1, 1.3, 2.0], private.shape)
    law = _fitted(n, 0.01 * np.stack([between, between + private], axis=1))
    assert law == pytest.approx(np.array([[1, 400, 1], [1.3, 1000, exponent], [2, 2000, exponent]]), rel=1e-6)
    q = [1 + 400 / 800, 1.3 + 1000 * 800**-exponent, 2 + 2000 * 800**-exponent]
    assert _error(law, 800, 4) == pytest.approx(float(_shares(4) @ q) - 1)


def test_far_is_beyond_four_times_the_pilots_neurons(plan):
    assert not plan.far(4 * plan.n_neurons)
    assert plan.far(4 * plan.n_neurons + 1)


def test_what_cannot_be_planned_from():
    with pytest.raises(InputError, match="a plan needs 10, so that halves can be compared"):
        plan_recording([record(90, 3).scan])
    with pytest.raises(InputError, match="30 neurons with a weight above 0; a plan needs 80"):
        plan_recording([record(30, 4).scan])
    with pytest.raises(InputError, match="scan plan: no scan given"):
        plan_recording([])


def test_numbers_out_of_range(plan):
    with pytest.raises(InputError, match="repeats is 0; it must be 1 or more"):
        plan.correlation(100, 0)
    with pytest.raises(InputError, match=r"aim is 1\.0; a correlation to reach lies above 0 and below 1"):
        plan.scans_for(1.0, 100, 5)
