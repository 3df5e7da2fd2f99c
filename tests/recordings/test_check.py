"""The report card of a recording: each fault is found where it was put, and nowhere else."""

import dataclasses

import numpy as np
import pytest

from neuroprior.recordings import Behaviour, Noise, check_scan, packaged_photographs, simulate_scan
from neuroprior.recordings.alignment import _NO_LAG, LAGS, _difference, _fit
from neuroprior.recordings.check import _signal_participation
from neuroprior.types import Scan, Stimuli


@pytest.fixture(scope="module")
def scan() -> Scan:
    shown = packaged_photographs(n_train=60, n_oracle=20)
    return simulate_scan(shown, shown.ids[60:], n_neurons=120, n_repeats=6, seed=4).scan


def changed(scan: Scan, **fields) -> Scan:
    return dataclasses.replace(scan, **fields)


def test_a_sound_scan_is_sound_and_counted(scan):
    found = check_scan(scan)
    assert found.sound
    assert found.faults == ()
    assert (found.n_trials, found.n_neurons, found.n_images, found.image_size) == (180, 120, 80, (36, 64))
    oracle = found.tiers["oracle"]
    assert (oracle.images, oracle.trials, oracle.least, oracle.most) == (20, 120, 6, 6)
    assert "validation" not in found.tiers
    assert LAGS[int(found.alignment.argmax())] == 0
    assert [channel.name for channel in found.behaviour][-2:] == ["pupil x", "pupil y"]
    assert all(channel.tracked == 1 for channel in found.behaviour)


def test_neurons_that_say_nothing_or_say_it_twice(scan):
    responses = scan.responses.copy()
    responses[:, 3] = 0
    responses[:, 9] = 2
    responses[:, [50, 70]] = responses[:, [7, 7]]
    found = check_scan(changed(scan, responses=responses))
    assert found.silent.tolist() == [3]
    assert found.constant.tolist() == [9]
    assert found.duplicated == ((7, 50), (7, 70))
    assert found.faults == (
        "1 of 120 neurons never fire (3); drop them",
        "1 of 120 neurons always give the same response (9); drop them",
        "2 of 120 neurons are copies of another (50 as 7, 70 as 7); keep one of each",
    )
    assert found.snr is not None
    assert found.snr[3] == 0


@pytest.mark.parametrize(("lag", "says"), [(1, "1 trial after"), (-2, "2 trials before")])
def test_responses_that_slipped_against_their_images(scan, lag, says):
    found = check_scan(changed(scan, responses=np.roll(scan.responses, lag, axis=0)))
    (fault,) = found.faults
    assert fault.startswith(f"all trials: responses come {says} their images")
    assert LAGS[int(found.alignment.argmax())] == lag


@pytest.mark.parametrize("part", [0.2, 0.5, 0.8])
def test_a_frame_lost_on_the_way_shifts_what_comes_after(scan, part):
    responses = scan.responses.copy()
    cut = int(part * len(responses))
    responses[cut:] = np.roll(responses[cut:], 1, axis=0)
    (fault,) = check_scan(changed(scan, responses=responses)).faults
    assert fault.startswith("trials ")
    first, last = int(fault.split()[1]), int(fault.split()[3].rstrip(":"))
    assert abs(first - cut) < 12
    assert last > 0.9 * len(responses)
    assert "1 trial after their images" in fault


@pytest.fixture(scope="module")
def long() -> Scan:
    """600 trials in random order, 400 of repeated images."""
    shown = packaged_photographs(n_train=200, n_oracle=50)
    return simulate_scan(shown, shown.ids[200:], n_neurons=150, n_repeats=8, seed=4).scan


def misaligned(scan: Scan, parts: list[tuple[int, int, int | None]]) -> Scan:
    """Responses from first to before last come so many trials late, or are shuffled."""
    responses = scan.responses.copy()
    for first, end, lag in parts:
        part = scan.responses[first:end]
        mixed = np.random.default_rng(0).permutation(len(part)) if lag is None else np.roll(np.arange(len(part)), lag)
        responses[first:end] = part[mixed]
    return changed(scan, responses=responses)


