"""Scores: 1 for the truth, 0 for what says nothing about the image, and what repeats can say at most."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from neuroprior.twin import EncodingModel, Twin, TwinArchitecture, TwinScores, score_twin
from neuroprior.twin.evaluate import correlation, explained_variance, predict_trials
from neuroprior.twin.model import Standardise
from neuroprior.types import InputError, Scan, Stimuli

HEIGHT, WIDTH, NEURONS, IMAGES, REPEATS = 10, 12, 8, 20, 6


def repeated(n_images: int, repeats: int, neurons: int, noise: float, seed: int = 0):
    """True means of every trial, responses, and the image of each trial, in disorder."""
    rng = np.random.default_rng(seed)
    image = rng.permutation(np.repeat(np.arange(n_images), repeats))
    means = rng.gamma(3.0, size=(n_images, neurons))[image]
    return means, means + noise * rng.standard_normal(means.shape), image


def test_feve_is_one_for_the_true_mean_and_zero_for_the_mean_response():
    means, responses, image = repeated(400, 10, 12, noise=1.5)
    assert np.allclose(explained_variance(means, responses, image), 1, atol=0.05)
    flat = np.broadcast_to(responses.mean(axis=0), responses.shape)
    assert np.allclose(explained_variance(flat, responses, image), 0, atol=0.03)
    worse = 2 * responses.mean(axis=0) - means
    assert (explained_variance(worse, responses, image) < -1).all()


def test_feve_counts_what_noise_leaves_whatever_the_noise():
    """Half of the true deviation explains 1 - 1/4, however noisy; the fraction of all variance does not."""
    for noise in (0.5, 2.0):
        means, responses, image = repeated(600, 8, 6, noise)
        half = 0.5 * (means + means.mean(axis=0))
        assert np.allclose(explained_variance(half, responses, image), 0.75, atol=0.06)
    r2 = 1 - np.square(responses - half).mean(axis=0) / responses.var(axis=0)
    assert (r2 < 0.5).all()


def test_feve_by_hand():
    responses = np.array([[1.0], [3.0], [4.0], [8.0], [9.0]])
    image = np.array([5, 5, 2, 2, 2])
    predicted = np.array([[2.0], [2.0], [7.0], [7.0], [6.0]])
    noise = (np.var([1, 3], ddof=1) + np.var([4, 8, 9], ddof=1)) / 2
    error = np.square([-1, 1, -3, 1, 3]).mean()
    said = 1 - (error - noise) / (responses.var(ddof=1) - noise)
    assert explained_variance(predicted, responses, image)[0] == pytest.approx(said)


def test_below_the_threshold_feve_is_not_defined():
    means, responses, image = repeated(300, 10, 3, noise=1.0)
    rng = np.random.default_rng(1)
    responses[:, 1] = rng.standard_normal(len(responses))  # noise alone
    responses[:, 2] = 4.0  # nothing at all
    found = explained_variance(means, responses, image)
    assert np.isfinite(found).tolist() == [True, False, False]
    explainable = means[:, 0].var() / responses[:, 0].var()
    for threshold, known in ((explainable - 0.05, True), (explainable + 0.05, False)):
        assert np.isfinite(explained_variance(means, responses, image, threshold)[0]) == known


def test_correlation_is_pearsons_and_nothing_where_nothing_varies():
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((2, 50, 4))
    a[:, 3] = np.float32(0.1)
    found = correlation(a, b)
    assert np.allclose(found[:3], [np.corrcoef(a[:, k], b[:, k])[0, 1] for k in range(3)])
    assert np.isnan(found[3])
    assert np.allclose(correlation(7 * a[:, :3] + 2, b[:, :3]), found[:3])
    assert np.allclose(correlation(-a[:, :3], b[:, :3]), -found[:3])


def small_twin(behavior: str = "modulator") -> Twin:
    torch.manual_seed(0)
    architecture = TwinArchitecture(channels=4, first_kernel=5, kernel=3, n_layers=2, behavior=behavior)
    where, bias = torch.rand(NEURONS, 2) - 0.5, torch.ones(NEURONS)
    model = EncodingModel(
        architecture.new_core(2),
        architecture.new_readout(architecture.map_size((HEIGHT, WIDTH)), where, bias, None),
        architecture.new_shifter(),
        architecture.new_modulator(2, NEURONS),
        channels=behavior == "channels",
        behavior_scale=Standardise(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 0.5])),
        unit=torch.linspace(0.5, 2, NEURONS),
    )
    for part in (model.shifter, model.modulator):
        for weight in part.parameters():
            weight.data.normal_(std=0.5)
    model.readout.features.data.normal_()
    return Twin(
        "small", model.eval().requires_grad_(False), (HEIGHT, WIDTH), NEURONS, 120.0, 60.0, (1.0, 2.0), False, "none",
        neutral_pupil=(0.1, -0.2), behavior_names=("running speed", "pupil size"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def scan() -> Scan:
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (2 * IMAGES, HEIGHT, WIDTH), dtype=np.uint8)
    trial_image = rng.permutation(np.concatenate([np.arange(IMAGES), IMAGES + np.repeat(np.arange(IMAGES), REPEATS)]))
    n = len(trial_image)
    return Scan(
        "mouse",
        Stimuli(np.array([f"image-{k:02d}" for k in range(2 * IMAGES)]), pixels),
        trial_image,
        rng.gamma(2.0, size=(n, NEURONS)).astype(np.float32),
        np.where(trial_image < IMAGES, "train", "oracle"),
        (np.array([1, 2]) + rng.standard_normal((n, 2)) * [2, 0.5]).astype(np.float32),
        ("running speed", "pupil size"),
        rng.standard_normal((n, 2)).astype(np.float32),
    )


def as_said_by(twin: Twin, scan: Scan, noise: float = 0.0) -> Scan:
    """The scan with the twin's own predictions as responses, and noise."""
    rates = predict_trials(twin, scan, np.arange(len(scan.trial_image)))
    return replace(scan, responses=rates + noise * np.random.default_rng(4).standard_normal(rates.shape).astype("f4"))


