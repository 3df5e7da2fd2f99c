"""Targets that no brain made: how alike images are pixel by pixel, sharp or blurred."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch.nn import functional as F

from neuroprior.similarity.cosine import centered_cosine
from neuroprior.types import Float, Float32, InputError, SimilarityTarget, Stimuli
from neuroprior.types.given import refuse_other


def pixel_target(stimuli: Stimuli, *, threshold: float | int | None = 0.8) -> SimilarityTarget:
    """S = Eq. 2 of the pixels, then 1 where S > threshold, -1 where S < -threshold, else 0 (Attias et al. 2024).

    Each pixel's mean over the images is taken away; the diagonal stays 1. `threshold=None` keeps S as it is (`raw`).
    Raises `InputError` for a threshold outside [0, 1), or naming an image whose pixels are the mean.
    """
    refuse_other("pixel_target", stimuli, Stimuli)
    if threshold is not None and not 0 <= threshold < 1:
        raise InputError(
            f"pixel control: threshold is {threshold}; it must be from 0 to below 1, or None for S as it is"
        )
    similarity = _similarity("pixel control", _pixels(stimuli), stimuli)
    if threshold is not None:
        similarity = (similarity > threshold).astype(np.float32) - (similarity < -threshold)
    return _target(stimuli, similarity, {"control": "pixel", "threshold": "raw" if threshold is None else threshold})


def lowpass_target(stimuli: Stimuli, *, sigma: float | int = 4.0) -> SimilarityTarget:
    """S = Eq. 2 of the pixels after a Gaussian blur of `sigma` pixels, reflected at the borders, cut at 4 sigma.

    Raises `InputError` for images smaller than the kernel, or naming an image whose blurred pixels are the mean.
    """
    refuse_other("lowpass_target", stimuli, Stimuli)
    blurred = _blur(torch.from_numpy(_pixels(stimuli)), sigma).numpy()
    similarity = _similarity("lowpass control", blurred, stimuli)
    return _target(stimuli, similarity, {"control": "lowpass", "sigma": sigma})


def _pixels(stimuli: Stimuli) -> Float32[np.ndarray, "image height width"]:
    scaled: np.ndarray = stimuli.pixels.astype(np.float32) / np.float32(255)
    return scaled


def _similarity(what: str, pixels: np.ndarray, stimuli: Stimuli) -> Float[np.ndarray, "image image"]:
    try:
        return centered_cosine(pixels.reshape(len(pixels), -1), stimuli.ids)
    except InputError as error:
        raise InputError(f"{what}, whose responses are the pixels: {error}") from None


def _blur(images: Float[torch.Tensor, "image h w"], sigma: float | int) -> Float[torch.Tensor, "image h w"]:
    if not 0 < sigma < math.inf:
        raise InputError(f"lowpass control: sigma is {sigma} pixels; it must be above 0, and finite")
    radius = max(1, math.ceil(4 * sigma))
    if min(images.shape[1:]) <= radius:
        raise InputError(
            f"lowpass control: images of {images.shape[1]}x{images.shape[2]} are too small for a kernel reaching "
            f"{radius} pixels; lower sigma"
        )
    kernel = torch.exp(-(torch.arange(-radius, radius + 1, dtype=torch.float64) ** 2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).to(images.dtype)
    across = F.conv2d(F.pad(images[:, None], (radius, radius, 0, 0), mode="reflect"), kernel.view(1, 1, 1, -1))
    return F.conv2d(F.pad(across, (0, 0, radius, radius), mode="reflect"), kernel.view(1, 1, -1, 1))[:, 0]


def _target(stimuli: Stimuli, similarity: np.ndarray, details: Mapping[str, str | float | int]) -> SimilarityTarget:
    return SimilarityTarget(
        matrix=similarity,
        image_ids=stimuli.ids,
        stimuli_digest=stimuli.digest,
        source="user",  # neither a population nor a network was asked
        details=details,
    )