@pytest.mark.parametrize(
    "parts",
    [
        [(200, 400, 1)],
        [(240, 360, 1)],
        [(0, 60, -2)],
        [(200, 400, 1), (400, 600, 2)],
        [(100, 200, 1), (300, 400, 1), (500, 600, 1)],
        [(200, 400, 8)],
        [(300, 600, 8)],
        [(300, 600, None)],
        [(100, 200, None), (400, 600, 3)],
    ],
    ids=str,
)
def test_each_part_that_slipped_is_found_with_its_place_lag_and_numbers(long, parts):
    sound = float(check_scan(long).alignment[LAGS.index(0)])
    found = check_scan(misaligned(long, parts))
    told = [None if lag is None or abs(lag) > 5 else lag for _, _, lag in parts]
    assert [shift.lag for shift in found.shifts] == told
    for shift, (first, end, _) in zip(found.shifts, parts, strict=True):
        assert shift.first == pytest.approx(first, abs=10)
        assert shift.last == pytest.approx(end - 1, abs=10)
        assert shift.there == pytest.approx(sound, rel=0.25)
        assert abs(shift.as_they_stand) < 0.25 * sound
    assert len(found.faults) == len(parts)
    for fault, lag in zip(found.faults, told, strict=True):
        assert ("fit no image's repeats" in fault) == (lag is None)


def test_what_the_faults_say_to_do_mends_the_scan(long):
    broken = misaligned(long, [(200, 400, 1), (400, 600, 2)])
    mended = broken.responses.copy()
    for shift in check_scan(broken).shifts:
        part = broken.responses[shift.first : shift.last + 1]
        mended[shift.first : shift.last + 1] = np.roll(part, -shift.lag, axis=0)
    assert check_scan(changed(broken, responses=mended)).sound


@pytest.mark.parametrize("seed", range(5))
def test_weak_signals_and_drifting_behaviour_are_no_shifts(seed):
    shown = packaged_photographs(n_train=30, n_oracle=20)
    behaviour = Behaviour() if seed % 2 else Behaviour(1.0, 0.8, 3.0)
    weak = simulate_scan(
        shown,
        shown.ids[30:],
        n_neurons=60 + 40 * (seed % 3),
        n_repeats=2 + 2 * seed,
        seed=seed,
        snr_median=(0.05, 0.1, 0.2, 0.5)[seed % 4],
        behaviour=behaviour,
        noise=Noise(shared=0.6),
    ).scan
    assert check_scan(weak).shifts == ()


def test_noise_in_random_order_is_not_said_to_come_in_one_order(scan):
    noise = np.random.default_rng(0).gamma(1.0, size=scan.responses.shape).astype(np.float32)
    found = check_scan(changed(scan, responses=noise))
    assert not any("alike at other lags too" in note for note in found.notes)
    assert found.faults[0].startswith("two trials of one image are no more alike than trials of two")


