"""What all scans of one simulated animal share: how its cortex maps the screen, and how it runs, dilates and looks."""

from dataclasses import dataclass

import numpy as np

from neuroprior.types import Float64

_MICROMETRES_A_PIXEL = 20.0  # cortical magnification, about 10 micrometres a degree
_FIELD = np.array((0.55, 0.85))  # of the screen's width and height: what neurons of one field of view look at
_TRACKER_PIXELS = 4.0  # of the eye camera for one pixel of the screen, about 2 degrees


@dataclass(frozen=True, slots=True, eq=False)
class Animal:
    """One mouse. A scan of it adds the neurons under the microscope, the order of trials and the noise."""

    cortex_map: Float64[np.ndarray, "2 2"]
    """Micrometres on the cortex of a step of one image pixel: magnification and rotation of the retinotopic map."""
    field: Float64[np.ndarray, "corner 2"]
    """Low and high corner (x, y), in parts of the image, of where its imaged neurons look."""
    running_fraction: float
    """Part of the trials on which it runs."""
    bout: float
    """Mean number of trials that it goes on running."""
    speed: float
    """Median running speed within a bout, cm/s."""
    pupil_mean: float
    """Mean pupil size, tracker pixels."""
    pupil_spread: float
    """Standard deviation of the pupil size, tracker pixels."""
    tracker_map: Float64[np.ndarray, "2 2"]
    """Tracker pixels that the pupil moves for a gaze shift of one image pixel."""
    tracker_origin: Float64[np.ndarray, " 2"]
    """Where the tracker sees the pupil at neutral gaze."""


def stream(seed: int, *key: int) -> np.random.Generator:
    """Return the random numbers of one purpose: each key its own, whatever the others draw."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def draw_animal(rng: np.random.Generator) -> Animal:
    """Draw a mouse: about 30 % running in bouts of about 12 trials at about 10 cm/s; a pupil of 35 +- 6 pixels."""
    magnification = _MICROMETRES_A_PIXEL * np.exp(0.1 * rng.standard_normal())
    tracked = _TRACKER_PIXELS * np.exp(0.1 * rng.standard_normal())
    middle = np.clip(0.5 + 0.03 * rng.standard_normal(2), _FIELD / 2, 1 - _FIELD / 2)
    cortex, camera = np.deg2rad((10 * rng.standard_normal(), 5 * rng.standard_normal()))
    return Animal(
        cortex_map=magnification * _rotation(cortex),
        field=np.stack([middle - _FIELD / 2, middle + _FIELD / 2]),
        running_fraction=float(rng.uniform(0.2, 0.4)),
        bout=float(rng.uniform(8, 16)),
        speed=float(10 * np.exp(0.3 * rng.standard_normal())),
        pupil_mean=float(35 * np.exp(0.1 * rng.standard_normal())),
        pupil_spread=float(6 * np.exp(0.1 * rng.standard_normal())),
        tracker_map=tracked * _rotation(camera),
        tracker_origin=rng.uniform((140, 100), (180, 140)),
    )


def _rotation(angle: float) -> Float64[np.ndarray, "2 2"]:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def on_the_cortex(
    animal: Animal, centre: Float64[np.ndarray, "neuron 2"], rng: np.random.Generator
) -> Float64[np.ndarray, "neuron 3"]:
    """Where cells with these receptive field centres (x, y in pixels) lie, in micrometres: layer 2/3, retinotopic.

    The map is smooth, cells are not: each is off by what a pixel of the screen (s.d.) is on the cortex.
    """
    scattered = (centre + rng.standard_normal(centre.shape)) @ animal.cortex_map.T
    return np.hstack([scattered, rng.uniform(150.0, 300.0, (len(centre), 1))])
