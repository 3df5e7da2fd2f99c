"""How much a network's answers, and what fools it, owe to low spatial frequencies (after Li et al. 2023).

Spectra of images and perturbations, accuracy on filtered images, and hybrid images: one image's low frequencies with
the high ones of another (PLOS Computational Biology 19(3), e1010932). Frequencies are radii in cycles per image, those
of an image that is not square in cycles per its shorter side; every channel is filtered alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
import torch
from torch import nn

from neuroprior.modes import evaluating, like
from neuroprior.robustness.images import Images, Labels, checked_images, logits_of, random_of
from neuroprior.types import Float, Float64, InputError, Int64

Band = Literal["low", "high"]
Edge = Literal["ideal", "gaussian"]
Around = Literal["mean", "gray", "zero"]
Counted = Literal["right", "all"]

_AT_A_TIME = 256  # images whose spectra are held at once
_ROUNDING = 1e-6  # of the pixel range; what is farther outside of it counts as clipped
_NOTHING = 1e-24  # of an image's mean square: what is left of one that is constant, its mean removed


@dataclass(frozen=True, slots=True, eq=False)
class RadialSpectrum:
    """The mean spectrum of `n` images, ring by ring: ring k holds the radii in [k - 1/2, k + 1/2) cycles per image.

    `coefficients`: how many of the transform lie in the ring. `power`: mean square pixel value that it holds. `share`:
    mean over images of the ring's part of each image's own power; shares sum to 1. `centroids`: mean frequency of each
    image, its power's first moment, in cycles per image; NaN for rows left out, which are the `missing` (all NaN:
    nothing was found) and the `empty` (no power at all).
    """

    side: int
    coefficients: Int64[np.ndarray, " ring"]
    power: Float64[np.ndarray, " ring"]
    share: Float64[np.ndarray, " ring"]
    centroids: Float64[np.ndarray, " image"]
    missing: int
    empty: int

    @property
    def n(self) -> int:
        """How many images were measured."""
        return len(self.centroids) - self.missing - self.empty

    @property
    def cycles_per_image(self) -> Float64[np.ndarray, " ring"]:
        """The rings' radii; along rows and columns the highest is side / 2, along diagonals more."""
        return np.arange(len(self.power), dtype=np.float64)

    @property
    def cycles_per_pixel(self) -> Float64[np.ndarray, " ring"]:
        """The rings' radii; along rows and columns the highest is 1/2."""
        return self.cycles_per_image / self.side

    @property
    def density(self) -> Float64[np.ndarray, " ring"]:
        """share / coefficients: flat for white noise, whose share grows with the ring."""
        return np.asarray(self.share / self.coefficients)

    @property
    def half_power(self) -> float:
        """f_0.5, half power frequency: below it, in cycles per image, lies half of the shares (even in each ring)."""
        if not self.n:
            return float("nan")
        edges = np.concatenate([[0.0], self.cycles_per_image + 0.5])
        return float(np.interp(0.5, np.concatenate([[0.0], np.cumsum(self.share)]), edges))


