"""From a scan to its population and target: aligned by image identity, weighted by Eq. 1."""

import inspect

import numpy as np
import pytest

from neuroprior.recordings import packaged_photographs, population_from_scan, simulate_scan, target_from_scan
from neuroprior.recordings.population import target_from_scans
from neuroprior.reliability import scan_reliability, snr_weights
from neuroprior.similarity import centered_cosine, target_from_population
from neuroprior.types import InputError, Scan, Stimuli


@pytest.fixture(scope="module")
def mouse():
    shown = packaged_photographs(n_train=60, n_oracle=15)
    # oracle images not at the end: nothing may hang on position
    order = np.random.default_rng(0).permutation(75)
    return simulate_scan(Stimuli(shown.ids[order], shown.pixels[order]), shown.ids[60:], n_neurons=120, seed=3)


def rebuilt(scan: Scan, trials: np.ndarray, **changes) -> Scan:
    fields = {
        "responses": scan.responses[trials],
        "trial_image": scan.trial_image[trials],
        "tier": scan.tier[trials],
        "stimuli": scan.stimuli,
    }
    return Scan(name=scan.name, **(fields | changes))


@pytest.mark.parametrize("tier", ["train", "oracle"])
def test_the_mean_is_over_each_images_trials_in_the_stimulis_order(mouse, tier):
    scan = mouse.scan
    population = population_from_scan(scan, tier)
    expected_ids = [i for i in scan.stimuli.ids.tolist() if ("oracle" in i) == (tier == "oracle")]
    assert population.image_ids.tolist() == expected_ids
    slow = [scan.responses[scan.trial_ids == name].astype(np.float64).mean(axis=0) for name in expected_ids]
    np.testing.assert_allclose(population.mean, slow, rtol=1e-6)
    oracle = scan.tier == "oracle"
    np.testing.assert_allclose(
        population.weights, snr_weights(scan.responses[oracle], scan.trial_ids[oracle]), rtol=1e-6
    )
    assert population.source == "recorded"


def test_the_order_of_trials_does_not_matter_and_whose_they_are_does(mouse):
    scan = mouse.scan
    first = population_from_scan(scan)
    shuffled = population_from_scan(rebuilt(scan, np.random.default_rng(0).permutation(len(scan.tier))))
    np.testing.assert_array_equal(shuffled.image_ids, first.image_ids)
    np.testing.assert_array_equal(shuffled.mean, first.mean)
    np.testing.assert_allclose(shuffled.weights, first.weights, rtol=1e-5)
    everyone = np.arange(len(scan.tier))
    handed_on = scan.trial_image.copy()
    train = np.flatnonzero(scan.tier == "train")
    handed_on[train] = np.roll(handed_on[train], 1)
    moved = population_from_scan(rebuilt(scan, everyone, trial_image=handed_on))
    assert not np.allclose(moved.mean, first.mean)
    np.testing.assert_array_equal(moved.weights, first.weights)


def test_the_order_of_stimuli_permutes_the_target(mouse):
    scan = mouse.scan
    order = np.random.default_rng(1).permutation(len(scan.stimuli))
    place = np.argsort(order)
    stimuli = Stimuli(scan.stimuli.ids[order], scan.stimuli.pixels[order])
    other = target_from_scan(
        rebuilt(scan, np.arange(len(scan.tier)), stimuli=stimuli, trial_image=place[scan.trial_image])
    )
    target = target_from_scan(scan)
    row = {name: i for i, name in enumerate(other.image_ids.tolist())}
    rows = [row[name] for name in target.image_ids.tolist()]
    np.testing.assert_allclose(other.matrix[np.ix_(rows, rows)], target.matrix, atol=1e-5)
    assert other.stimuli_digest != target.stimuli_digest


def test_the_target_is_eq_2_of_the_weighted_population(mouse):
    scan = mouse.scan
    target = target_from_scan(scan, "train", "unbiased")
    population = population_from_scan(scan, "train", "unbiased")
    np.testing.assert_allclose(target.matrix, centered_cosine(population.mean * population.weights), atol=1e-6)
    np.testing.assert_array_equal(target.image_ids, population.image_ids)
    assert target.stimuli_digest == scan.stimuli.select(population.image_ids).digest
    assert target.source == "recorded"
    # the weights are what makes it so
    assert np.abs(target.matrix - centered_cosine(population.mean)).max() > 0.1


