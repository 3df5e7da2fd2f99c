"""The simulated mouse: its reliability is what it says, and its cells see what Gabor cells see."""

import time

import numpy as np
import pytest

from neuroprior.recordings import (
    STILL,
    Behaviour,
    Noise,
    packaged_photographs,
    sessions,
    simulate_from_rates,
    simulate_scan,
)
from neuroprior.recordings.simulate.animal import draw_animal, stream
from neuroprior.recordings.simulate.behaviour import shifted
from neuroprior.reliability import scan_reliability, snr_weights
from neuroprior.similarity import centered_cosine
from neuroprior.types import InputError, Population, Stimuli

PRIVATE = {"behaviour": STILL, "noise": Noise(shared=0.0)}


@pytest.fixture(scope="module")
def shown():
    return packaged_photographs(n_train=80, n_oracle=20)


@pytest.fixture(scope="module")
def mouse(shown):
    return simulate_scan(shown, shown.ids[80:], n_neurons=150, n_repeats=7, seed=1)


def test_train_images_are_shown_once_and_oracle_images_repeatedly(shown, mouse):
    scan = mouse.scan
    assert scan.responses.shape == (80 + 20 * 7, 150)
    counts = np.bincount(scan.trial_image, minlength=100)
    np.testing.assert_array_equal(counts, [1] * 80 + [7] * 20)
    np.testing.assert_array_equal(scan.tier == "oracle", scan.trial_image >= 80)
    assert set(scan.tier.tolist()) == {"train", "oracle"}
    assert scan.stimuli.digest == shown.digest
    # shuffled: repeats of an image do not stand together
    assert np.mean(np.diff(scan.trial_image) == 0) < 0.1
    assert scan.behavior_names == ("pupil_dilation", "d_pupil_dilation", "running_speed")
    for measured in (scan.behavior, scan.pupil_center, mouse.gaze):
        assert measured is not None
        assert measured.std(axis=0).min() > 0
    assert (scan.responses >= 0).all()


def test_oracle_ids_may_stand_in_any_order_and_place(shown):
    chosen = shown.ids[[40, 3, 77]]
    scan = simulate_scan(shown, chosen, n_neurons=5).scan
    assert set(scan.trial_ids[scan.tier == "oracle"].tolist()) == set(chosen.tolist())


def test_same_seed_same_scan_another_seed_another_mouse(shown, mouse):
    again = simulate_scan(shown, shown.ids[80:], n_neurons=150, n_repeats=7, seed=1)
    np.testing.assert_array_equal(again.scan.responses, mouse.scan.responses)
    np.testing.assert_array_equal(again.scan.trial_image, mouse.scan.trial_image)
    np.testing.assert_array_equal(again.scan.behavior, mouse.scan.behavior)
    np.testing.assert_array_equal(again.scan.pupil_center, mouse.scan.pupil_center)
    np.testing.assert_array_equal(again.scan.neuron_xyz, mouse.scan.neuron_xyz)
    np.testing.assert_array_equal(again.truth.weights, mouse.truth.weights)
    other = simulate_scan(shown, shown.ids[80:], n_neurons=150, n_repeats=7, seed=2)
    assert abs(np.corrcoef(other.truth.weights, mouse.truth.weights)[0, 1]) < 0.3


def test_more_repeats_show_the_same_mouse_again(shown, mouse):
    longer = simulate_scan(shown, shown.ids[80:], n_neurons=150, n_repeats=9, seed=1)
    np.testing.assert_array_equal(longer.truth.mean, mouse.truth.mean)
    np.testing.assert_array_equal(longer.true_weights.snr, mouse.true_weights.snr)