def radial_spectrum(images: Images, *, mean: Literal["kept", "removed"] = "kept") -> RadialSpectrum:
    """P(u, v) = |sum_xy I(x, y) exp(-2 pi i (u x + v y))|^2 / N^2 for N pixels, summed over rings, mean over channels.

    By Parseval the sum of all rings is the image's mean square. `images` may be perturbations x' - x of any sign; rows
    of NaN, where nothing was found, and rows of zeros are left out and counted. `mean`: `removed` leaves out each
    channel's own mean, which is all that ring 0 holds.
    Raises `InputError` for arrays of another shape, or single values that are not finite.
    """
    given = torch.as_tensor(images).detach()
    if given.ndim != 4 or not len(given) or not given.is_floating_point():
        raise InputError(
            f"frequency: images are {tuple(given.shape)} of {given.dtype}; give floats (image, channel, height, width)"
        )
    radius = _radius(given.shape[2], given.shape[3]).flatten()
    ring = (radius + 0.5).floor().long()
    coefficients = torch.bincount(ring)
    rings = torch.full((len(given), len(coefficients)), torch.nan, dtype=torch.float64)
    moment = torch.full((len(given),), torch.nan, dtype=torch.float64)
    missing, empty = 0, 0
    for start in range(0, len(given), _AT_A_TIME):
        part = given[start : start + _AT_A_TIME].cpu().double()
        lost = part.isnan().flatten(1).all(1)
        if not bool(part[~lost].isfinite().all()):
            raise InputError(
                "frequency: some values are not finite; only whole rows may be NaN, where nothing is found"
            )
        power = torch.fft.fft2(part.nan_to_num(0), norm="forward").abs().square().mean(1).flatten(1)
        sums = torch.zeros(len(part), len(coefficients), dtype=torch.float64).index_add_(1, ring, power)
        floor = _NOTHING * sums.sum(1)
        if mean == "removed":
            sums[:, 0] = 0
        none = ~lost & (sums.sum(1) <= floor)
        missing, empty = missing + int(lost.sum()), empty + int(none.sum())
        sums[lost | none] = torch.nan
        rings[start : start + len(part)] = sums
        moment[start : start + len(part)] = power @ radius
    total = rings.sum(1)
    measured = ~total.isnan()
    return RadialSpectrum(
        side=min(given.shape[2:]),
        coefficients=coefficients.numpy(),
        power=rings[measured].mean(0).numpy(),
        share=(rings / total[:, None])[measured].mean(0).numpy(),
        centroids=(moment / total).numpy(),
        missing=missing,
        empty=empty,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Filtered:
    """Images with one band of frequencies, brought back to [0, 1]; `clipped`: the share of values that this changed."""

    images: Float[torch.Tensor, "image channel h w"]
    clipped: float


def filtered(
    images: Images, cutoff: float | int, keep: Band, *, edge: Edge = "ideal", around: Around = "mean"
) -> Filtered:
    """`low`: the frequencies up to `cutoff`, in cycles per image; `high`: those above it; cut to [0, 1].

    `edge`: `ideal`, all of a coefficient or nothing, which rings beside edges, and is what Li et al.'s own hybrid
    images were made with; `gaussian`, 2^-(r / cutoff)^2, half the amplitude at the cutoff, which does not ring.
    `around`: what stands in for a high-passed image's mean, which the filter takes: `mean`, its own of each channel;
    `gray`, 0.5, so that no brightness is told; `zero`, so that about half of the values are clipped.
    Raises `InputError` for images outside [0, 1], a cutoff below 0 or an option that is not there.
    """
    given = checked_images("frequency", images, torch.zeros(len(images), dtype=torch.int64))[0]
    _check_options(keep=(keep, Band), edge=(edge, Edge), around=(around, Around))
    _check_cutoffs([cutoff])
    shown, beyond = _passed(given, float(cutoff), keep, edge, around)
    return Filtered(shown, beyond / shown.numel())


def bands(
    images: Float[torch.Tensor, "image channel h w"], cutoff: float | int, edge: Edge = "ideal"
) -> tuple[Float[torch.Tensor, "image channel h w"], Float[torch.Tensor, "image channel h w"]]:
    """Return x_low, x_high, with x_low + x_high = x: the mean is in x_low, nothing is clipped; float64."""
    x = images.cpu().double()
    h, w = x.shape[2:]
    radius = _radius(h, w)[:, : w // 2 + 1]
    if edge == "ideal":
        passed = (radius <= cutoff).double()
    else:
        passed = torch.exp2(-((radius / cutoff) ** 2)) if cutoff else (radius == 0).double()
    low = torch.fft.irfft2(torch.fft.rfft2(x) * passed, s=(h, w))
    return low, x - low


@dataclass(frozen=True, slots=True, eq=False)
class FilterCurve:
    """Accuracy (0 to 1) on images of one band, at each cutoff in cycles per image, over `n` images.

    `clean`: accuracy on the images themselves. `clipped`: share of pixel values that were cut to [0, 1]. `side`: the
    images' shorter side; cutoffs / side are cycles per pixel.
    """

    keep: Band
    cutoffs: tuple[float, ...]
    accuracy: Float64[np.ndarray, " cutoff"]
    clipped: Float64[np.ndarray, " cutoff"]
    clean: float
    side: int
    n: int


def filter_accuracy(
    model: nn.Module,
    images: Images,
    labels: Labels,
    cutoffs: Sequence[float | int],
    *,
    keep: Band,
    edge: Edge = "ideal",
    around: Around = "mean",
    batch_size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> FilterCurve:
    """Accuracy on `filtered(images, cutoff, keep)` for each cutoff, in cycles per image; options as there.

    The model is evaluated in evaluation mode and left as it was. `progress` is told images done, and images in all.
    Raises `InputError` for images outside [0, 1], labels that do not fit, no cutoff or one below 0.
    """
    images, labels = checked_images("frequency", images, labels)
    _check_options(keep=(keep, Band), edge=(edge, Edge), around=(around, Around))
    _check_cutoffs(cutoffs)
    right, beyond = np.zeros(len(cutoffs) + 1, dtype=np.int64), np.zeros(len(cutoffs), dtype=np.int64)
    with torch.inference_mode(), evaluating(model):
        for start in range(0, len(images), batch_size):
            clean = images[start : start + batch_size].float().cpu()
            wanted = labels[start : start + batch_size].cpu()
            right[-1] += int((_answers(model, clean) == wanted).sum())
            for level, cutoff in enumerate(cutoffs):
                shown, outside = _passed(clean, float(cutoff), keep, edge, around)
                beyond[level] += outside
                right[level] += int((_answers(model, shown) == wanted).sum())
            if progress is not None:
                progress(min(start + batch_size, len(images)), len(images))
    return FilterCurve(
        keep=keep,
        cutoffs=tuple(float(c) for c in cutoffs),
        accuracy=right[:-1] / len(images),
        clipped=beyond / images.numel(),
        clean=int(right[-1]) / len(images),
        side=min(images.shape[2:]),
        n=len(images),
    )


@dataclass(frozen=True, slots=True, eq=False)
class HybridCurve:
    """Shares of `n` hybrid images that a network gives the low image's class, the high image's, or another.

    At each cutoff, in cycles per image; `clipped`: share of pixel values cut to [0, 1]; `side`: the images' shorter
    side. `n` may be 0 where only pairs that the network classifies rightly count: shares are NaN then.
    """

    cutoffs: tuple[float, ...]
    low: Float64[np.ndarray, " cutoff"]
    high: Float64[np.ndarray, " cutoff"]
    clipped: Float64[np.ndarray, " cutoff"]
    side: int
    n: int

    @property
    def neither(self) -> Float64[np.ndarray, " cutoff"]:
        """The share of answers that name neither image's class."""
        return np.asarray(1 - self.low - self.high)

    @property
    def crossover(self) -> float:
        """Where both images are named equally often, in cycles per image: the lower, the more low frequencies count.

        d = low - high is joined by straight lines; the crossover is where d < 0 would end if it ended but once (a d of
        several crossings, or of 0 on a stretch, has theirs averaged). NaN unless the high image leads at the lowest
        cutoff and the low one at the highest: give lower cutoffs if `low` leads everywhere, or else higher ones.
        """
        d, at = self.low - self.high, np.array(self.cutoffs)
        if not d[0] < 0 < d[-1]:
            return float("nan")
        size = np.abs(d)
        below = (size * (d < 0)).astype(np.float64)
        both = size[:-1] + size[1:]
        led = np.divide(below[:-1] + below[1:], both, out=np.full(len(both), 0.5), where=both > 0)
        return float(at[0] + (led * np.diff(at)).sum())


def hybrid_preference(
    model: nn.Module,
    images: Images,
    labels: Labels,
    cutoffs: Sequence[float | int],
    *,
    of: Counted = "right",
    edge: Edge = "ideal",
    seed: int = 0,
    batch_size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> HybridCurve:
    """Which class a network names for x_low + x'_high, cut to [0, 1]; x' is of another class, the mean is that of x.

    Each image once lends its low frequencies; its partner is that of another class which draws the lowest number
    against it, from both images' own pixels and `seed`: the same for every network and order, and a subset in which
    both stand keeps the pair. `of`: `right`, only pairs whose two images the network classifies rightly; `all`.
    Cutoffs ascend, in cycles per image. The model is evaluated in evaluation mode and left as it was.
    Raises `InputError` for images outside [0, 1], labels that do not fit or of one class, cutoffs that do not ascend.
    """
    images, labels = checked_images("frequency", images, labels)
    _check_options(of=(of, Counted), edge=(edge, Edge))
    _check_cutoffs(cutoffs)
    if len(cutoffs) < 2 or any(b <= a for a, b in pairwise(cutoffs)):
        raise InputError(f"frequency: cutoffs are {list(cutoffs)}; give at least two, each above the one before")
    images, labels = images.float().cpu(), labels.cpu()
    partner = hybrid_partners(images, labels, seed)
    shares, beyond = np.zeros((2, len(cutoffs)), dtype=np.int64), np.zeros(len(cutoffs), dtype=np.int64)
    with torch.inference_mode(), evaluating(model):
        counted = torch.arange(len(images))
        if of == "right":
            answers = torch.cat([_answers(model, part) for part in torch.split(images, batch_size)])
            right = answers == labels
            counted = counted[right & right[partner]]
        for start in range(0, len(counted), batch_size):
            rows = counted[start : start + batch_size]
            other = partner[rows]
            for level, cutoff in enumerate(cutoffs):
                hybrid = bands(images[rows], cutoff, edge)[0] + bands(images[other], cutoff, edge)[1]
                shown, outside = _within(hybrid)
                named = _answers(model, shown)
                beyond[level] += outside
                shares[0, level] += int((named == labels[rows]).sum())
                shares[1, level] += int((named == labels[other]).sum())
            if progress is not None:
                progress(min(start + batch_size, len(counted)), len(counted))
    n = len(counted) or np.nan
    return HybridCurve(
        cutoffs=tuple(float(c) for c in cutoffs),
        low=shares[0] / n,
        high=shares[1] / n,
        clipped=beyond / (n * images[0].numel()),
        side=min(images.shape[2:]),
        n=len(counted),
    )


def hybrid_partners(
    images: Float[torch.Tensor, "image channel h w"], labels: Int64[torch.Tensor, " image"], seed: int = 0
) -> Int64[torch.Tensor, " image"]:
    """Return, for each image, the row of the one of another class that lends it its high frequencies."""
    keys = np.empty((2, len(images)), dtype=np.uint64)  # as the low image, and as the high one
    for row, (image, label) in enumerate(zip(images.numpy(), labels.tolist(), strict=True)):
        keys[:, row] = random_of(image, f"{seed}/hybrid/{label}").integers(2**64, size=2, dtype=np.uint64)
    classes = labels.numpy()
    if len(np.unique(classes)) < 2:
        raise InputError(f"frequency: all images are of class {classes[0]}; give images of two classes or more")
    partner = np.empty(len(images), dtype=np.int64)
    for row in range(len(images)):
        drawn = _mixed(keys[0, row : row + 1] ^ keys[1])
        drawn[classes == classes[row]] = np.iinfo(np.uint64).max
        partner[row] = drawn.argmin()
    return torch.from_numpy(partner)


def _mixed(keys: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit numbers after which the nearness of two of them means nothing: multiply, shift, add."""
    for factor in (0x9E3779B97F4A7C15, 0xD1342543DE82EF95):
        keys = keys * np.uint64(factor)
        keys = keys ^ (keys >> np.uint64(32))
    return keys


def _radius(h: int, w: int) -> torch.Tensor:
    """min(h, w) sqrt(u^2 + v^2) of each coefficient, u and v in cycles per pixel; as the transform orders them."""
    side = min(h, w)
    v, u = (torch.fft.fftfreq(n, d=1 / side, dtype=torch.float64) for n in (h, w))
    return torch.hypot(v[:, None], u[None, :])


def _passed(clean: torch.Tensor, cutoff: float, keep: Band, edge: Edge, around: Around) -> tuple[torch.Tensor, int]:
    low, high = bands(clean, cutoff, edge)
    if keep == "low":
        return _within(low)
    own = clean.double().mean(dim=(2, 3), keepdim=True) if around == "mean" else 0.5 if around == "gray" else 0.0
    return _within(high + own)


def _within(images: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Cut to [0, 1]; return how many values lay outside too."""
    outside = int(((images < -_ROUNDING) | (images > 1 + _ROUNDING)).sum())
    return images.clamp(0, 1).float(), outside


def _answers(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    native = like(model)
    return logits_of("frequency", model, images.to(native.device, native.dtype)).argmax(1).cpu()


def _check_cutoffs(cutoffs: Sequence[float | int]) -> None:
    if not len(cutoffs) or any(not cutoff >= 0 for cutoff in cutoffs):
        raise InputError(
            f"frequency: cutoffs are {list(cutoffs)}; give at least one, in cycles per image, none below 0"
        )


def _check_options(**given: tuple[str, object]) -> None:
    for name, (value, known) in given.items():
        if value not in get_args(known):
            raise InputError(f"frequency: {name}={value!r} is not one of {', '.join(get_args(known))}")
