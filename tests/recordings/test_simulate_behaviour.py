"""What the simulated mouse does between trials, and what that does to its responses."""

import numpy as np
import pytest

from neuroprior.recordings import STILL, Behaviour, packaged_photographs
from neuroprior.recordings.simulate.animal import draw_animal, stream
from neuroprior.recordings.simulate.behaviour import (
    Behaved,
    behave,
    draw_modulation,
    gaze_nodes,
    mean_speed,
    shifted,
)
from neuroprior.recordings.simulate.cells import draw_cells, gabor_population
from neuroprior.types import InputError


@pytest.fixture(scope="module")
def animal():
    return draw_animal(stream(3, 0, 0))


@pytest.fixture(scope="module")
def behaved(animal):
    return behave(animal, Behaviour(), 100_000, stream(3, 1))


def images() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (5, 7, 9)).astype(np.float32)


def test_a_shift_by_whole_pixels_moves_the_image_and_repeats_its_edge():
    pixels = images()
    moved = shifted(pixels, np.tile([2.0, -1.0], (5, 1)))
    np.testing.assert_array_equal(moved[:, 1:, :-2], pixels[:, :-1, 2:])
    np.testing.assert_array_equal(moved[:, 0], moved[:, 1])
    np.testing.assert_array_equal(moved[:, :, -1], moved[:, :, -3])
    np.testing.assert_array_equal(shifted(pixels, np.zeros((5, 2))), pixels)


def test_a_shift_in_between_is_bilinear_and_each_image_has_its_own():
    pixels = images()
    gaze = np.random.default_rng(1).normal(0, 3, (5, 2))
    slow = np.empty_like(pixels)
    for k in range(5):
        for y in range(7):
            for x in range(9):
                at_x, at_y = x + gaze[k, 0], y + gaze[k, 1]
                low_x, low_y = int(np.floor(at_x)), int(np.floor(at_y))
                slow[k, y, x] = sum(
                    (1 - abs(at_x - cx)) * (1 - abs(at_y - cy)) * pixels[k, np.clip(cy, 0, 6), np.clip(cx, 0, 8)]
                    for cx in (low_x, low_x + 1)
                    for cy in (low_y, low_y + 1)
                )
    np.testing.assert_allclose(shifted(pixels, gaze), slow, rtol=1e-4)


def test_behaviour_is_as_the_animal_s_statistics_say_from_the_first_trial_on(animal, behaved):
    runs = behaved.speed > 0
    assert runs.mean() == pytest.approx(animal.running_fraction, rel=0.1)
    assert 1 / (1 - runs[1:][runs[:-1]].mean()) == pytest.approx(animal.bout, rel=0.05)
    assert np.median(behaved.speed[runs]) == pytest.approx(animal.speed, rel=0.05)
    assert behaved.speed.mean() == pytest.approx(mean_speed(animal), rel=0.1)
    assert behaved.pupil.mean() == pytest.approx(animal.pupil_mean, rel=0.02)
    assert behaved.pupil.std() == pytest.approx(animal.pupil_spread, rel=0.03)
    assert np.corrcoef(np.log1p(behaved.speed), behaved.pupil)[0, 1] == pytest.approx(0.5, abs=0.05)
    assert behaved.gaze.std(axis=0) == pytest.approx([1.0, 0.5], rel=0.03)
    for series in (behaved.pupil, *behaved.gaze.T, np.log1p(behaved.speed)):
        assert np.corrcoef(series[1:], series[:-1])[0, 1] > 0.6
    first = np.array([behave(animal, Behaviour(), 1, stream(seed, 1)).gaze[0, 0] for seed in range(2000)])
    assert first.std() == pytest.approx(1, rel=0.1)


def test_the_tracker_sees_the_gaze(animal, behaved):
    design = np.column_stack([behaved.gaze, np.ones(len(behaved.gaze))])
    found, residual, *_ = np.linalg.lstsq(design, behaved.pupil_center, rcond=None)
    np.testing.assert_allclose(found[:2], animal.tracker_map.T, atol=0.02)
    np.testing.assert_allclose(found[2], animal.tracker_origin, atol=0.02)
    np.testing.assert_allclose(np.sqrt(residual / len(design)), 0.3, rtol=0.02)


def test_the_columns_are_pupil_its_change_and_speed(behaved):
    pupil, change, speed = behaved.columns.T
    np.testing.assert_allclose(pupil, behaved.pupil, rtol=1e-6)
    np.testing.assert_allclose(change[1:], np.diff(behaved.pupil), atol=1e-4)
    assert change[0] == 0
    np.testing.assert_allclose(speed, behaved.speed, rtol=1e-6)


