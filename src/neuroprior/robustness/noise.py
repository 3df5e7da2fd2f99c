"""Accuracy under Gaussian pixel noise (Fig. 4): the same draw for an image at every level and for every network."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import nn

from neuroprior.modes import evaluating, like
from neuroprior.robustness.images import Images, Labels, checked_images, logits_of, random_of
from neuroprior.types import Float, Float64, InputError

Clip = Literal["none", "unit", "image_range"]


@dataclass(frozen=True, slots=True, eq=False)
class NoiseCurve:
    """Accuracy (0 to 1) at each noise level, over `n` images."""

    sigmas: tuple[float, ...]
    accuracy: Float64[np.ndarray, " level"]
    n: int


def noise_accuracy(
    model: nn.Module,
    images: Images,
    labels: Labels,
    sigmas: Sequence[float | int],
    *,
    clip: Clip = "none",
    seed: int = 0,
    batch_size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> NoiseCurve:
    """Accuracy on x + sigma n, n ~ N(0, 1), for each sigma (in units of the pixel range, x in [0, 1]).

    n is drawn from a generator seeded by the image's own pixels and `seed`, so an image meets the same draw at every
    sigma, in every network and in any subset. `clip`: `none`, to `unit` [0, 1], or to `image_range`, each image's own
    darkest and brightest pixel. The model is evaluated in evaluation mode and left as it was.
    Raises `InputError` for images outside [0, 1], labels that do not fit, or negative sigmas.
    """
    images, labels = checked_images("noise", images, labels)
    if any(sigma < 0 for sigma in sigmas) or not len(sigmas):
        raise InputError(f"noise: sigmas are {list(sigmas)}; give at least one, none below 0")
    if clip not in get_args(Clip):
        raise InputError(f"noise: clip={clip!r} is not one of {', '.join(get_args(Clip))}")
    native = like(model)
    device = native.device
    right = np.zeros(len(sigmas), dtype=np.int64)
    with torch.inference_mode(), evaluating(model):
        for start in range(0, len(images), batch_size):
            clean = images[start : start + batch_size].float().cpu()
            wanted = labels[start : start + batch_size].to(device)
            noise = draw_noise(clean, seed).to(device)
            clean = clean.to(device)
            for level, sigma in enumerate(sigmas):
                logits = logits_of("noise", model, clipped(clean + sigma * noise, clean, clip).to(native.dtype))
                right[level] += int((logits.argmax(1) == wanted).sum())
            if progress is not None:
                progress(min(start + batch_size, len(images)), len(images))
    return NoiseCurve(tuple(float(s) for s in sigmas), right / len(images), len(images))


def draw_noise(images: Float[torch.Tensor, "image channel h w"], seed: int) -> Float[torch.Tensor, "image channel h w"]:
    """Standard normal noise for each image, seeded by its pixels and `seed`: the image, not its place, decides."""
    noise = np.empty(tuple(images.shape), dtype=np.float32)
    for row, image in enumerate(images.numpy()):
        noise[row] = random_of(image, str(seed)).standard_normal(image.shape, dtype=np.float32)
    return torch.from_numpy(noise)


def clipped(noisy: torch.Tensor, clean: torch.Tensor, clip: Clip) -> torch.Tensor:
    """Bring noisy pixels back to the range that `clip` names."""
    if clip == "unit":
        return noisy.clamp(0, 1)
    if clip == "image_range":
        return noisy.clamp(clean.amin(dim=(1, 2, 3), keepdim=True), clean.amax(dim=(1, 2, 3), keepdim=True))
    return noisy
