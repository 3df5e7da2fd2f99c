"""Accuracy under pixel noise (Fig. 4): the same draw for an image at every level and for every network."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import nn

from neuroprior.modes import evaluating, like
from neuroprior.robustness.images import Images, Labels, checked_images, logits_of, random_of
from neuroprior.types import Float, Float64, InputError, Precision

Clip = Literal["none", "unit", "image_range"]
NoiseKind = Literal["gaussian", "uniform", "salt_and_pepper"]

_COMPARED = 1024  # images that are asked in both precisions, before any is trusted to one
_EVERY = 16  # of the others, each so many-th is asked in both as well
_TIMES_APART = 3.0  # two logits move, so twice the largest difference turns an answer; half as much again is asked


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
    sigmas: Sequence[float | int] | float | int,
    *,
    kind: NoiseKind = "gaussian",
    clip: Clip = "none",
    seed: int = 0,
    batch_size: int = 256,
    precision: Precision = "float32",
    progress: Callable[[int, int], None] | None = None,
) -> NoiseCurve:
    """Accuracy on x + sigma n for each sigma (in units of the pixel range, x in [0, 1]).

    `kind`: `gaussian`, n ~ N(0, 1); `uniform`, n ~ U(-sqrt 3, sqrt 3), whose standard deviation is 1 too;
    `salt_and_pepper`: of all values (each channel's own) a share sigma (0 to 1) turns black or white, half each, and
    those of a lower level are among those of a higher one.
    The draw comes from a generator seeded by the image's own pixels and `seed`, so an image meets the same one at every
    sigma, in every network and in any subset. `clip`: `none`, to `unit` [0, 1], or to `image_range`, each image's own
    darkest and brightest pixel. The model is evaluated in evaluation mode and left as it was. `precision`: `bfloat16`
    is faster, and counts the same answers unless some logit moves much more than others do: images whose two best
    classes are too close to call are asked again in float32, too close being 3 times the largest difference of a logit
    between both, over all that were asked in both: the first thousand, each 16th, the close ones.
    Raises `InputError` for images outside [0, 1], labels that do not fit, or levels that the kind does not have.
    """
    images, labels = checked_images("noise", images, labels)
    sigmas = [float(sigma) for sigma in np.atleast_1d(sigmas)]
    for name, value, known in (("kind", kind, NoiseKind), ("clip", clip, Clip)):
        if value not in get_args(known):
            raise InputError(f"noise: {name}={value!r} is not one of {', '.join(get_args(known))}")
    most = 1.0 if kind == "salt_and_pepper" else math.inf
    if any(not 0 <= sigma <= most for sigma in sigmas) or not len(sigmas):
        above = " or above 1" if kind == "salt_and_pepper" else ""
        raise InputError(f"noise: sigmas are {list(sigmas)}; give at least one, none below 0{above}")
    native = like(model)
    device = native.device
    answers = _Answers(model, precision)
    right = np.zeros(len(sigmas), dtype=np.int64)
    with torch.inference_mode(), evaluating(model):
        for start in range(0, len(images), batch_size):
            clean = images[start : start + batch_size].float().cpu()
            wanted = labels[start : start + batch_size].to(device)
            noise = draw_noise(clean, seed, kind).to(device)
            clean = clean.to(device)
            for level, sigma in enumerate(sigmas):
                noisy = clipped(disturbed(clean, noise, float(sigma), kind), clean, clip)
                right[level] += int((answers(noisy.to(native.dtype)) == wanted).sum())
            if progress is not None:
                progress(min(start + batch_size, len(images)), len(images))
    return NoiseCurve(tuple(float(s) for s in sigmas), right / len(images), len(images))


class _Answers:
    """The classes that a network gives, in float32, or in bfloat16 with the close ones asked again."""

    def __init__(self, model: nn.Module, precision: Precision) -> None:
        self.model = model
        self.rough = precision == "bfloat16" and like(model).dtype == torch.float32
        self.apart = 0.0  # the largest difference of a logit seen between both
        self.compared = 0

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        if not self.rough:
            return logits_of("noise", self.model, images).argmax(1)
        with torch.autocast(images.device.type, torch.bfloat16):
            logits = logits_of("noise", self.model, images).float()
        if logits.shape[1] < 2:
            return logits.argmax(1)
        best, second = logits.topk(2).values.unbind(1)
        # NaN is close to everything
        close = ~(best - second > _TIMES_APART * self.apart)
        close[::_EVERY] = True  # so that what is trusted is judged by its like
        if self.compared < _COMPARED:
            close[:] = True
        if bool(close.any()):
            again = logits_of("noise", self.model, images[close])
            moved = (again - logits[close]).abs()
            self.apart = max(self.apart, float(moved.nan_to_num(nan=0.0, posinf=0.0).max()))
            self.compared += len(again)
            logits[close] = again
        return logits.argmax(1)


def draw_noise(
    images: Float[torch.Tensor, "image channel h w"], seed: int, kind: NoiseKind = "gaussian"
) -> Float[torch.Tensor, "image channel h w"]:
    """Noise for each image, seeded by its pixels and `seed`: the image, not its place, decides.

    Of mean 0 and standard deviation 1; for `salt_and_pepper` uniform in [0, 1), to be compared with the level.
    """
    noise = np.empty(tuple(images.shape), dtype=np.float32)
    for row, image in enumerate(images.numpy()):
        random = random_of(image, str(seed))
        if kind == "gaussian":
            noise[row] = random.standard_normal(image.shape, dtype=np.float32)
        else:
            noise[row] = random.random(image.shape, dtype=np.float32)
    drawn = torch.from_numpy(noise)
    return math.sqrt(3) * (2 * drawn - 1) if kind == "uniform" else drawn


def disturbed(clean: torch.Tensor, noise: torch.Tensor, sigma: float, kind: NoiseKind) -> torch.Tensor:
    """Put drawn noise of one level on the images."""
    if kind == "salt_and_pepper":
        peppered = torch.where(noise < sigma / 2, 0.0, clean)
        return torch.where(noise >= 1 - sigma / 2, 1.0, peppered)
    return clean + sigma * noise


def clipped(noisy: torch.Tensor, clean: torch.Tensor, clip: Clip) -> torch.Tensor:
    """Bring noisy pixels back to the range that `clip` names."""
    if clip == "unit":
        return noisy.clamp(0, 1)
    if clip == "image_range":
        return noisy.clamp(clean.amin(dim=(1, 2, 3), keepdim=True), clean.amax(dim=(1, 2, 3), keepdim=True))
    return noisy