def test_the_truth_is_what_the_trials_scatter_around(shown):
    mouse = simulate_scan(shown, shown.ids[80:], n_neurons=60, n_repeats=4000, **PRIVATE)
    oracle = np.flatnonzero(mouse.scan.tier == "oracle")
    oracle = oracle[np.argsort(mouse.scan.trial_image[oracle], kind="stable")]
    trials = mouse.scan.responses[oracle].reshape(20, 4000, 60).astype(np.float64)
    mean, variance = trials.mean(axis=1), trials.var(axis=1)
    rate = mouse.truth_for("oracle").mean.astype(np.float64)
    error = (mean - rate) / np.sqrt(variance / 4000)
    assert np.abs(error).mean() < 1  # 0.8 for a Gaussian
    # the noise variance is proportional to the rate, and its mean over the images is eta^2
    fano = mouse.true_weights.noise_variance / rate.mean(axis=0)
    assert np.median(variance / (fano * rate)) == pytest.approx(1, abs=0.05)
    assert np.median(variance.mean(axis=0) / mouse.true_weights.noise_variance) == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(mouse.true_weights.signal_variance, rate.var(axis=0), rtol=1e-5)


def test_the_true_weights_are_spread_as_asked_for(shown):
    mouse = simulate_scan(shown, shown.ids[80:], n_neurons=2000, n_repeats=2, **PRIVATE)
    logs = np.log(mouse.true_weights.snr)
    assert np.exp(np.median(logs)) == pytest.approx(0.5, rel=0.05)
    assert logs.std() == pytest.approx(0.6, rel=0.05)
    np.testing.assert_allclose(mouse.truth.weights, mouse.true_weights.snr, rtol=1e-6)
    same = simulate_scan(shown, shown.ids[80:], n_neurons=20, n_repeats=2, snr_median=0.8, snr_spread=0.0, **PRIVATE)
    np.testing.assert_allclose(same.true_weights.snr, 0.8)


def test_behaviour_takes_some_of_the_reliability_drawn_and_adds_none(shown):
    """What gain and gaze do to repeats is noise: most neurons have it within what was drawn, none beyond."""
    options = {"n_neurons": 500, "n_repeats": 2}
    drawn = simulate_scan(shown, shown.ids[80:], **options, **PRIVATE).true_weights.snr
    found = simulate_scan(shown, shown.ids[80:], **options).true_weights.snr
    assert (found < drawn * (1 + 1e-9)).all()
    assert 0.8 < np.isclose(found, drawn).mean() < 1
    assert np.isclose(found, drawn)[drawn < 0.3].all()


@pytest.mark.parametrize("kind", ["gamma", "negative_binomial"])
def test_eq_1_of_many_repeats_tends_to_the_true_weights_whatever_makes_the_noise(shown, kind):
    mouse = simulate_scan(
        shown,
        shown.ids[88:],
        n_neurons=40,
        n_repeats=1000,
        snr_median=1.0,
        noise=Noise(kind, shared=0.2),
        behaviour=Behaviour(0.2, 0.1, 1.5),
    )
    found = scan_reliability(mouse.scan).weights
    assert np.median(np.abs(np.log(found.snr / mouse.true_weights.snr))) < 0.04
    assert np.abs(np.log(found.snr / mouse.true_weights.snr)).max() < 0.25
    assert np.median(found.signal_variance / mouse.true_weights.signal_variance) == pytest.approx(1, abs=0.06)
    assert np.median(found.noise_variance / mouse.true_weights.noise_variance) == pytest.approx(1, abs=0.06)
    # a session's mean gain is not exactly every session's, which moves both variances alike: 6 % and not the ratio
    # the noise-free rates alone, at neutral gaze and gain, have another variance: Eq. 1 sees what gaze blurs
    oracle = mouse.truth_for("oracle").mean.var(axis=0, dtype=np.float64)
    assert np.median(oracle / found.signal_variance) > 1.05


def test_the_truth_does_not_depend_on_what_the_animal_did(shown, mouse):
    still = simulate_scan(shown, shown.ids[80:], n_neurons=150, n_repeats=7, seed=1, **PRIVATE)
    np.testing.assert_array_equal(still.truth.mean, mouse.truth.mean)
    assert still.scan.behavior is not None
    np.testing.assert_array_equal(still.gaze, 0)