def calm(scan: Scan) -> Scan:
    """The scan of an animal that does the same on every trial."""
    return replace(scan, behavior=np.tile(np.float32([1, 2]), (len(scan.trial_image), 1)), pupil_center=None)


@pytest.mark.parametrize("behavior", ["modulator", "channels"])
def test_a_trial_is_predicted_with_its_own_image_behaviour_and_pupil(scan, behavior):
    twin = small_twin(behavior)
    trials = np.array([50, 3, 3, 99, 0, *range(20, 45)])
    found = predict_trials(twin, scan, trials)
    for row, trial in enumerate(trials):
        pixels = scan.stimuli.pixels[scan.trial_image[trial]].astype(np.float32)
        image = torch.from_numpy((pixels - 120) / 60)[None, None]
        conditions = (torch.from_numpy(part[[trial]]) for part in (scan.behavior, scan.pupil_center))
        assert np.allclose(found[row], twin.model(image, *conditions)[0].numpy(), atol=1e-5)
    still = predict_trials(twin, replace(scan, pupil_center=None), trials)
    assert not np.allclose(still, found, atol=1e-2)


def test_what_was_not_tracked_is_taken_as_neutral(scan):
    twin = small_twin()
    behavior, pupil = scan.behavior.copy(), scan.pupil_center.copy()
    behavior[5, 1], pupil[6, 0] = np.nan, np.nan
    gaps = replace(scan, behavior=behavior, pupil_center=pupil)
    behavior, pupil = behavior.copy(), pupil.copy()
    behavior[5, 1], pupil[6] = twin.neutral_behavior[1], twin.neutral_pupil
    filled = replace(scan, behavior=behavior, pupil_center=pupil)
    every = np.arange(len(scan.trial_image))
    assert np.array_equal(predict_trials(twin, gaps, every), predict_trials(twin, filled, every))


def test_a_twin_that_is_the_mouse_scores_one(scan):
    twin = small_twin()
    scores = score_twin(twin, as_said_by(twin, scan))
    assert (scores.n_trials, scores.n_images, scores.tier) == (IMAGES * REPEATS, IMAGES, "oracle")
    for values in (scores.single_trial, scores.to_average, scores.accuracy):
        assert np.allclose(values, 1, atol=1e-4)
    assert scores.fev_threshold == 0.15


def test_noise_lowers_the_single_trial_correlation_and_less_that_to_the_average(scan):
    twin = small_twin()
    noisy = as_said_by(twin, calm(scan), noise=0.1)
    scores = score_twin(twin, noisy)
    oracle = np.flatnonzero(noisy.tier == "oracle")
    predicted = predict_trials(twin, noisy, oracle)
    by_hand = [np.corrcoef(predicted[:, a], noisy.responses[oracle, a])[0, 1] for a in range(NEURONS)]
    assert np.allclose(scores.single_trial, by_hand, atol=1e-6)
    assert (scores.to_average > scores.single_trial).all()
    image = noisy.trial_image[oracle]
    means = [[v[image == k].mean(axis=0) for k in np.unique(image)] for v in (predicted, noisy.responses[oracle])]
    by_hand = [np.corrcoef(np.array(means[0])[:, a], np.array(means[1])[:, a])[0, 1] for a in range(NEURONS)]
    assert np.allclose(scores.to_average, by_hand, atol=1e-5)