def gain(modulation, behaved: Behaved, shared: np.ndarray) -> np.ndarray:
    states, sources = modulation.gains(behaved, shared)
    return np.exp((states @ sources).astype(np.float64))


def at_rest(animal, **changes) -> Behaved:
    state = {"speed": mean_speed(animal), "pupil": animal.pupil_mean, **changes}
    return Behaved(np.array([state["speed"]]), np.array([state["pupil"]]), np.zeros((1, 2)), np.zeros((1, 2)))


def test_gain_is_one_at_mean_speed_and_mean_pupil_and_nowhere_else(animal):
    modulation = draw_modulation(animal, Behaviour(), 0.0, 1, 200, stream(3, 2))
    still = np.zeros((1, 1))
    np.testing.assert_allclose(gain(modulation, at_rest(animal), still), 1, atol=1e-6)
    for changes in ({"speed": 0.0}, {"speed": 30.0}, {"pupil": animal.pupil_mean + 5}):
        assert np.abs(np.log(gain(modulation, at_rest(animal, **changes), still))).mean() > 0.03
    faster = gain(modulation, at_rest(animal, speed=30.0), still) > 1
    assert 0.8 < faster.mean() < 1  # most cells fire more, some less
    nothing = draw_modulation(animal, STILL, 0.0, 1, 200, stream(3, 2))
    np.testing.assert_array_equal(gain(nothing, at_rest(animal, speed=30.0), still), 1)


def test_the_moments_of_the_gain_are_those_of_a_long_session(animal, behaved):
    modulation = draw_modulation(animal, Behaviour(0.3, 0.2, 0.0), 0.3, 2, 6, stream(3, 2))
    drawn = gain(modulation, behaved, stream(3, 3).standard_normal((len(behaved.speed), 2)))
    np.testing.assert_allclose(drawn.mean(axis=0), modulation.moment(1), rtol=0.03)
    np.testing.assert_allclose(np.square(drawn).mean(axis=0), modulation.moment(2), rtol=0.08)
    alone = draw_modulation(animal, STILL, 0.3, 2, 6, stream(3, 2))
    np.testing.assert_allclose(alone.moment(1), 1)
    np.testing.assert_allclose(alone.moment(2), np.exp(np.square(alone.loadings).sum(axis=1)))


def test_sixteen_gazes_stand_for_all(animal):
    """Mean over the images and variance of the rates over gaze, against a thousand drawn gazes."""
    shown = packaged_photographs("train", n_train=30)
    cells = draw_cells(animal.field, (36, 64), 60, 0.5, stream(3, 4))
    population, _ = gabor_population(cells, shown)
    for spread in (0.7, 1.5):
        gazes = stream(3, 5).standard_normal((1000, 2)) * (spread, spread / 2)
        nodes = gaze_nodes(spread)
        assert len(nodes) == 16
        np.testing.assert_allclose(nodes.T @ nodes / 16, np.diag([spread**2, spread**2 / 4]), atol=1e-12)
        expected: dict[str, list] = {"many": [], "few": []}
        scatter: dict[str, list] = {"many": [], "few": []}
        for image in shown.pixels[:6].astype(np.float32):
            for name, some in (("many", gazes), ("few", nodes)):
                rates = population(shifted(np.tile(image, (len(some), 1, 1)), some)).astype(np.float64)
                expected[name].append(rates.mean(axis=0))
                scatter[name].append(rates.var(axis=0))
        signal = np.var(expected["few"], axis=0) / np.var(expected["many"], axis=0)
        noise = np.mean(scatter["few"], axis=0) / np.mean(scatter["many"], axis=0)
        assert np.median(signal) == pytest.approx(1, abs=0.02)
        assert np.median(noise) == pytest.approx(1, abs=0.06)
        assert np.abs(np.log(signal)).mean() < 0.05
    np.testing.assert_array_equal(gaze_nodes(0.0), [[0.0, 0.0]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"running_gain": 2.0}, "running_gain is 2.0; it must be between -1 and 1"),
        ({"pupil_gain": float("nan")}, "pupil_gain is nan"),
        ({"gaze_spread": -1.0}, "gaze_spread is -1.0; it must be 0 or more"),
    ],
)
def test_behaviour_out_of_range_is_said(options, message):
    with pytest.raises(InputError, match=message):
        Behaviour(**options)
