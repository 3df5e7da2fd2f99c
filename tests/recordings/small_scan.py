"""A recording of nine trials that the tests of all formats write, and whether two recordings are the same."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from neuroprior.types import Scan, Stimuli

TRIALS, NEURONS, IMAGES = 9, 5, 4
LAB_IDS = ("imagenet-17", "imagenet-4", "imagenet-923", "noise-4")
LAB_CHANNELS = ("pupil_dilation", "d_pupil_dilation", "running_speed")


def small_scan(
    name: str = "static26872-17-20",
    ids: Sequence[str] = tuple(f"image-{k}" for k in range(IMAGES)),
    channels: Sequence[str] = ("running speed", "pupil size"),
) -> Scan:
    """Two images shown once or twice and two repeatedly, with all that a scan can have."""
    rng = np.random.default_rng(0)
    return Scan(
        name=name,
        stimuli=Stimuli(np.array(ids), rng.integers(0, 256, (IMAGES, 3, 6), np.uint8)),
        trial_image=np.array([0, 1, 2, 3, 3, 2, 3, 2, 0]),
        responses=rng.gamma(2.0, size=(TRIALS, NEURONS)).astype(np.float32),
        tier=np.array(["train", "validation", *["oracle"] * 6, "train"]),
        behavior=rng.random((TRIALS, len(channels)), dtype=np.float32),
        behavior_names=tuple(channels),
        pupil_center=rng.random((TRIALS, 2), dtype=np.float32),
        neuron_xyz=rng.random((NEURONS, 3), dtype=np.float32),
    )


def same(first: Scan, second: Scan) -> bool:
    """Whether every field is equal in kind and to the last bit; what was not tracked (NaN) must be so in both."""
    for field in dataclasses.fields(Scan):
        one, other = getattr(first, field.name), getattr(second, field.name)
        if field.name == "stimuli":
            equal = one.digest == other.digest
        elif isinstance(one, np.ndarray):
            equal = other is not None and one.dtype == other.dtype
            equal = equal and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
        else:
            equal = type(one) is type(other) and one == other
        if not equal:
            return False
    return True


def spoiled(array: np.ndarray, at: tuple[int, ...] | int, value: object) -> np.ndarray:
    """A copy with one value replaced."""
    array = array.copy()
    array[at] = value
    return array


def reidentified(scan: Scan, ids: Sequence[str]) -> Scan:
    """The same recording with other image ids."""
    return dataclasses.replace(scan, stimuli=Stimuli(np.array(ids), scan.stimuli.pixels))
