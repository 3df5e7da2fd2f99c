"""A mouse of a few neurons that look at small smooth images: what the tests of fitting fit."""

from dataclasses import replace

import numpy as np
from scipy import ndimage

from neuroprior.types import Float64, Scan, Stimuli, UInt8

HEIGHT, WIDTH = 16, 24


def smooth_images(n: int, seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> UInt8[np.ndarray, "image h w"]:
    """Noise that is smooth over about two pixels, mean 128 and standard deviation 50."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((n, height, width)), (0, 1.2, 1.2))
    return np.clip(128 + 50 * noise / noise.std(), 0, 255).astype(np.uint8)


def gabor(height: int, width: int, x: float, y: float, angle: float, phase: float) -> Float64[np.ndarray, "h w"]:
    """A Gabor filter of norm 1 at x, y in pixels."""
    rows, columns = np.mgrid[:height, :width]
    across = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
    envelope = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 1.6**2))
    wave = envelope * np.cos(2 * np.pi * across / 7 + phase)
    return wave / np.linalg.norm(wave)


def small_mouse(
    name: str = "mouse",
    *,
    n_neurons: int = 30,
    n_images: int = 120,
    n_oracle: int = 10,
    repeats: int = 6,
    seed: int = 0,
    gain: float = 0.0,
    noise: float = 0.5,
    gaze: float = 0.0,
) -> Scan:
    """Rectified Gabor cells with gamma noise (variance `noise` times the squared rate), each with a unit of its own.

    `gain`: how much one behaviour channel multiplies responses: exp(gain b). `gaze`: how many pixels all fields move in
    the image, right and up, when the pupil moves one standard deviation right and down. `n_images` are shown once,
    `n_oracle` oracle images `repeats` times. Same images for all seeds; the seed draws neurons, behaviour and noise.
    """
    rng = np.random.default_rng(seed + 1000)
    pixels = smooth_images(n_images + n_oracle)
    ids = np.array([f"image-{k:03d}" for k in range(n_images)] + [f"oracle-{k:02d}" for k in range(n_oracle)])
    places = np.column_stack([rng.uniform(5, WIDTH - 6, n_neurons), rng.uniform(5, HEIGHT - 6, n_neurons)])
    shapes = np.stack([gabor(HEIGHT, WIDTH, x, y, *rng.uniform(0, np.pi, 2)) for x, y in places])
    trial_image = np.concatenate([np.arange(n_images), n_images + np.repeat(np.arange(n_oracle), repeats)])
    order = rng.permutation(len(trial_image))
    trial_image = trial_image[order].astype(np.int64)
    behavior = rng.standard_normal((len(order), 2))
    pupil = np.random.default_rng(seed + 2000).standard_normal((len(order), 2))
    contrast = (pixels - 128.0) / 50
    if gaze:
        seen = np.stack(
            [ndimage.shift(contrast[k], (gaze * y, -gaze * x)) for k, (x, y) in zip(trial_image, pupil, strict=True)]
        )
    else:
        seen = contrast[trial_image]
    drive = seen.reshape(len(order), -1) @ shapes.reshape(n_neurons, -1).T
    rates = np.log1p(np.exp(1.5 * drive / drive.std(axis=0)))
    mean = rates * np.exp(gain * behavior[:, :1])
    responses = rng.gamma(1 / noise, mean * noise) * rng.uniform(0.5, 4, n_neurons)
    return Scan(
        name=name,
        stimuli=Stimuli(ids, pixels),
        trial_image=trial_image,
        responses=responses.astype(np.float32),
        tier=np.where(trial_image < n_images, "train", "oracle"),
        behavior=(5 + 3 * behavior).astype(np.float32),
        behavior_names=("running speed", "pupil size"),
        pupil_center=(100 + 7 * pupil).astype(np.float32),
        neuron_xyz=np.column_stack([places * 20, np.full(n_neurons, 200)]).astype(np.float32),
    )


def neurons_of(scan: Scan, some: list[int] | slice, name: str | None = None) -> Scan:
    """The same trials, of these neurons."""
    xyz = None if scan.neuron_xyz is None else scan.neuron_xyz[some]
    return replace(scan, name=name or scan.name, responses=scan.responses[:, some], neuron_xyz=xyz)


def trials_of(scan: Scan, some: np.ndarray, name: str | None = None) -> Scan:
    """These trials of a scan, in this order."""
    return replace(
        scan,
        name=name or scan.name,
        trial_image=scan.trial_image[some],
        responses=scan.responses[some],
        tier=scan.tier[some],
        behavior=None if scan.behavior is None else scan.behavior[some],
        pupil_center=None if scan.pupil_center is None else scan.pupil_center[some],
    )
