"""What a lab hands over and what is first made of it: images, recordings, weights, mean responses."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from neuroprior.types.arrays import Float32, Float64, InputError, Int64, Shaped, UInt8, checked_ids, freeze, rows_of

if TYPE_CHECKING:
    import torch

Tier = Literal["train", "validation", "oracle"]
ResponseSource = Literal["recorded", "twin", "network"]

_ROWS = 256  # trials looked at together


@dataclass(frozen=True, slots=True, eq=False)
class Stimuli:
    """Gray images that were (or could be) shown to an animal.

    `ids`: one unique string an image. `pixels`: uint8, 0 black to 255 white, `(image, height, width)`.
    """

    ids: Shaped[np.ndarray, " image"]
    pixels: UInt8[np.ndarray, "image height width"]

    def __post_init__(self) -> None:
        checked_ids(self.ids, "stimuli")
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 3:
            raise InputError(
                f"stimuli: pixels must be uint8 (image, height, width), got {self.pixels.dtype} {self.pixels.shape}; "
                "convert colour to gray and scale to 0..255 first"
            )
        if len(self.ids) != len(self.pixels):
            raise InputError(f"stimuli: {len(self.ids)} ids for {len(self.pixels)} images; give one id an image")
        freeze(self, "ids", "pixels")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def digest(self) -> str:
        """SHA-256 of ids, shape and pixels, in this order: equal exactly when the images and their order are."""
        sha = hashlib.sha256(json.dumps([self.ids.tolist(), list(self.pixels.shape)]).encode())
        sha.update(np.ascontiguousarray(self.pixels).data)
        return sha.hexdigest()

    def tensor(self) -> "torch.Tensor":
        """The images as a network takes them: a copy, float32 in [0, 1], `(image, 1, height, width)`."""
        import torch

        return torch.tensor(self.pixels)[:, None].float() / 255

    def select(self, ids: Sequence[str] | np.ndarray) -> "Stimuli":
        """Return the images named by `ids` (one, or several), in that order; `InputError` when one is not here."""
        if len(ids) == len(self.ids) and np.array_equal(ids, self.ids):
            return self  # pixels that are memory-mapped stay on disk
        rows = rows_of(self.ids, ids, "stimuli")
        return Stimuli(self.ids[rows], self.pixels[rows])


def two_tiers(trial_image: Int64[np.ndarray, " trial"], tier: Shaped[np.ndarray, " trial"]) -> tuple[int, int] | None:
    """Return two trials of one image that are of different tiers, the first such pair; None where there is none."""
    _, first, image = np.unique(trial_image, return_index=True, return_inverse=True)
    differs = np.flatnonzero(tier != tier[first[image]])
    return (int(first[image[differs[0]]]), int(differs[0])) if len(differs) else None


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """One recording: many trials, each an image and the responses of all neurons.

    `trial_image`: row of `stimuli`. `responses`: any non-negative activity measure, one unit for the whole scan.
    `behavior`: one column a name (running speed, pupil size, ...). `pupil_center`: x, y in the tracker's pixels.
    `neuron_xyz`: cortical coordinates in micrometres. `tier`: train, validation or oracle (shown repeatedly), the same
    on every trial of an image. Behaviour and pupil may be NaN where they were not tracked; responses may not.
    `notes`: what was done to the file on the way in, a line each.
    """

    name: str
    stimuli: Stimuli
    trial_image: Int64[np.ndarray, " trial"]
    responses: Float32[np.ndarray, "trial neuron"]
    tier: Shaped[np.ndarray, " trial"]
    behavior: Float32[np.ndarray, "trial channel"] | None = None
    behavior_names: tuple[str, ...] = ()
    pupil_center: Float32[np.ndarray, "trial 2"] | None = None
    neuron_xyz: Float32[np.ndarray, "neuron 3"] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.trial_image)
        for field_name in ("responses", "tier", "behavior", "pupil_center"):
            value = getattr(self, field_name)
            if value is not None and len(value) != n:
                raise InputError(f"scan {self.name}: {field_name} has {len(value)} rows for {n} trials")
        outside = self.trial_image[(self.trial_image < 0) | (self.trial_image >= len(self.stimuli))]
        if len(outside):
            raise InputError(f"scan {self.name}: trial_image names row {outside[0]} of {len(self.stimuli)} images")
        if self.neuron_xyz is not None and len(self.neuron_xyz) != self.responses.shape[1]:
            raise InputError(
                f"scan {self.name}: neuron_xyz has {len(self.neuron_xyz)} rows for {self.responses.shape[1]} neurons"
            )
        unknown = set(np.unique(self.tier).tolist()) - set(get_args(Tier))
        if unknown:
            raise InputError(f"scan {self.name}: tier {sorted(unknown)[0]!r} is not one of {', '.join(get_args(Tier))}")
        two = two_tiers(self.trial_image, self.tier)
        if two is not None:
            shown = str(self.stimuli.ids[self.trial_image[two[0]]])
            first, second = (str(self.tier[trial]) for trial in two)
            raise InputError(
                f"scan {self.name}: image {shown!r} is of tier {first!r} on trial {two[0]} and of {second!r} on trial "
                f"{two[1]}; give an image one tier"
            )
        for start in range(0, n, _ROWS):  # so that responses in a file are never held whole
            finite = np.isfinite(self.responses[start : start + _ROWS])
            if not finite.all():
                trial, neuron = np.argwhere(~finite)[0]
                raise InputError(
                    f"scan {self.name}: response of neuron {neuron} on trial {start + trial} is not finite; drop it"
                )
        channels = 0 if self.behavior is None else self.behavior.shape[1]
        if channels != len(self.behavior_names):
            raise InputError(f"scan {self.name}: {len(self.behavior_names)} behavior_names for {channels} channels")
        freeze(self, "trial_image", "responses", "tier", "behavior", "pupil_center", "neuron_xyz")

    @property
    def trial_ids(self) -> Shaped[np.ndarray, " trial"]:
        """The image id shown on each trial."""
        ids: np.ndarray = self.stimuli.ids[self.trial_image]
        return ids


@dataclass(frozen=True, slots=True, eq=False)
class NeuronWeights:
    """Reliability of each neuron: variances of Eq. 1, in the squared unit of the responses."""

    signal_variance: Float64[np.ndarray, " neuron"]
    noise_variance: Float64[np.ndarray, " neuron"]

    def __post_init__(self) -> None:
        freeze(self, "signal_variance", "noise_variance")

    @property
    def snr(self) -> Float64[np.ndarray, " neuron"]:
        """`w = sigma / eta` (Eq. 1); a neuron without noise variance (silent or constant) gets 0, never inf or NaN."""
        heard = self.noise_variance > 0
        ratio = np.divide(
            self.signal_variance, self.noise_variance, out=np.zeros_like(self.noise_variance), where=heard
        )
        weights: np.ndarray = np.sqrt(np.maximum(ratio, 0.0))
        return weights


@dataclass(frozen=True, slots=True, eq=False)
class Population:
    """Mean response of every neuron to every image, and the weight each neuron is given in the similarity."""

    image_ids: Shaped[np.ndarray, " image"]
    mean: Float32[np.ndarray, "image neuron"]
    weights: Float32[np.ndarray, " neuron"]
    source: ResponseSource

    def __post_init__(self) -> None:
        checked_ids(self.image_ids, "population")
        if len(self.image_ids) != len(self.mean):
            raise InputError(f"population: {len(self.image_ids)} image ids for {len(self.mean)} response vectors")
        if len(self.weights) != self.mean.shape[1]:
            raise InputError(f"population: {len(self.weights)} weights for {self.mean.shape[1]} neurons")
        freeze(self, "image_ids", "mean", "weights")

    def select(self, ids: Sequence[str] | np.ndarray) -> "Population":
        """Return the responses to the images named by `ids`, in that order; `InputError` when one is not here."""
        rows = rows_of(self.image_ids, ids, "population")
        return Population(self.image_ids[rows], self.mean[rows], self.weights, self.source)
