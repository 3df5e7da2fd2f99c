"""A twin's neuron is shown its filter, where it looks, at the twin's own gray."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from neuroprior.recordings import load_stimuli
from neuroprior.twin import load_twin, predict_population
from neuroprior.twin.exciting import exciting_images
from neuroprior.types import InputError, Stimuli

CHECKPOINT = "twins/sensorium2022_26872-17-20_sota.pth"
STIMULI = "stimuli/tiny_imagenet_36x64.npz"
SCALE = (110.0, 60.0)
PLACES = [(10, 20), (16, 40), (3, 50), (20, 8)]  # row, column of the map


def one_filter() -> torch.Tensor:
    y, x = np.mgrid[:9, :9] - 4.0
    gabor = np.exp(-0.5 * (x**2 + y**2) / 4) * np.cos(2 * np.pi * (0.8 * x + 0.6 * y) / 6)
    return torch.tensor(gabor, dtype=torch.float32)[None, None]


@pytest.fixture
def twin(tmp_path):
    """One layer of one channel, so that every neuron's rate rises with one filter at one place."""
    state = {"core.features.layer0.conv.weight": one_filter()}
    state |= {f"core.features.layer0.norm.{name}": torch.ones(1) for name in ("weight", "running_var")}
    state |= {f"core.features.layer0.norm.{name}": torch.zeros(1) for name in ("bias", "running_mean")}
    places = torch.tensor([[2 * column / 55 - 1, 2 * row / 27 - 1] for row, column in PLACES])
    state["readout.mouse._mu"] = places[None, :, None]
    state["readout.mouse._features"] = torch.full((1, 1, 1, 4), 0.1)
    state["readout.mouse.bias"] = torch.zeros(4)
    torch.save(state, tmp_path / "twin.pth")
    return load_twin(tmp_path / "twin.pth")


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


def test_neurons_are_shown_their_filter_where_they_look(twin):
    found = exciting_images(twin, [3, 0, 1, 2], pixel_scale=SCALE, contrast=0.05, blur=(0.0, 0.0))
    assert found.images.shape == (4, 1, 36, 64)
    for image, neuron in zip(found.images[:, 0] - SCALE[0], [3, 0, 1, 2], strict=True):
        row, column = PLACES[neuron]
        expected = np.zeros((36, 64))
        expected[row : row + 9, column : column + 9] = one_filter()[0, 0]
        assert cosine(image, expected - expected.mean()) > 0.99
        assert abs(cosine(image, np.roll(expected, 5, axis=1))) < 0.9


def test_images_have_the_twins_gray_and_the_contrast_asked_for(twin):
    for contrast in (0.1, 0.5):
        images = exciting_images(twin, [0, 1], pixel_scale=SCALE, contrast=contrast, steps=5).images
        assert images.mean(axis=(1, 2, 3)) == pytest.approx(SCALE[0], rel=1e-5)
        assert images.std(axis=(1, 2, 3)) == pytest.approx(contrast * SCALE[1], rel=1e-5)
        assert (images >= 0).all()
        assert (images <= 255).all()


def test_a_twins_own_pixel_scale_is_used(twin):
    given = exciting_images(twin, [0], pixel_scale=SCALE, steps=3)
    own = exciting_images(replace(twin, pixel_mean=SCALE[0], pixel_std=SCALE[1]), [0], steps=3)
    other = exciting_images(replace(twin, pixel_mean=120.0, pixel_std=SCALE[1]), [0], steps=3)
    assert np.array_equal(given.images, own.images)
    assert not np.allclose(own.images, other.images, atol=1.0)


def test_real_neurons_prefer_their_image_to_all_photographs_of_its_contrast(data):
    twin = load_twin(data(CHECKPOINT))
    photographs = load_stimuli(data(STIMULI), tier="oracle")
    pixels = photographs.pixels.astype(np.float32)
    mean, std = float(pixels.mean()), float(pixels.std())
    calm = pixels - pixels.mean(axis=(1, 2), keepdims=True)
    calm = mean + 0.2 * std * calm / calm.std(axis=(1, 2), keepdims=True)
    neurons = [5, 1000, 7000]
    found = exciting_images(twin, neurons, pixel_scale=(mean, std), steps=12)
    shown = np.concatenate([calm, found.images[:, 0]]).round().clip(0, 255).astype(np.uint8)
    ids = np.array([f"image-{k:03d}" for k in range(len(shown))])
    rates = predict_population(replace(twin, pixel_mean=mean, pixel_std=std), Stimuli(ids, shown)).mean[:, neurons]
    assert np.allclose(np.diag(rates[-3:]), found.activities[-1], rtol=0.02)
    assert (rates.argmax(axis=0) == len(calm) + np.arange(3)).all()
    assert (found.activities[-1] > 1.5 * rates[: len(calm)].max(axis=0)).all()


def test_what_cannot_be_found_is_said(twin):
    for neurons, options, says in (
        ([0, 4], {}, "no neuron 4; it has 4, counted from 0"),
        ([-1], {}, "no neuron -1"),
        ([], {}, "no neurons named"),
        ([0], {"pixel_scale": None}, "does not say what pixels are z-scored with"),
        ([0], {"pixel_scale": (110.0, 0.0)}, "the standard deviation is 0"),
        ([0], {"pixel_scale": (300.0, 60.0)}, "not inside the bounds"),
        ([0], {"steps": 0}, "steps is 0"),
        ([0], {"contrast": 3.0}, "norm"),
    ):
        with pytest.raises(InputError, match=says) as error:
            exciting_images(twin, neurons, **{"pixel_scale": SCALE, **options})
        assert "\n" not in str(error.value)
