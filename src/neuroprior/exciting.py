"""Maximally exciting images: gradient ascent on pixels, for many units at once, of whatever model gives activities."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from neuroprior.types import Float, Float32, Float64, InputError

__all__ = ["ExcitingImages", "UnitActivity", "blurred", "held", "most_exciting_images"]

UnitActivity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(images, units) -> activity: of unit `units[k]` to image k. Image k must not reach the activity of another row."""

_ROUNDS = 100  # of clipping; each one clips at least one pixel more, and a few are enough unless all are clipped


@dataclass(frozen=True, slots=True, eq=False)
class ExcitingImages:
    """What was found: an image a unit, and each unit's activity at the start and after every step."""

    images: Float32[np.ndarray, "unit channel height width"]
    activities: Float32[np.ndarray, "time unit"]


def most_exciting_images(
    unit_activity: UnitActivity,
    n_units: int,
    size: tuple[int, int, int],
    *,
    norm: float,
    middle: float = 0.5,
    bounds: tuple[float, float] = (0.0, 1.0),
    balanced: bool = True,
    seed: int = 0,
    steps: int = 100,
    learning_rate: float = 0.1,
    blur: tuple[float, float] = (2.0, 0.5),
    batch_size: int = 16,
    like: torch.Tensor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ExcitingImages:
    """`x_k = argmax f_k(x)` over images of `|x - middle| = norm` within `bounds` (after Walker et al., 2019).

    `x <- held(x + l norm b / |b|)`, `b = G df_k/dx`, from blurred noise, the same for every unit: what differs between
    images is the units'. `G`: Gaussian blur whose standard deviation falls evenly over the steps from `blur[0]` to
    `blur[1]` (pixels; 0: none). It is symmetric and positive, so that a small step never lowers f. `l` falls evenly
    from `learning_rate` to 0.
    `held` brings the image back: L2 norm of `x - middle` exactly, mean `middle` exactly where `balanced`, all within
    `bounds`, in whose units everything is (of a standard deviation c: `norm = c sqrt(number of pixels)`).
    One backward pass serves `batch_size` units, as the gradient of a sum of independent rows: f must be that of a
    model in evaluation mode. Size: channel, height, width. `like`: a tensor of the device and type to work in.
    A unit that no step moves (a ReLU that is shut) keeps its noise, and its activities say so.
    `progress` is told unit-steps done and in all. Same seed, same numbers.
    Raises `InputError` for settings that make no sense, a norm that the bounds do not allow, activities not finite.
    """
    _check(n_units, size, norm, middle, bounds, balanced, steps, learning_rate, blur, batch_size, seed)
    like = torch.empty(0) if like is None else like
    noise = torch.from_numpy(np.random.default_rng(seed).standard_normal((1, *size)))
    images = np.empty((n_units, *size), dtype=np.float32)
    activities = np.empty((steps + 1, n_units), dtype=np.float32)
    sigmas = np.linspace(*blur, steps)
    for first in range(0, n_units, batch_size):
        units = torch.arange(first, min(first + batch_size, n_units), device=like.device)
        part = slice(first, first + len(units))
        x = held(blurred(noise, blur[0]).expand(len(units), -1, -1, -1).to(like), norm, middle, bounds, balanced)
        for step, sigma in enumerate(sigmas):
            length = learning_rate * norm * (1 - step / steps)
            x, activities[step, part] = _stepped(unit_activity, x, units, length, float(sigma))
            x = held(x - middle, norm, middle, bounds, balanced)
            if progress is not None:
                progress(steps * first + (step + 1) * len(units), steps * n_units)
        with torch.no_grad():
            activities[steps, part] = _activity(unit_activity, x, units).float().cpu().numpy()
        images[part] = x.float().cpu().numpy()
    return ExcitingImages(images, activities)


def held(
    departure: Float[torch.Tensor, "unit channel height width"],
    norm: float,
    middle: float,
    bounds: tuple[float, float],
    balanced: bool,
) -> Float[torch.Tensor, "unit channel height width"]:
    """`clip(middle + s d + t)`, with s, t such that `|x - middle| = norm` and (`balanced`) `mean(x) = middle`.

    d: the `departure` from the middle. Pixels beyond the bounds are clipped and stay so, and s, t are solved for the
    others, until none is beyond: exact, in as many rounds as that takes. Without `balanced`, t = 0.
    """
    d = departure.detach().flatten(1).double()
    low, high = bounds[0] - middle, bounds[1] - middle
    clipped = torch.full_like(d, torch.nan)  # its bound where a pixel is clipped
    x = d
    for _ in range(_ROUNDS):
        free = clipped.isnan()
        n_free = free.sum(1, keepdim=True).clamp(min=1)
        fixed = clipped.nan_to_num(0.0)
        level = -fixed.sum(1, keepdim=True) / n_free if balanced else d.new_zeros(len(d), 1)  # mean of the free pixels
        energy = (norm**2 - fixed.square().sum(1, keepdim=True) - n_free * level**2).clamp(min=0)
        shape = torch.where(free, d - (d * free).sum(1, keepdim=True) / n_free if balanced else d, 0.0)
        length = torch.linalg.vector_norm(shape, dim=1, keepdim=True).clamp(min=1e-300)
        x = torch.where(free, shape * (energy.sqrt() / length) + level, fixed)
        beyond = free & ((x < low) | (x > high))
        if not beyond.any():
            break
        clipped = torch.where(beyond, x.clamp(low, high), clipped)
    # The bounds once more in the image's own type: a sum may round to a little beyond them.
    return (middle + x).to(departure).clamp(*bounds).view_as(departure)


def blurred(
    gradient: Float[torch.Tensor, "unit channel height width"], sigma: float
) -> Float[torch.Tensor, "unit channel height width"]:
    """`G g`, separable: `exp(-(i - j)^2 / 2 sigma^2)` between rows and columns i, j; beyond the border there is 0."""
    if sigma == 0:
        return gradient
    down, across = (_weights(n, sigma).to(gradient) for n in gradient.shape[2:])
    return down @ gradient @ across


def _weights(n: int, sigma: float) -> Float64[torch.Tensor, "n n"]:
    at = torch.arange(n, dtype=torch.float64)
    return torch.exp(-0.5 * ((at[:, None] - at) / sigma).square())


def _stepped(
    unit_activity: UnitActivity, images: torch.Tensor, units: torch.Tensor, length: float, sigma: float
) -> tuple[torch.Tensor, Float32[np.ndarray, " unit"]]:
    """Return each image one step of that `length` further, and its activity before the step."""
    with torch.enable_grad():
        x = images.detach().requires_grad_()
        activity = _activity(unit_activity, x, units)
        if not activity.requires_grad:
            raise InputError(
                "exciting images: the activities carry no gradient to the pixels; is it cut off by no_grad?"
            )
        (gradient,) = torch.autograd.grad(activity.sum(), x)  # none is written into parameters
    # Some units' gradients are so small that their squares would be 0: first to largest value 1.
    largest = gradient.abs().amax(dim=(1, 2, 3), keepdim=True)
    way = blurred(gradient / torch.where(largest > 0, largest, 1), sigma)
    size = torch.linalg.vector_norm(way, dim=(1, 2, 3), keepdim=True)
    moved = images + length * way / torch.where(size > 0, size, 1)
    return moved, activity.detach().float().cpu().numpy()


def _activity(unit_activity: UnitActivity, images: torch.Tensor, units: torch.Tensor) -> torch.Tensor:
    activity = unit_activity(images, units)
    if activity.shape != units.shape:
        raise InputError(
            f"exciting images: activities of shape {tuple(activity.shape)} for {len(units)} images; give one an image"
        )
    bad = ~activity.detach().isfinite()
    if bad.any():
        raise InputError(f"exciting images: the activity of unit {int(units[bad][0])} is not finite; mend its weights")
    return activity


def _check(
    n_units: int,
    size: tuple[int, int, int],
    norm: float,
    middle: float,
    bounds: tuple[float, float],
    balanced: bool,
    steps: int,
    learning_rate: float,
    blur: tuple[float, float],
    batch_size: int,
    seed: int,
) -> None:
    at_least = {"units": (n_units, 1), "steps": (steps, 1), "batch_size": (batch_size, 1), "seed": (seed, 0)}
    at_least |= {f"size[{k}]": (n, 1) for k, n in enumerate(size)}
    for name, (value, least) in at_least.items():
        if value < least:
            raise InputError(f"exciting images: {name} is {value}; it must be {least} or more")
    if not (learning_rate > 0 and math.isfinite(learning_rate)):
        raise InputError(f"exciting images: learning_rate is {learning_rate:g}; it must be above 0 (0.1 is usual)")
    if not (min(blur) >= 0 and math.isfinite(max(blur))):
        raise InputError(f"exciting images: blur is {blur[0]:g} to {blur[1]:g} pixels; neither may be below 0")
    if not bounds[0] < middle < bounds[1]:
        raise InputError(f"exciting images: middle {middle:g} is not inside the bounds {bounds[0]:g}, {bounds[1]:g}")
    below, above = middle - bounds[0], bounds[1] - middle
    most = math.sqrt(math.prod(size) * (below * above if balanced else max(below, above) ** 2))
    if not 0 < norm < most:
        raise InputError(
            f"exciting images: norm (contrast) is {norm:g}; within the bounds {bounds[0]:g}, {bounds[1]:g} about "
            f"{middle:g} it must be above 0 and below {most:g}"
        )
