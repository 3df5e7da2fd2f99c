"""Controls from pixels: against loops and scipy, on images that leave no doubt."""

import dataclasses

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from neuroprior.similarity import lowpass_target, pixel_target
from neuroprior.types import InputError, Stimuli
from reference.similarity import centered_cosine as slow


def test_pixels_are_a_population(stimuli):
    raw = pixel_target(stimuli, threshold=None)
    assert np.abs(raw.matrix - slow(stimuli.pixels.reshape(40, -1) / 255)).max() < 1e-6
    assert raw.source == "user"
    assert raw.details == {"control": "pixel", "threshold": "raw"}
    assert raw.stimuli_digest == stimuli.digest
    assert np.array_equal(raw.image_ids, stimuli.ids)


@pytest.mark.parametrize("threshold", [0.8, 0.1, 0.0])
def test_thresholds_leave_three_values(stimuli, threshold):
    s, made = pixel_target(stimuli, threshold=None).matrix, pixel_target(stimuli, threshold=threshold)
    by_hand = [[1 if x > threshold else -1 if x < -threshold else 0 for x in row] for row in s.tolist()]
    assert np.array_equal(made.matrix, by_hand)
    assert (np.diag(made.matrix) == 1).all()
    assert made.details == {"control": "pixel", "threshold": threshold}
    assert dataclasses.replace(made).matrix.dtype == np.float32


def test_alike_and_opposite_images_pass_the_published_threshold():
    rng = np.random.default_rng(0)
    noise = rng.integers(-5, 6, size=(4, 36, 64))
    a, b = rng.integers(-60, 61, size=(2, 36, 64))
    pixels = 128 + np.stack([a, a, -a, b]) + noise
    made = pixel_target(Stimuli(np.array(list("abcd")), pixels.astype(np.uint8)))
    assert made.matrix[0].tolist() == [1, 1, -1, 0]


@pytest.mark.parametrize("sigma", [0.7, 2.0, 4])
def test_lowpass_is_the_blur_of_scipy(stimuli, sigma):
    blurred = [
        gaussian_filter(image / 255, sigma, mode="mirror", radius=int(np.ceil(4 * sigma)))
        for image in stimuli.pixels.astype(float)
    ]
    made = lowpass_target(stimuli, sigma=sigma)
    assert np.abs(made.matrix - slow(np.stack(blurred).reshape(40, -1))).max() < 1e-4
    assert made.source == "user"
    assert made.details == {"control": "lowpass", "sigma": sigma}
    assert made.stimuli_digest == stimuli.digest


def test_lowpass_sees_coarse_structure_only(stimuli):
    rng = np.random.default_rng(1)
    shapes = np.kron(rng.integers(60, 180, size=(20, 2, 4)), np.ones((1, 18, 16)))
    fine = rng.choice([-40, 40], size=(2, 20, 36, 64))
    pixels = np.concatenate([shapes + fine[0], shapes + fine[1]]).astype(np.uint8)
    both = Stimuli(stimuli.ids, pixels)  # each shape twice, under different noise
    same = np.arange(20), np.arange(20, 40)
    blurred, raw = lowpass_target(both).matrix[same], pixel_target(both, threshold=None).matrix[same]
    assert blurred.min() > 0.9
    assert raw.max() < 0.9


def test_what_cannot_be_compared_is_named(stimuli):
    pixels = np.full((3, 36, 64), 100, dtype=np.uint8)
    pixels[0, :, :32], pixels[1, :, :32] = 90, 110
    flat = Stimuli(np.array(["dark", "bright", "between"]), pixels)
    for make, name in ((pixel_target, "pixel"), (lowpass_target, "lowpass")):
        with pytest.raises(InputError, match=rf"^{name} control, whose .*image 'between' equals the mean") as error:
            make(flat)
        assert "\n" not in str(error.value)
    for threshold in (-0.1, 1.0, float("nan")):
        with pytest.raises(InputError, match="threshold is"):
            pixel_target(stimuli, threshold=threshold)
    for sigma in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="sigma is"):
            lowpass_target(stimuli, sigma=sigma)
    with pytest.raises(InputError, match=r"36x64 are too small for a kernel reaching 36 pixels; lower sigma"):
        lowpass_target(stimuli, sigma=9.0)
