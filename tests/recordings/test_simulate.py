"""The simulated mouse: its reliability is what it says, and its cells see what Gabor cells see."""

import time

import numpy as np
import pytest

from neuroprior.recordings import packaged_photographs, simulate_scan
from neuroprior.recordings.simulate import _rates, _receptive_fields
from neuroprior.reliability import snr_weights
from neuroprior.similarity import centered_cosine
from neuroprior.types import InputError, Stimuli


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
    assert scan.behavior is None
    assert scan.pupil_center is None
    assert (scan.responses >= 0).all()


def test_oracle_ids_may_stand_in_any_order_and_place(shown):
    chosen = shown.ids[[40, 3, 77]]
    scan = simulate_scan(shown, chosen, n_neurons=5).scan
    assert set(scan.trial_ids[scan.tier == "oracle"].tolist()) == set(chosen.tolist())


def test_same_seed_same_scan_another_seed_another_mouse(shown, mouse):
    again = simulate_scan(shown, shown.ids[80:], n_neurons=150, n_repeats=7, seed=1)
    np.testing.assert_array_equal(again.scan.responses, mouse.scan.responses)
    np.testing.assert_array_equal(again.scan.trial_image, mouse.scan.trial_image)
    np.testing.assert_array_equal(again.truth.weights, mouse.truth.weights)
    other = simulate_scan(shown, shown.ids[80:], n_neurons=150, n_repeats=7, seed=2)
    assert abs(np.corrcoef(other.truth.weights, mouse.truth.weights)[0, 1]) < 0.3


def test_more_repeats_show_the_same_mouse_again(shown, mouse):
    longer = simulate_scan(shown, shown.ids[80:], n_neurons=150, n_repeats=9, seed=1)
    np.testing.assert_array_equal(longer.truth.mean, mouse.truth.mean)
    np.testing.assert_array_equal(longer.true_weights.snr, mouse.true_weights.snr)


def test_the_truth_is_what_the_trials_scatter_around(shown):
    mouse = simulate_scan(shown, shown.ids[80:], n_neurons=60, n_repeats=4000)
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
    mouse = simulate_scan(shown, shown.ids[80:], n_neurons=2000, n_repeats=2)
    logs = np.log(mouse.true_weights.snr)
    assert np.exp(np.median(logs)) == pytest.approx(0.5, rel=0.05)
    assert logs.std() == pytest.approx(0.6, rel=0.05)
    np.testing.assert_allclose(mouse.truth.weights, mouse.true_weights.snr, rtol=1e-6)
    same = simulate_scan(shown, shown.ids[80:], n_neurons=20, n_repeats=2, snr_median=0.8, snr_spread=0.0)
    np.testing.assert_allclose(same.true_weights.snr, 0.8)


def test_filters_are_orthogonal_to_brightness_and_of_unit_length():
    pair, centre = _receptive_fields(36, 64, 50, np.random.default_rng(0))
    np.testing.assert_allclose(pair.sum(axis=2), 0, atol=1e-10)
    np.testing.assert_allclose(np.square(pair).sum(axis=2), 1)
    assert (centre >= 0).all()
    assert (centre <= (64, 36)).all()


def grating(phase: float) -> np.ndarray:
    x = np.arange(64)[None, :] - 32.0
    return np.tile(127.5 + 100 * np.cos(2 * np.pi * x / 13 + phase), (36, 1)).round().astype(np.uint8)


def gratings_stimuli() -> Stimuli:
    phases = np.arange(24) * 2 * np.pi / 24
    return Stimuli(np.array([f"phase-{i}" for i in range(24)]), np.stack([grating(p) for p in phases]))


def test_complex_cells_do_not_care_for_phase_and_simple_cells_do():
    pair, centre = _receptive_fields(36, 64, 400, np.random.default_rng(0))
    inside = ((centre > 12) & (centre < (52, 24))).all(axis=1)  # whole windows
    for is_complex in (True, False):
        rates = _rates(gratings_stimuli(), pair, np.full(400, is_complex))
        modulation = np.median((rates.std(axis=0) / rates.mean(axis=0))[inside])
        assert modulation < 0.35 if is_complex else modulation > 0.7


def test_inverting_contrast_changes_simple_cells_only():
    pair, _ = _receptive_fields(36, 64, 30, np.random.default_rng(0))
    shown = packaged_photographs("train", n_train=20)
    inverted = Stimuli(shown.ids, 255 - shown.pixels)
    for is_complex in (True, False):
        kind = np.full(30, is_complex)
        assert np.allclose(_rates(shown, pair, kind), _rates(inverted, pair, kind), rtol=1e-6) is is_complex


def test_brightness_and_contrast_of_the_whole_set_do_not_matter():
    pair, _ = _receptive_fields(36, 64, 30, np.random.default_rng(0))
    shown = packaged_photographs("train", n_train=20)
    pixels = shown.pixels // 2
    dim, doubled = Stimuli(shown.ids, pixels + 20), Stimuli(shown.ids, pixels * 2)
    kind = np.arange(30) % 2 == 0
    np.testing.assert_allclose(_rates(dim, pair, kind), _rates(doubled, pair, kind), rtol=1e-8)


def test_positions_in_cortex_follow_the_receptive_fields(shown):
    """The images differ in the left third only: the cells that tell them apart lie on the left."""
    pixels = np.full((20, 36, 64), 128, np.uint8)
    pixels[:, :, :21] = shown.pixels[:20, :, :21]
    mouse = simulate_scan(Stimuli(shown.ids[:20], pixels), shown.ids[:20], n_neurons=400)
    xyz = mouse.scan.neuron_xyz
    assert xyz is not None
    assert xyz.shape == (400, 3)
    driven = mouse.true_weights.snr > 0
    assert driven[xyz[:, 0] < 21 * 20].all()
    assert xyz[~driven, 0].min() > 30 * 20  # those with no part of their window on the left
    assert (xyz.min(axis=0) >= (0, 0, 150)).all()
    assert (xyz.max(axis=0) <= (1280, 720, 300)).all()


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