def test_the_target_says_what_it_rests_on(mouse):
    details = dict(target_from_scan(mouse.scan, correction="unbiased", units="standardised").details)
    assert details == {
        "scan": "simulated",
        "tier": "train",
        "trials": 60,
        "neurons": 120,
        "silent_neurons": 0,
        "units": "standardised",
        "weights": "SNR (Eq. 1), correction unbiased",
        "weight_images": 15,
        "weight_images_left_out": 0,
    }


def test_standardised_units_undo_gains_and_raw_units_keep_them(mouse):
    scan = mouse.scan
    gains = (2.0 ** np.random.default_rng(0).integers(-5, 6, scan.responses.shape[1])).astype(np.float32)
    louder = rebuilt(scan, np.arange(len(scan.tier)), responses=scan.responses * gains)
    same = [population_from_scan(s, units="standardised").mean for s in (scan, louder)]
    np.testing.assert_allclose(same[0], same[1], rtol=1e-5)
    np.testing.assert_allclose(population_from_scan(louder).mean, population_from_scan(scan).mean * gains, rtol=1e-5)
    standardised = scan.responses.std(axis=0, dtype=np.float64)
    np.testing.assert_allclose(same[0], population_from_scan(scan).mean / standardised, rtol=1e-5)


def test_a_silent_neuron_stays_silent_in_either_unit(mouse):
    responses = mouse.scan.responses.copy()
    responses[:, 5] = 0
    scan = rebuilt(mouse.scan, np.arange(len(responses)), responses=responses)
    for units in ("raw", "standardised"):
        population = population_from_scan(scan, units=units)
        assert population.weights[5] == 0
        np.testing.assert_array_equal(population.mean[:, 5], 0)
    assert target_from_scan(scan).details["silent_neurons"] == 1


def test_averaging_repeats_brings_the_target_nearer_to_the_truth(mouse):
    shown = mouse.scan.stimuli
    truth = target_from_population(mouse.truth_for("oracle"), shown).matrix
    pairs = np.triu_indices(len(truth), 1)
    scan = mouse.scan
    once = np.array(
        [np.flatnonzero(scan.trial_image == i)[0] for i in np.unique(scan.trial_image[scan.tier == "oracle"])]
    )
    weights = scan_reliability(scan).weights.snr.astype(np.float32)
    single = centered_cosine(scan.responses[once] * weights)
    averaged = target_from_scan(scan, "oracle").matrix
    agreement = [float(np.corrcoef(s[pairs], truth[pairs])[0, 1]) for s in (single, averaged)]
    assert 0 < agreement[0] < agreement[1] < 1


def test_what_a_scan_does_not_hold_is_said(mouse):
    scan = mouse.scan
    with pytest.raises(
        InputError, match="scan simulated: no trial of tier 'validation'; its trials are of tier oracle, train"
    ):
        population_from_scan(scan, "validation")
    with pytest.raises(InputError, match="scan simulated, oracle trials: reliability: 0 of 0 images"):
        target_from_scan(rebuilt(scan, np.flatnonzero(scan.tier == "train")))
    with pytest.raises(InputError, match="tier 'test' is not one of train, validation, oracle"):
        inspect.unwrap(population_from_scan)(scan, "test")
    with pytest.raises(InputError, match="units 'z' is not one of raw, standardised"):
        inspect.unwrap(population_from_scan)(scan, units="z")


@pytest.fixture(scope="module")
def other_mouse(mouse):
    """Another animal that saw the same images, which its file holds in another order."""
    shown = mouse.scan.stimuli.select(sorted(mouse.scan.stimuli.ids))
    oracle = [name for name in shown.ids.tolist() if "oracle" in name]
    return simulate_scan(shown, oracle, n_neurons=90, n_repeats=4, seed=8, name="other")