class Watched:
    """Rates that remember the pixels they were asked for."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def __call__(self, pixels):
        self.seen.append(pixels)
        return 1 + pixels.mean(axis=2)[:, :3] / 255


def test_every_trial_shows_its_image_shifted_by_its_gaze(shown):
    rates = Watched()
    mean = rates(shown.pixels.astype(np.float32))
    truth = Population(shown.ids, mean, np.ones(3, dtype=np.float32), "recorded")
    mouse = simulate_from_rates(rates, truth, shown, shown.ids[80:], behaviour=Behaviour(0.0, 0.0, 2.0))
    trials = np.concatenate(rates.seen)[-len(mouse.scan.tier) :]
    pixels = shown.pixels[mouse.scan.trial_image].astype(np.float32)
    np.testing.assert_allclose(trials, shifted(pixels, mouse.gaze.astype(np.float64)), atol=1e-3)
    assert np.abs(trials - pixels).mean() > 5
    rates.seen.clear()
    simulate_from_rates(rates, truth, shown, shown.ids[80:], behaviour=STILL)
    assert rates.seen == []  # nothing moves: the truth's rates are those of every trial


def test_the_truth_must_be_of_the_stimuli_in_their_order(shown):
    truth = Population(shown.ids[::-1], np.ones((100, 3), dtype=np.float32), np.ones(3, dtype=np.float32), "twin")
    with pytest.raises(InputError, match="the truth is of other images"):
        simulate_from_rates(Watched(), truth, shown, shown.ids[80:])


def running_effect(shown, running_gain: float) -> float:
    """Mean log of the population's response per standard deviation of log speed."""
    mouse = simulate_scan(
        shown,
        shown.ids[80:],
        n_neurons=300,
        n_repeats=40,
        noise=Noise(shared=0.0),
        behaviour=Behaviour(running_gain, 0.0, 0.0),
    )
    assert mouse.scan.behavior is not None
    x = np.log1p(mouse.scan.behavior[:, 2].astype(np.float64))
    expected = mouse.truth.mean[mouse.scan.trial_image].mean(axis=1)
    return float(np.polyfit((x - x.mean()) / x.std(), np.log(mouse.scan.responses.mean(axis=1) / expected), 1)[0])


def test_the_mouse_that_runs_responds_more_as_much_as_asked(shown):
    assert running_effect(shown, 0.2) == pytest.approx(0.2, abs=0.04)
    assert running_effect(shown, 0.0) == pytest.approx(0, abs=0.02)
    assert running_effect(shown, -0.2) < -0.1


def noise_correlation(shown, shared: float) -> float:
    """Mean correlation over neuron pairs of what is left when each image's mean response is taken away."""
    mouse = simulate_scan(
        shown, shown.ids[80:], n_neurons=60, n_repeats=60, noise=Noise(shared=shared), behaviour=STILL, snr_median=1.0
    )
    oracle = mouse.scan.tier == "oracle"
    residual = mouse.scan.responses[oracle].astype(np.float64)
    image = mouse.scan.trial_image[oracle]
    for shown_image in np.unique(image):
        residual[image == shown_image] -= residual[image == shown_image].mean(axis=0)
    return float(np.corrcoef(residual.T)[np.triu_indices(60, 1)].mean())


def test_shared_noise_correlates_neurons_and_private_noise_does_not(shown):
    private, some, much = (noise_correlation(shown, shared) for shared in (0.0, 0.15, 0.4))
    assert abs(private) < 0.005
    assert 0.005 < some < much
    assert much > 0.05


def test_counts_are_whole_multiples_of_their_unit(shown):
    mouse = simulate_scan(shown, shown.ids[80:], n_neurons=80, noise=Noise("negative_binomial"))
    assert mouse.count_unit is not None
    counts = mouse.scan.responses / mouse.count_unit
    np.testing.assert_allclose(counts, counts.round(), atol=1e-3)
    assert (mouse.count_unit == 1).mean() > 0.3  # reliable cells are the exception
    assert counts.max() > 5


