"""The simulated cells: simple and complex, normalised by what is near, and silenced by their surround."""

from dataclasses import replace

import numpy as np
import pytest

from neuroprior.recordings import packaged_photographs
from neuroprior.recordings.simulate.cells import Cells, draw_cells, filters, gabor_population
from neuroprior.similarity import centered_cosine
from neuroprior.types import InputError, Stimuli
from reference.gabor import drive as slow_drive

WHOLE = np.array([[0.0, 0.0], [1.0, 1.0]])


def cells(n: int, complex_fraction: float = 0.5, seed: int = 0) -> Cells:
    return draw_cells(WHOLE, (36, 64), n, complex_fraction, np.random.default_rng(seed))


@pytest.fixture(scope="module")
def shown() -> Stimuli:
    return packaged_photographs("train", n_train=40)


def test_rates_are_those_of_the_slow_form(shown):
    some = cells(12)
    population, rates = gabor_population(some, shown)
    x = (shown.pixels.astype(np.float64) - shown.pixels.mean()) / shown.pixels.std()
    fields = zip(some.centre, some.wavelength, some.angle, some.phase, some.complex_cell, strict=True)
    slow = np.array([[slow_drive(image, *map(_plain, field)) for image in x[:3]] for field in fields]).T
    np.testing.assert_allclose((rates[:3] - population.offset) / population.scale, slow, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(population(shown.pixels.astype(np.float32)), rates)
    np.testing.assert_allclose(rates.mean(axis=0), some.level, rtol=1e-4)
    assert rates.min() > 0


def _plain(value):
    return value.tolist()


def test_filters_are_orthogonal_to_brightness_and_of_unit_length():
    for quarter in (0, 1):
        found = filters(cells(50), np.ones(50, dtype=bool), 36, 64, quarter=quarter).astype(np.float64)
        np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-5)
        np.testing.assert_allclose(np.square(found).sum(axis=1), 1, rtol=1e-5)


def gratings() -> Stimuli:
    x = np.arange(64)[None, :] - 32.0
    phases = np.arange(24) * 2 * np.pi / 24
    images = [np.tile(127.5 + 100 * np.cos(2 * np.pi * x / 16 + phase), (36, 1)) for phase in phases]
    return Stimuli(np.array([f"phase-{i}" for i in range(24)]), np.stack(images).round().astype(np.uint8))


def test_complex_cells_do_not_care_for_phase_and_simple_cells_do():
    for is_complex in (True, False):
        some = cells(400, float(is_complex))
        _, rates = gabor_population(some, gratings())
        inside = ((some.centre > 12) & (some.centre < (52, 24))).all(axis=1)  # whole windows
        modulation = np.median((rates.std(axis=0) / rates.mean(axis=0))[inside])
        assert modulation < 0.2 if is_complex else modulation > 0.7


def test_inverting_contrast_changes_simple_cells_only(shown):
    pixels = shown.pixels.astype(np.float32)
    for is_complex in (True, False):
        population, rates = gabor_population(cells(30, float(is_complex)), shown)
        assert np.allclose(population(255 - pixels), rates, rtol=1e-3) is is_complex


def test_brightness_and_contrast_of_the_whole_set_do_not_matter(shown):
    pixels = shown.pixels // 2
    dim, doubled = Stimuli(shown.ids, pixels + 20), Stimuli(shown.ids, pixels * 2)
    rates = [gabor_population(cells(30), stimuli)[1] for stimuli in (dim, doubled)]
    np.testing.assert_allclose(*rates, rtol=1e-3)


def test_twice_the_contrast_is_less_than_twice_the_drive_unless_there_is_next_to_none(shown):
    population, _ = gabor_population(cells(60), shown)
    drive_only = replace(population, scale=np.ones_like(population.scale), offset=np.zeros_like(population.offset))
    x = shown.pixels.astype(np.float32) - population.pixel_mean

    def ratio(contrast: float) -> np.ndarray:
        once, twice = (drive_only((population.pixel_mean + k * contrast * x).astype(np.float32)) for k in (1, 2))
        return twice[once > 0.02 * contrast] / once[once > 0.02 * contrast]

    at_full = ratio(1.0)
    assert (at_full > 1).all()
    assert (at_full < 2).all()
    assert np.median(at_full) < 1.6
    assert np.median(ratio(0.01)) == pytest.approx(2, abs=0.01)


def test_a_grating_that_grows_beyond_the_field_drives_a_cell_less(shown):
    """Each cell is shown its own grating through a round hole."""
    centre = np.random.default_rng(0).uniform((24, 14), (40, 22), (40, 2))
    some = replace(cells(40), centre=centre, wavelength=np.full(40, 12.0))
    population, _ = gabor_population(some, shown)
    x, y = np.arange(64) + 0.5 - centre[:, :1, None], np.arange(36)[:, None] + 0.5 - centre[:, 1:, None]
    turn = (2 * np.pi / 12 * np.array([np.cos(some.angle), np.sin(some.angle)]))[:, :, None, None]
    wave = np.cos(turn[0] * x + turn[1] * y + some.phase[:, None, None])
    response = {}
    for radius in (3.0, 10.0, 64.0):
        hole = x**2 + y**2 < radius**2
        pixels = (population.pixel_mean + population.pixel_std * wave * hole).astype(np.float32)
        response[radius] = np.diagonal(population(pixels))
    assert np.median(response[10.0] / response[3.0]) > 1.2
    assert np.median(response[64.0] / response[10.0]) < 0.9


def test_cells_that_the_images_do_not_drive_fire_at_their_level(shown):
    pixels = np.full_like(shown.pixels, 128)
    pixels[:, :, :16] = shown.pixels[:, :, :16]
    some = cells(300)
    _, rates = gabor_population(some, Stimuli(shown.ids, pixels))
    far = some.centre[:, 0] - 16 > 6 * 0.4 * some.wavelength
    assert far.any()
    assert (rates.std(axis=0)[far] < 1e-3 * some.level[far]).all()
    np.testing.assert_allclose(rates[:, far].mean(axis=0), some.level[far], rtol=1e-3)
    assert (rates.std(axis=0)[some.centre[:, 0] < 16] > 0.1 * some.level[some.centre[:, 0] < 16]).all()


def test_photographs_are_as_unlike_to_the_cells_as_to_a_mouse():
    """A real mouse's model gives the off-diagonal S of photographs a standard deviation of 0.18."""
    photographs = packaged_photographs("train", n_train=400)
    _, rates = gabor_population(cells(800), photographs)
    similarity = centered_cosine(rates)[np.triu_indices(400, 1)]
    assert 0.08 < similarity.std() < 0.3
    assert np.percentile(np.abs(similarity), 99.9) < 0.98


def test_images_without_any_contrast_are_refused():
    plain = Stimuli(np.array(["a", "b", "c"]), np.full((3, 36, 64), 7, np.uint8))
    with pytest.raises(InputError, match="all pixels of the stimuli are the same"):
        gabor_population(cells(3), plain)