@pytest.mark.parametrize("tier", ["train", "oracle"])
def test_the_target_of_several_scans_is_their_mean_matched_by_image(mouse, other_mouse, tier):
    first, second = target_from_scan(mouse.scan, tier), target_from_scan(other_mouse.scan, tier)
    assert first.image_ids.tolist() != second.image_ids.tolist()
    row = {name: i for i, name in enumerate(second.image_ids.tolist())}
    rows = [row[name] for name in first.image_ids.tolist()]
    mean = target_from_scans([mouse.scan, other_mouse.scan], tier)
    np.testing.assert_allclose(mean.matrix, (first.matrix + second.matrix[np.ix_(rows, rows)]) / 2, atol=1e-5)
    assert not np.allclose(mean.matrix, (first.matrix + second.matrix) / 2, atol=1e-2)
    assert mean.stimuli_digest == first.stimuli_digest
    assert (mean.n_scans, mean.source) == (2, "recorded")
    assert mean.details["scan_names"] == "simulated, other"
    assert mean.details["tier"] == tier
    of_each = {"scan_names": "simulated, other", "tier": tier, "averaged_targets": 2}
    for key, value in first.details.items():
        if key in ("tier", "units", "weights"):
            of_each[key] = value
        elif key != "scan":  # true of none of them alone, even where all agree
            of_each[f"{key}_of_each"] = f"{value}, {second.details[key]}"
    assert mean.details == of_each


def test_the_target_of_one_scan_is_its_own(mouse):
    alone, own = target_from_scans([mouse.scan], "oracle"), target_from_scan(mouse.scan, "oracle")
    np.testing.assert_allclose(alone.matrix, own.matrix, atol=1e-6)
    assert alone.n_scans == 1
    assert alone.details == own.details
    with pytest.raises(InputError, match="no scan given; pass at least one"):
        target_from_scans([])


def test_options_reach_every_scan(mouse, other_mouse):
    scans = [mouse.scan, other_mouse.scan]
    plain, other = target_from_scans(scans), target_from_scans(scans, "train", "unbiased", units="standardised")
    assert np.abs(plain.matrix - other.matrix).max() > 0.01
    assert other.details["weights"] == "SNR (Eq. 1), correction unbiased"
    assert other.details["units"] == "standardised"


def test_scans_of_other_images_are_named(mouse, other_mouse):
    scan = other_mouse.scan
    everyone = np.arange(len(scan.tier))
    shown = scan.stimuli
    lacking = rebuilt(scan, everyone[scan.trial_ids != "cat-003"])
    lacks = r"scan 1 \(other\) lacks 1 of the 60 images of scan 0 .* \(first: 'cat-003'\)"
    with pytest.raises(InputError, match=lacks):
        target_from_scans([mouse.scan, lacking])
    with pytest.raises(InputError, match=r"scan 1 \(simulated\) lacks 0 of .* holds 1 others .*; average only"):
        target_from_scans([lacking, mouse.scan])
    pixels = shown.pixels.copy()
    pixels[shown.ids == "cat-003", 5, 5] ^= 1
    recolored = rebuilt(scan, everyone, stimuli=Stimuli(shown.ids, pixels))
    with pytest.raises(InputError, match="scan other: image 'cat-003' has other pixels than in the first scan"):
        target_from_scans([mouse.scan, recolored])
    smaller = rebuilt(scan, everyone, stimuli=Stimuli(shown.ids, shown.pixels[:, :20]))
    with pytest.raises(InputError, match="scan other: its images are 20x64, those of the first scan 36x64"):
        target_from_scans([mouse.scan, smaller])
    common = target_from_scans([mouse.scan, lacking], missing="intersection")
    assert "cat-003" not in common.image_ids
    assert common.details["images_left_out"] == 1
    kept = shown.select(common.image_ids)
    parts = [target_from_scan(one).select(kept).matrix for one in (mouse.scan, lacking)]  # not centred again
    np.testing.assert_allclose(common.matrix, np.mean(parts, axis=0), atol=1e-6)
    # what is shown in another tier is not asked about
    assert target_from_scans([mouse.scan, lacking], "oracle").n_scans == 2
