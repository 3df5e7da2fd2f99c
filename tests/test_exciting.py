"""The ascent reaches closed-form optima, holds what it is to hold, and keeps units apart."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from neuroprior.exciting import blurred, held, most_exciting_images
from neuroprior.types import InputError

SIZE = (1, 20, 24)
PIXELS = 480


def smooth(n: int, seed: int = 0) -> torch.Tensor:
    """Filters that are neither balanced nor of one length."""
    noise = torch.from_numpy(np.random.default_rng((9, seed)).standard_normal((n, *SIZE)).astype(np.float32))
    return blurred(noise, 1.0) + 1.0


def rectified(filters: torch.Tensor) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    return lambda images, units: torch.relu(((images - 0.5) * filters[units]).sum(dim=(1, 2, 3)))


def cosine(a: np.ndarray | torch.Tensor, b: np.ndarray | torch.Tensor) -> float:
    a, b = (np.asarray(v, dtype=np.float64).ravel() for v in (a, b))
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_a_linear_units_image_is_its_filter():
    filters = smooth(6)
    start = held(torch.from_numpy(np.random.default_rng(0).standard_normal((1, *SIZE))), 1.0, 0.5, (0.0, 1.0), False)
    signs = torch.sign(((start - 0.5) * filters).sum(dim=(1, 2, 3), keepdim=True)).float()
    filters = filters * signs  # so that the noise opens every unit
    found = most_exciting_images(rectified(filters), 6, SIZE, norm=1.0, balanced=False, blur=(0.0, 0.0))
    for k in range(6):
        assert cosine(found.images[k] - 0.5, filters[k]) > 0.999
        assert cosine(found.images[k] - 0.5, filters[k - 1]) < 0.9
        assert found.activities[-1, k] == pytest.approx(float(torch.linalg.vector_norm(filters[k])), rel=1e-3)
    balanced = most_exciting_images(rectified(filters), 6, SIZE, norm=1.0, blur=(0.0, 0.0))
    for k in np.flatnonzero(balanced.activities[0] > 0):
        assert cosine(balanced.images[k] - 0.5, filters[k] - filters[k].mean()) > 0.999
        assert cosine(balanced.images[k] - 0.5, filters[k]) < 0.99


def test_a_shut_unit_keeps_its_noise_and_says_so():
    filters = smooth(1)
    found = most_exciting_images(rectified(torch.cat([filters, -filters])), 2, SIZE, norm=1.0, steps=5, blur=(0.0, 0.0))
    shut = int(np.argmin(found.activities[0]))
    assert (found.activities[:, shut] == 0).all()
    assert (np.diff(found.activities[:, 1 - shut]) > 0).all()
    assert cosine(found.images[shut] - 0.5, found.images[1 - shut] - 0.5) < 0.99


def test_a_linear_unit_under_bounds_reaches_the_best_that_they_allow():
    """Of `w.d` under |d| <= norm, sum(d) = 0 and bounds, the optimum is clip(s w + t) (its KKT conditions)."""
    filters = smooth(4)
    norm = 0.42 * PIXELS**0.5
    best = held(filters, norm, 0.5, (0.0, 1.0), True)
    found = most_exciting_images(
        lambda x, units: (x * filters[units]).sum(dim=(1, 2, 3)), 4, SIZE, norm=norm, blur=(0.0, 0.0), steps=200
    )
    reached = ((torch.from_numpy(found.images) - 0.5) * filters).sum(dim=(1, 2, 3))
    bound = ((best - 0.5) * filters).sum(dim=(1, 2, 3))
    assert ((best == 0) | (best == 1)).float().mean() > 0.1
    assert (reached > 0.99 * bound).all()
    assert (reached < (1 + 1e-5) * bound).all()


def test_blur_makes_the_image_that_of_the_blurred_filter():
    filters = smooth(1) - 1.0
    found = most_exciting_images(
        lambda x, units: (x * filters[units]).sum(dim=(1, 2, 3)), 1, SIZE, norm=1.0, balanced=False, blur=(2.0, 2.0)
    )
    assert cosine(found.images[0] - 0.5, blurred(filters, 2.0)[0]) > 0.99
    assert cosine(found.images[0] - 0.5, filters[0]) < 0.9


def test_blur_is_a_gaussian_one_and_never_turns_a_gradient_round():
    g = torch.from_numpy(np.random.default_rng(0).standard_normal((5, *SIZE)))
    for sigma in (0.5, 1.5, 4.0):
        ours = blurred(g, sigma)
        for k in range(5):
            slow = gaussian_filter(g[k, 0].numpy(), sigma, mode="constant", truncate=12.0)
            assert cosine(ours[k, 0], slow) > 1 - 1e-6
        assert ((ours * g).sum(dim=(1, 2, 3)) > 0).all()
    assert torch.equal(blurred(g, 0.0), g)


def gabors(wavelength: float, angle: float) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:32, :32] - 15.5
    window = np.exp(-0.5 * (x**2 + y**2) / (0.5 * wavelength) ** 2)
    turn = 2 * np.pi / wavelength * (x * np.cos(angle) + y * np.sin(angle))
    return window * np.cos(turn), window * np.sin(turn)


def grating_of(image: np.ndarray) -> tuple[float, float]:
    """Wavelength (pixels) and angle (of 180 degrees) of the mean frequency, weighted by power, of half the plane."""
    n = 256
    power = np.abs(np.fft.fftshift(np.fft.fft2(image, (n, n)))) ** 2
    fy, fx = np.mgrid[-n // 2 : n // 2, -n // 2 : n // 2] / n
    peak = np.unravel_index(power.argmax(), power.shape)
    near = power * ((fx * fx[peak] + fy * fy[peak]) > 0)
    cx, cy = (near * fx).sum() / near.sum(), (near * fy).sum() / near.sum()
    return 1 / np.hypot(cx, cy), np.degrees(np.arctan2(cy, cx)) % 180


def test_an_energy_units_image_has_its_orientation_and_wavelength():
    asked = [(wavelength, angle) for wavelength in (7.0, 11.0) for angle in (0.0, 40.0, 90.0, 130.0)]
    pairs = torch.tensor(np.array([gabors(w, np.radians(a)) for w, a in asked]), dtype=torch.float32)

    def energy(images: torch.Tensor, units: torch.Tensor) -> torch.Tensor:
        return torch.einsum("khw,kphw->kp", images[:, 0] - 0.5, pairs[units]).square().sum(1)

    first, second = (
        most_exciting_images(energy, 8, (1, 32, 32), norm=2.0, seed=seed, blur=(1.0, 0.5)) for seed in (0, 1)
    )
    for k, (wavelength, angle) in enumerate(asked):
        found_wavelength, found_angle = grating_of(first.images[k, 0] - 0.5)
        assert found_wavelength == pytest.approx(wavelength, rel=0.15)
        assert min(abs(found_angle - angle), 180 - abs(found_angle - angle)) < 5
    # The phase is free: other noise, another image, the same activity.
    assert np.allclose(first.activities[-1], second.activities[-1], rtol=0.02)
    assert min(cosine(a - 0.5, b - 0.5) for a, b in zip(first.images, second.images, strict=True)) < 0.5


@pytest.mark.parametrize("contrast", [0.01, 0.2, 0.35, 0.45])
@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize(("middle", "bounds"), [(0.5, (0.0, 1.0)), (113.9, (0.0, 255.0))])
def test_norm_mean_and_bounds_hold_exactly(contrast, balanced, middle, bounds):
    filters = smooth(3)
    norm = contrast * (bounds[1] - bounds[0]) * PIXELS**0.5
    images = most_exciting_images(
        lambda x, units: (x * filters[units]).sum(dim=(1, 2, 3)),
        *(3, SIZE),
        norm=norm,
        middle=middle,
        bounds=bounds,
        balanced=balanced,
        steps=8,
    ).images.astype(np.float64)
    assert images.min() >= bounds[0]
    assert images.max() <= bounds[1]
    assert np.linalg.norm((images - middle).reshape(3, -1), axis=1) == pytest.approx(norm, rel=1e-5)
    brightness = images.mean(axis=(1, 2, 3))
    assert np.allclose(brightness, middle, rtol=1e-5) == balanced


def test_scaling_then_clipping_would_not_hold_the_norm():
    d = smooth(1).double()
    norm = 0.4 * PIXELS**0.5
    centred = d - d.mean()
    clipped = (0.5 + norm * centred / torch.linalg.vector_norm(centred)).clamp(0, 1) - 0.5
    assert float(torch.linalg.vector_norm(clipped)) < 0.99 * norm
    assert float(torch.linalg.vector_norm(held(d, norm, 0.5, (0.0, 1.0), True) - 0.5)) == pytest.approx(norm, rel=1e-9)


def curved(filters: torch.Tensor) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    ours = filters / torch.linalg.vector_norm(filters, dim=(1, 2, 3), keepdim=True)
    return lambda images, units: torch.tanh((images - 0.5).mul(ours[units]).sum(dim=(1, 2, 3))).square()


def test_a_unit_alone_is_the_unit_in_company():
    filters = smooth(5)
    together = most_exciting_images(curved(filters), 5, SIZE, norm=1.0, steps=20)
    by_twos = most_exciting_images(curved(filters), 5, SIZE, norm=1.0, steps=20, batch_size=2)
    assert np.allclose(together.images, by_twos.images, atol=1e-5)
    for k in range(5):
        alone = most_exciting_images(curved(filters[k : k + 1]), 1, SIZE, norm=1.0, steps=20)
        assert np.allclose(alone.images[0], together.images[k], atol=1e-5)
        assert np.allclose(alone.activities[:, 0], together.activities[:, k], rtol=1e-4)
    # A model that lets images of a batch reach one another does not pass.
    mixing = curved(filters)
    found = [
        most_exciting_images(lambda x, u: mixing(x + 0.5 * x.mean(0), u), 5, SIZE, norm=1.0, steps=20, batch_size=b)
        for b in (5, 2)
    ]
    assert not np.allclose(found[0].images, found[1].images, atol=1e-2)


def test_same_seed_same_numbers():
    one, again, other = (
        most_exciting_images(curved(smooth(2)), 2, SIZE, norm=1.0, steps=3, seed=seed) for seed in (4, 4, 5)
    )
    assert np.array_equal(one.images, again.images)
    assert np.array_equal(one.activities, again.activities)
    assert not np.allclose(one.images, other.images, atol=1e-3)
    assert one.images.shape == (2, *SIZE)
    assert one.activities.shape == (4, 2)


def test_tiny_gradients_are_followed_too():
    filters = smooth(1)
    plain = most_exciting_images(rectified(filters), 1, SIZE, norm=1.0, steps=5, seed=2)
    tiny = most_exciting_images(rectified(1e-30 * filters), 1, SIZE, norm=1.0, steps=5, seed=2)
    assert np.allclose(plain.images, tiny.images, atol=1e-5)


def test_progress_counts_unit_steps():
    told: list[tuple[int, int]] = []
    most_exciting_images(
        curved(smooth(3)), 3, SIZE, norm=1.0, steps=2, batch_size=2, progress=lambda *at: told.append(at)
    )
    assert told == [(2, 6), (4, 6), (5, 6), (6, 6)]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"steps": 0}, "steps is 0; it must be 1 or more"),
        ({"n_units": 0}, "units is 0"),
        ({"size": (1, 0, 5)}, r"size\[1\] is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"blur": (2.0, -1.0)}, "blur is 2 to -1 pixels"),
        ({"middle": 1.5}, "middle 1.5 is not inside the bounds 0, 1"),
        ({"norm": 0.0}, "norm .contrast. is 0"),
        ({"norm": 0.51 * PIXELS**0.5}, "must be above 0 and below 10.9"),
        ({"norm": float("nan")}, "is nan"),
    ],
)
def test_settings_that_make_no_sense(changed, says):
    settings = {"n_units": 2, "size": SIZE, "norm": 1.0, **changed}
    with pytest.raises(InputError, match=says) as error:
        most_exciting_images(curved(smooth(2)), **settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("activity", "says"),
    [
        (lambda x, units: x.sum(dim=(2, 3)), "one an image"),
        (lambda x, units: x.sum(dim=(1, 2, 3)) * torch.tensor([1.0, torch.nan]), "activity of unit 1 is not finite"),
        (lambda x, units: x.detach().sum(dim=(1, 2, 3)), "no gradient"),
    ],
)
def test_models_that_do_not_do(activity, says):
    with pytest.raises(InputError, match=says):
        most_exciting_images(activity, 2, SIZE, norm=1.0, steps=2)