def test_scans_of_one_animal_share_the_animal_and_nothing_else(shown):
    def made(animal: int, session: int):
        return simulate_scan(shown, shown.ids[80:], n_neurons=60, animal=animal, session=session)

    first, second, other = made(0, 0), made(0, 1), made(1, 0)
    for scan in (second, other):  # other neurons, other trials, other noise
        assert abs(np.corrcoef(scan.true_weights.snr, first.true_weights.snr)[0, 1]) < 0.4
        assert not np.array_equal(scan.scan.trial_image, first.scan.trial_image)
        assert not np.array_equal(scan.truth.mean, first.truth.mean)
        assert not np.array_equal(scan.gaze, first.gaze)
    tracker = [np.polyfit(m.gaze[:, 0], m.scan.pupil_center[:, 0], 1) for m in (first, second, other)]
    np.testing.assert_allclose(tracker[0], tracker[1], rtol=0.03)
    assert np.abs(tracker[0] / tracker[2] - 1).max() > 0.05
    for field in ("running_fraction", "speed", "pupil_mean"):
        one, another = (getattr(draw_animal(stream(0, 0, animal)), field) for animal in (0, 1))
        assert one != another


def test_scans_are_dealt_out_to_animals():
    assert sessions(5, 2) == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)]
    assert sessions(2) == [(0, 0), (0, 1)]
    for wrong, message in (((0, 1), "n_scans is 0; it must be 1 or more"), ((2, 0), "n_animals is 0")):
        with pytest.raises(InputError, match=message):
            sessions(*wrong)


def test_validation_images_are_shown_once_and_are_the_same_for_all(shown):
    chosen = []
    for animal, session in sessions(3, 2):
        mouse = simulate_scan(shown, shown.ids[80:], n_neurons=4, n_validation=10, animal=animal, session=session)
        held = mouse.scan.trial_ids[mouse.scan.tier == "validation"]
        assert len(held) == len(set(held.tolist())) == 10
        assert not set(held.tolist()) & set(shown.ids[80:].tolist())
        assert np.count_nonzero(mouse.scan.tier == "train") == 70
        assert len(mouse.truth_for("validation").image_ids) == 10
        chosen.append(set(held.tolist()))
    assert chosen[0] == chosen[1] == chosen[2]


def test_progress_counts_the_trials(shown):
    told = []
    simulate_scan(shown, shown.ids[80:], n_neurons=4, progress=lambda done, of: told.append((done, of)))
    assert told == [(256, 280), (280, 280)]


def test_positions_in_cortex_follow_the_receptive_fields(shown):
    """The images differ in the left part only: the cells that tell them apart lie together."""
    pixels = np.full((20, 36, 64), 128, np.uint8)
    pixels[:, :, :24] = shown.pixels[:20, :, :24]
    mouse = simulate_scan(Stimuli(shown.ids[:20], pixels), shown.ids[:20], n_neurons=600)
    xyz = mouse.scan.neuron_xyz
    assert xyz is not None
    assert xyz.shape == (600, 3)
    driven = mouse.true_weights.snr > 0
    assert 0.3 < driven.mean() < 0.95
    screen_x = xyz[:, :2].astype(np.float64) @ np.linalg.inv(draw_animal(stream(0, 0, 0)).cortex_map.T)[:, 0]
    assert driven[screen_x < 22].all()
    told_apart = mouse.truth.mean.std(axis=0) / mouse.truth.mean.mean(axis=0)
    assert not driven[told_apart < 1e-6].any()
    assert np.median(screen_x[~driven]) > np.median(screen_x[driven]) + 5
    assert (xyz[:, 2] >= 150).all()
    assert (xyz[:, 2] <= 300).all()


