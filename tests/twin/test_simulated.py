"""A twin's neurons, looked at through a simulated session."""

import numpy as np
import pytest
import torch
from test_pretrained import CHECKPOINT, STIMULI, checkpoint

from neuroprior.recordings import STILL, Behaviour, Noise, load_stimuli, load_truth, save_truth
from neuroprior.recordings.simulate.behaviour import shifted
from neuroprior.reliability import scan_reliability
from neuroprior.twin import load_twin, predict_population, simulate_from_twin, untrained_twin
from neuroprior.twin.predict import pixel_scale
from neuroprior.twin.simulated import TwinRates
from neuroprior.types import InputError, Stimuli


@pytest.fixture
def twin(tmp_path, stimuli):
    """A small twin with a shifter and behaviour, whose rates tell images apart as no arbitrary checkpoint's do."""
    torch.save(checkpoint(shifter=True, behavior=2), tmp_path / "twin.pth")
    return untrained_twin(load_twin(tmp_path / "twin.pth"), 0, stimuli)


def test_the_truth_is_what_the_twin_predicts(twin, stimuli, tmp_path):
    mouse = simulate_from_twin(twin, stimuli, stimuli.ids[30:])
    np.testing.assert_array_equal(mouse.truth.mean, predict_population(twin, stimuli).mean)
    assert mouse.truth.source == "twin"
    assert mouse.scan.responses.shape == (30 + 10 * 10, 6)
    np.testing.assert_allclose(mouse.truth.weights, mouse.true_weights.snr, rtol=1e-6)
    save_truth(mouse, tmp_path)
    assert load_truth(tmp_path).population.source == "twin"


def test_the_twin_sees_shifted_images_on_the_scale_of_the_unshifted_ones(twin, stimuli):
    mean, std = pixel_scale(twin, stimuli)
    everyone = np.arange(6)
    rates = TwinRates(twin, everyone, mean, std)
    np.testing.assert_allclose(
        rates(stimuli.pixels.astype(np.float32)), predict_population(twin, stimuli).mean, rtol=1e-5
    )
    moved = shifted(stimuli.pixels[:1].astype(np.float32), np.array([[3.0, 1.0]]))
    # the moved image among the others has their scale, and alone would have its own
    together = Stimuli(
        np.append(stimuli.ids, "moved"), np.concatenate([stimuli.pixels, moved.round().astype(np.uint8)])
    )
    alone = Stimuli(np.array(["moved"]), together.pixels[-1:])
    found = rates(moved)[0]
    np.testing.assert_allclose(found, predict_population(twin, together).mean[-1], rtol=0.05)
    assert np.abs(found / predict_population(twin, alone).mean[0] - 1).max() > 0.01


def test_trials_scatter_about_what_the_twin_predicts(twin, stimuli):
    private = {"behaviour": STILL, "noise": Noise(shared=0.0)}
    mouse = simulate_from_twin(twin, stimuli, stimuli.ids[38:], n_repeats=5000, **private)
    for image in (38, 39):
        trials = mouse.scan.responses[mouse.scan.trial_image == image].astype(np.float64)
        error = (trials.mean(axis=0) - mouse.truth.mean[image]) / (trials.std(axis=0) / np.sqrt(5000))
        assert np.abs(error).max() < 4
    np.testing.assert_allclose(scan_reliability(mouse.scan).weights.snr, mouse.true_weights.snr, rtol=0.15, atol=0.02)


def test_eq_1_of_many_repeats_tends_to_the_true_weights_of_a_twin_that_looks_around(twin, stimuli):
    """So much gaze that it is most of the noise of some neurons."""
    looking = Behaviour(0.15, 0.1, 0.7)
    mouse = simulate_from_twin(twin, stimuli, stimuli.ids[28:], n_repeats=300, behaviour=looking, snr_median=2.0)
    np.testing.assert_allclose(scan_reliability(mouse.scan).weights.snr, mouse.true_weights.snr, rtol=0.15, atol=0.1)
    still = simulate_from_twin(twin, stimuli, stimuli.ids[28:], behaviour=STILL, snr_median=2.0)
    assert (mouse.true_weights.snr < 0.9 * still.true_weights.snr).any()


def test_the_seed_decides_and_a_session_may_see_a_part_of_the_neurons(twin, stimuli):
    def made(session: int, seed: int = 0):
        return simulate_from_twin(twin, stimuli, stimuli.ids[30:], n_neurons=3, session=session, seed=seed)

    one, same, other = made(0), made(0), made(1)
    np.testing.assert_array_equal(one.scan.responses, same.scan.responses)
    assert not np.array_equal(one.scan.responses, other.scan.responses)
    full = predict_population(twin, stimuli).mean
    for scan in (one, other):
        assert scan.truth.mean.shape == (40, 3)
        assert all(any(np.array_equal(column, known) for known in full.T) for column in scan.truth.mean.T)
    for n in (0, 7):
        with pytest.raises(InputError, match=f"n_neurons is {n}; it must be between 1 and 6"):
            simulate_from_twin(twin, stimuli, stimuli.ids[30:], n_neurons=n)


def test_images_of_another_size_are_refused(twin, stimuli):
    small = Stimuli(stimuli.ids, stimuli.pixels[:, :, :36])
    with pytest.raises(InputError, match="takes images of 36x64"):
        simulate_from_twin(twin, small, stimuli.ids[30:])


def test_a_real_mouse_s_neurons_look_where_their_place_in_cortex_says(data):
    """The images differ in their left part only: cells further left tell them apart better."""
    twin = load_twin(data(CHECKPOINT))
    photographs = load_stimuli(data(STIMULI), tier="oracle")
    pixels = np.full((8, 36, 64), 128, dtype=np.uint8)
    pixels[:, :, :30] = photographs.pixels[:8, :, :30]
    few = Stimuli(photographs.ids[:8], pixels)
    mouse = simulate_from_twin(twin, few, few.ids[:4], n_neurons=1000, n_repeats=2, behaviour=STILL)
    assert mouse.scan.responses.shape == (4 + 8, 1000)
    xyz = mouse.scan.neuron_xyz
    assert xyz is not None
    spread = mouse.truth.mean.std(axis=0) / mouse.truth.mean.mean(axis=0)
    left, right = np.quantile(xyz[:, 0], (0.25, 0.75))
    assert spread[xyz[:, 0] < left].mean() > 1.1 * spread[xyz[:, 0] > right].mean()