def test_the_fit_of_a_response_is_its_cosine_with_the_images_other_trials():
    """The slow twin: each response against means of unit vectors from which its own trial is left out."""
    rng = np.random.default_rng(2)
    unit = rng.standard_normal((60, 7)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    trials = np.arange(0, 60, 2)
    image = rng.permutation(np.arange(30) % 5)
    state = np.where(np.arange(30) < 12, LAGS.index(0), np.where(np.arange(30) < 20, _NO_LAG, LAGS.index(1)))
    fit = _fit(unit, trials, image, state)
    own = {t: int(trials[t]) + LAGS[state[t]] for t in range(30) if state[t] != _NO_LAG}
    for t, lag in ((3, 0), (3, 2), (15, -1), (25, 1), (25, 0), (0, 3)):
        row = int(trials[t]) + lag
        alike = []
        for k in range(5):
            rows = [r for s, r in own.items() if image[s] == k and (s != t or k != image[t]) and r != row]
            alike.append(float(unit[row] @ unit[rows].mean(axis=0)))
        others = [alike[k] for k in range(5) if k != image[t]]
        assert fit.alike[t, LAGS.index(lag)] == pytest.approx(alike[image[t]] - np.mean(others), abs=1e-5)


def test_images_in_one_order_tell_nothing_of_shifts():
    rng = np.random.default_rng(0)
    stimuli = Stimuli(np.array([f"image-{k}" for k in range(12)]), rng.integers(0, 256, (12, 4, 8), np.uint8))
    image = np.tile(np.arange(12), 8)
    responses = (rng.gamma(1.0, size=(12, 60))[image] + 0.3 * rng.random((96, 60))).astype(np.float32)
    found = check_scan(Scan("one order", stimuli, image, responses, np.full(96, "oracle")))
    assert found.sound
    assert any("whether responses slipped against their images cannot be told" in note for note in found.notes)


@pytest.mark.parametrize("n", [33, 77, 100])
def test_every_copy_is_found_wherever_it_stands(scan, n):
    responses = scan.responses[:, np.arange(n)].copy()
    responses[:, -1] = responses[:, 0]
    xyz = scan.neuron_xyz[:n]
    assert check_scan(changed(scan, responses=responses, neuron_xyz=xyz)).duplicated == ((0, n - 1),)


def test_responses_to_other_images_altogether(scan):
    mixed = np.random.default_rng(0).permutation(len(scan.responses))
    (fault,) = check_scan(changed(scan, responses=scan.responses[mixed])).faults
    assert fault.startswith("two trials of one image are no more alike than trials of two")


@pytest.mark.parametrize("repeats", [0, 1])
def test_without_repeats_reliability_is_not_known(scan, repeats):
    _, first = np.unique(scan.trial_image, return_index=True)
    kept = np.sort(first)
    fields = {
        name: getattr(scan, name)[kept] for name in ("trial_image", "responses", "tier", "behavior", "pupil_center")
    }
    if repeats == 0:
        fields["tier"] = np.full(len(kept), "train")
    found = check_scan(changed(scan, **fields))
    assert found.snr is None
    assert found.oracle is None
    assert np.isnan(found.signal_dimensions)
    assert found.faults[0].startswith("fewer than 2 oracle images have 2 or more trials")


def test_a_tracker_that_slept(scan):
    pupil = scan.pupil_center.copy()
    pupil[: len(pupil) * 3 // 4, 0] = np.nan
    behavior = scan.behavior.copy()
    behavior[:, 2] = 5
    found = check_scan(changed(scan, pupil_center=pupil, behavior=behavior))
    assert found.faults == (
        "running_speed is 5 on every trial; leave it out, or mend the tracker's export",
        "pupil x was tracked on 25 % of the trials; leave it out",
    )


def test_nothing_ever_changes(scan):
    found = check_scan(changed(scan, responses=np.zeros_like(scan.responses)))
    assert "120 of 120 neurons never fire (0, 1, 2, 3, 4, ...); drop them" in found.faults
    assert "no neuron's response ever changes; look at what was exported" in found.faults


def test_the_closed_form_is_the_mean_over_pairs():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((12, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    image = np.array([0, 1, 2, 0, 1, 1, 2, 0, 0, 3, 1, 2])
    same, other = [], []
    for i in range(12):
        for j in range(12):
            if i != j:
                (same if image[i] == image[j] else other).append(float(vectors[i] @ vectors[j]))
    assert _difference(vectors, image) == pytest.approx(np.mean(same) - np.mean(other), abs=1e-6)


def test_signal_dimensions_do_not_count_noise():
    rng = np.random.default_rng(1)
    image = np.repeat(np.arange(60), 20)
    signal = rng.standard_normal((60, 4)) @ np.linalg.qr(rng.standard_normal((200, 4)))[0].T
    noisy = (signal[image] + 0.15 * rng.standard_normal((1200, 200))).astype(np.float32)
    assert _signal_participation(noisy, image) == pytest.approx(4, abs=0.6)
    quiet = (signal[image] + 1e-6 * rng.standard_normal((1200, 200))).astype(np.float32)
    assert _signal_participation(noisy, image) == pytest.approx(_signal_participation(quiet, image), rel=0.1)


def test_a_session_too_short_to_slip_has_not_slipped():
    """Repeats that fit their images, and too few trials for any lag to be looked at: a card, no traceback."""
    rng = np.random.default_rng(0)
    images = np.tile(np.arange(3), 3)
    responses = (rng.gamma(1.0, size=(3, 200))[images] + 0.01 * rng.random((9, 200))).astype(np.float32)
    shown = Stimuli(np.array(["a", "b", "c"]), rng.integers(0, 256, (3, 4, 8), np.uint8))
    scan = Scan("short", shown, images, responses, np.array(["oracle"] * 9))
    assert check_scan(scan).shifts == ()