def test_v_is_of_the_oracle_trials(scan):
    twin = small_twin()
    noisy = as_said_by(twin, scan, noise=0.5)
    responses = noisy.responses.copy()
    oracle = noisy.tier == "oracle"
    responses[oracle, 2] = 3 - responses[oracle, 2]  # predicted the wrong way round
    responses[oracle, 4] = 1.0  # never varies
    responses[~oracle] = 7.0  # says nothing about v
    upset = replace(noisy, responses=responses)
    accuracy = score_twin(twin, upset).accuracy
    kept = [0, 1, 3, 5, 6, 7]
    assert np.allclose(accuracy[kept], score_twin(twin, noisy).single_trial[kept], atol=1e-6)
    assert accuracy[[2, 4]].tolist() == [0, 0]
    assert accuracy.dtype == np.float32


def test_without_repeats_only_the_single_trial_score_is_known(scan):
    twin = small_twin()
    scores = score_twin(twin, as_said_by(twin, scan), "train")
    assert np.allclose(scores.single_trial, 1, atol=1e-4)
    assert (scores.to_average, scores.feve, scores.oracle, scores.oracle_fraction) == (None,) * 4


def test_images_shown_once_among_the_repeated_count_for_single_trials_alone(scan):
    twin = small_twin()
    noisy = as_said_by(twin, scan, noise=0.5)
    tier = noisy.tier.copy()
    tier[:] = "oracle"
    mixed, repeats = score_twin(twin, replace(noisy, tier=tier)), score_twin(twin, noisy)
    assert mixed.n_images == 2 * IMAGES
    assert np.array_equal(mixed.feve, repeats.feve, equal_nan=True)
    assert np.allclose(mixed.to_average, repeats.to_average)
    assert not np.allclose(mixed.single_trial, repeats.single_trial)


def test_the_oracle_fraction_is_the_slope_through_zero():
    oracle, single = np.array([0.2, 0.4, np.nan, 0.5]), np.array([0.1, 0.2, 0.9, 0.25])
    scores = TwinScores("oracle", 9, 3, single, single, single, oracle)
    assert scores.oracle_fraction == pytest.approx(0.5)
    assert replace(scores, single_trial=2 * single).oracle_fraction == pytest.approx(1.0)
    assert replace(scores, oracle=0 * oracle).oracle_fraction is None
    assert replace(scores, oracle=None).oracle_fraction is None


def test_a_perfect_model_of_the_mean_beats_the_oracle(scan):
    """The other trials' mean is itself noisy: the truth predicts better, more so with fewer repeats."""
    twin = small_twin()
    still = replace(scan, behavior=None, behavior_names=(), pupil_center=None)
    still_twin = replace(twin, neutral_behavior=(), behavior_names=())
    with pytest.raises(RuntimeError):
        predict_trials(still_twin, still, np.arange(3))  # the model does take behaviour
    scores = score_twin(twin, as_said_by(twin, calm(scan), noise=0.5))
    assert scores.oracle_fraction > 1


def test_what_cannot_be_scored_is_said(scan):
    twin = small_twin()
    with pytest.raises(InputError, match="scan mouse: 0 trials of tier validation; a score needs 2 or more"):
        score_twin(twin, scan, "validation")
    with pytest.raises(InputError, match="7 neurons, and the twin small has 8; score a twin on the scan"):
        score_twin(twin, replace(scan, responses=scan.responses[:, :7]))
    with pytest.raises(InputError, match="behaviour none, and twin small takes running speed, pupil size"):
        score_twin(twin, replace(scan, behavior=None, behavior_names=()))
    with pytest.raises(InputError, match="behaviour pupil size, running speed, and twin small takes"):
        score_twin(twin, replace(scan, behavior_names=("pupil size", "running speed")))
    with pytest.raises(InputError, match="takes images of 10x12, the stimuli are 9x12"):
        score_twin(twin, replace(scan, stimuli=Stimuli(scan.stimuli.ids, scan.stimuli.pixels[:, :9])))
