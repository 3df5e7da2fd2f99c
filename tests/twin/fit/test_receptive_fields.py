"""Where a neuron looks is found from its responses, whether it follows brightness or contrast."""

import numpy as np
import pytest
from small_mouse import gabor, smooth_images

from neuroprior.twin.fit.receptive_fields import first_positions

HEIGHT, WIDTH, TRIALS, NEURONS = 24, 40, 800, 24
NEAR = 3.0  # pixels


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return smooth_images(TRIALS, 3, HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def places() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.column_stack([rng.uniform(4, WIDTH - 5, NEURONS), rng.uniform(4, HEIGHT - 5, NEURONS)])


def cells(kind: str, pixels: np.ndarray, places: np.ndarray, noise: float = 1.0) -> np.ndarray:
    """Responses of simple (brightness at a place, with its sign), Gabor or complex (energy) cells, and noise."""
    rng = np.random.default_rng(1)
    flat = ((pixels - 128.0) / 50).reshape(len(pixels), -1)

    def drive(phase: float) -> np.ndarray:
        angles = np.linspace(0, np.pi, len(places))
        return (
            flat
            @ np.stack([gabor(*pixels.shape[1:], x, y, a, phase) for (x, y), a in zip(places, angles, strict=True)])
            .reshape(len(places), -1)
            .T
        )

    rates = {
        "on": lambda: np.maximum(drive(0.0), 0),
        "off": lambda: np.maximum(-drive(0.0), 0),
        "complex": lambda: np.hypot(drive(0.0), drive(np.pi / 2)),
    }[kind]()
    rates = rates / rates.std(axis=0)
    return np.maximum(rates + noise * rng.standard_normal(rates.shape), 0).astype(np.float32)


def off_by(found: np.ndarray, places: np.ndarray) -> np.ndarray:
    return np.linalg.norm(found - places, axis=1)


@pytest.mark.parametrize("kind", ["on", "off", "complex"])
def test_the_place_of_a_cell_is_found(kind, pixels, places):
    found = first_positions(pixels, cells(kind, pixels, places), None)
    assert np.quantile(off_by(found, places), 0.9) < NEAR
    assert np.median(off_by(np.roll(found, 1, axis=0), places)) > 2 * NEAR  # another cell's place is not near


def test_scale_and_offset_of_responses_do_not_matter(pixels, places):
    responses = cells("on", pixels, places)
    found = first_positions(pixels, responses, None)
    assert np.array_equal(first_positions(pixels, 8 * responses + 16, None), found)


def test_neurons_that_say_nothing_take_what_the_cortex_says(pixels, places):
    turned = (places - (20, 12)) @ np.array([[0.1, 0.04], [-0.06, 0.12]])
    cortex = ((turned - turned.mean(axis=0)) / turned.std(axis=0)).astype(np.float32)
    responses = cells("on", pixels, places)
    unclear = np.arange(NEURONS) % 3 == 0
    rng = np.random.default_rng(2)
    responses[:, unclear] = rng.gamma(2.0, size=(TRIALS, unclear.sum()))
    responses[:, 0] = 1.0  # never varies
    told, alone = (first_positions(pixels, responses, known) for known in (cortex, None))
    lost = (alone == alone[0]).all(axis=1)  # all at the others' mean, as the one that never varies
    assert not (lost & ~unclear).any()
    assert (unclear & ~lost).sum() <= 1  # noise stands out by chance in three neurons of a hundred
    assert off_by(told, places)[lost].max() < NEAR
    assert np.array_equal(told[~lost], alone[~lost])
    assert np.abs(alone[0] - alone[~lost].mean(axis=0)).max() < NEAR
    assert np.median(off_by(alone, places)[lost]) > 2 * NEAR


def test_a_neuron_without_a_cortical_place_takes_the_others_mean_and_changes_no_other(pixels, places):
    cortex = ((places - places.mean(axis=0)) / places.std(axis=0)).astype(np.float32)
    responses = cells("on", pixels, places)
    responses[:, :4] = 1.0  # never vary: placed by the cortex
    whole = first_positions(pixels, responses, cortex)
    cortex[0] = np.nan
    cortex[1, 1] = np.inf
    found = first_positions(pixels, responses, cortex)
    assert np.isfinite(found).all()
    assert np.array_equal(found[4:], whole[4:])
    assert np.abs(found[2:4] - whole[2:4]).max() < 0.1
    alone = first_positions(pixels, responses, None)
    assert np.array_equal(found[:2], alone[:2])
    nobody = np.full_like(cortex, np.nan)
    assert np.array_equal(first_positions(pixels, responses, nobody), alone)
    only_silent = np.where(np.arange(NEURONS)[:, None] < 4, cortex, np.float32(np.nan))
    assert np.array_equal(first_positions(pixels, responses, only_silent), alone)  # nothing to fit a map to


def test_places_lie_in_the_image(pixels, places):
    rng = np.random.default_rng(4)
    noise = rng.gamma(2.0, size=(TRIALS, NEURONS)).astype(np.float32)
    found = first_positions(pixels, noise, 5 * rng.standard_normal((NEURONS, 2)).astype(np.float32))
    assert (found >= 0).all()
    assert (found <= (WIDTH - 1, HEIGHT - 1)).all()