def test_a_cell_that_the_oracle_images_do_not_tell_apart_has_weight_zero(shown):
    pixels = np.concatenate([shown.pixels[:10], np.repeat(shown.pixels[10:11], 3, axis=0)])
    images = Stimuli(np.array([f"image-{i}" for i in range(13)]), pixels)
    mouse = simulate_scan(images, images.ids[10:], n_neurons=40, n_repeats=2000)
    np.testing.assert_array_equal(mouse.true_weights.snr, 0)
    assert (mouse.true_weights.noise_variance > 0).all()
    oracle = mouse.scan.tier == "oracle"
    found = snr_weights(mouse.scan.responses[oracle], mouse.scan.trial_image[oracle])
    assert found.max() < 0.1


def single_trial_agreement(shown, snr_median: float) -> float:
    """Correlation over pairs i < j of S_data (Eq. 2 of single trials) with the true similarity."""
    mouse = simulate_scan(shown, shown.ids[80:], n_neurons=300, snr_median=snr_median)
    scan, truth = mouse.scan, mouse.truth_for("train")
    once = np.flatnonzero(scan.tier == "train")
    once = once[np.argsort(scan.trial_image[once])]
    pairs = np.triu_indices(len(once), 1)
    recorded = centered_cosine(scan.responses[once] * truth.weights)
    return float(np.corrcoef(recorded[pairs], centered_cosine(truth.mean * truth.weights)[pairs])[0, 1])


def test_single_trials_tell_the_true_similarity_the_better_the_higher_the_snr(shown):
    agreement = [single_trial_agreement(shown, median) for median in (0.1, 0.5, 2.5)]
    assert 0 < agreement[0] < agreement[1] < agreement[2] < 1
    assert agreement[1] > 0.3


def test_the_truth_for_a_tier_is_its_part(mouse):
    train = mouse.truth_for("train")
    np.testing.assert_array_equal(train.image_ids, mouse.truth.image_ids[:80])
    np.testing.assert_array_equal(train.mean, mouse.truth.mean[:80])
    with pytest.raises(InputError, match="no trial of tier 'validation'"):
        mouse.truth_for("validation")


def test_a_thousand_neurons_and_two_thousand_images_take_seconds():
    shown = packaged_photographs(n_train=1900)
    start = time.process_time()
    simulate_scan(shown, shown.ids[1900:], n_neurons=1000)
    assert time.process_time() - start < 8


@pytest.mark.parametrize(
    ("oracle", "options", "message"),
    [
        (["astronaut-000"], {}, "1 distinct oracle ids of 1; give 2 or more"),
        ([], {}, "0 distinct oracle ids of 0"),
        (["cat-000", "cat-000"], {}, "1 distinct oracle ids of 2"),
        (["cat-000", "dog-000"], {}, "oracle id 'dog-000' is not among the 100 stimuli"),
        (None, {"n_neurons": 0}, "n_neurons is 0; it must be 1 or more"),
        (None, {"n_repeats": 1}, "n_repeats is 1; it must be 2 or more"),
        (None, {"seed": -1}, "seed is -1"),
        (None, {"animal": -1}, "animal is -1; it must be 0 or more"),
        (None, {"session": 2**32}, "session is 4294967296; it must be 0 or more, and below 2^32"),
        (None, {"n_validation": -1}, "n_validation is -1; it must be 0 or more"),
        (None, {"n_validation": 81}, "n_validation is 81; it must be 80 or less"),
        (None, {"complex_fraction": 1.5}, "complex_fraction is 1.5; it must be between 0 and 1"),
        (None, {"snr_median": 0.0}, "snr_median is 0.0; it must be above 0"),
        (None, {"snr_spread": float("nan")}, "snr_spread is nan"),
    ],
)
def test_what_cannot_be_simulated_is_said(shown, oracle, options, message):
    with pytest.raises(InputError) as error:
        simulate_scan(shown, shown.ids[80:] if oracle is None else oracle, **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_images_without_any_contrast_are_refused():
    plain = Stimuli(np.array(["a", "b", "c"]), np.full((3, 36, 64), 7, np.uint8))
    with pytest.raises(InputError, match="all pixels of the stimuli are the same"):
        simulate_scan(plain, ["a", "b"])
