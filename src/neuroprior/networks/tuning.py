"""What a network's units are tuned to: spatial frequency and orientation, asked with full-field sine gratings."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

from neuroprior.modes import evaluating, like
from neuroprior.networks.exciting import TappedUnit
from neuroprior.regularizer import Taps
from neuroprior.types import Bool, Float, Float32, Float64, InputError, Int64, Shaped

__all__ = ["LayerTuning", "Tuning", "UnitTuning", "sine_gratings", "unit_tuning"]

_GRAY = 0.5
_FREQUENCIES, _HIGHEST = 11, 0.45  # asked unless others are named: how many, and the last one in cycles per pixel
_OWN_ROUNDING, _LAYER_ROUNDING = 1e-5, 1e-6  # of a unit's, of its layer's largest response: what is no answer


@dataclass(frozen=True, slots=True)
class UnitTuning:
    """One unit, as a row of a table; NaN where it does not answer. The fields are those of `Tuning`."""

    layer: str
    channel: int
    responsive: bool
    frequency: float
    orientation: float
    selectivity: float
    bandwidth: float
    low_pass: bool
    modulation: float


@dataclass(frozen=True, slots=True)
class LayerTuning:
    """One layer, over its `responsive` units; medians and shares are NaN where it has none.

    `frequency`, `selectivity`, `modulation`: medians. `low_pass`: share of low-pass units. `simple`: share of units
    with F1/F0 above 1. `oriented`: how many units prefer each orientation that was asked, of those selective enough.
    """

    layer: str
    units: int
    responsive: int
    frequency: float
    selectivity: float
    modulation: float
    low_pass: float
    simple: float
    oriented: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Tuning:
    """One row a unit: channel `channel` of the module `layer`, at one place of its map.

    `frequency`: preferred, in cycles per pixel, of those asked (`frequencies`). `orientation`: preferred, of those
    asked (`orientations`): the bars', in degrees anticlockwise from the horizontal, 0 to 180; static gratings have no
    direction. `selectivity`: of orientation, at the preferred frequency, |sum_k R_k exp(2i theta_k)| / sum_k R_k, which
    is 1 - circular variance, 0 (none) to 1. `bandwidth`: in octaves, at half of the peak; NaN where a side stays above
    half as far as was asked; `low_pass`: the side of low frequencies does. `modulation`: F1/|F0| at the peak, above 1
    for a simple cell, below for a complex one; infinite where the mean does not change. `responsive`: some grating
    raises the unit's mean response, or its phase modulates it; others (a shut ReLU, units that are only suppressed)
    have NaN. `responses`: all that were given; `at_gray`: the response to a gray image.
    """

    layer: Shaped[np.ndarray, " unit"]
    channel: Int64[np.ndarray, " unit"]
    responsive: Bool[np.ndarray, " unit"]
    frequency: Float64[np.ndarray, " unit"]
    orientation: Float64[np.ndarray, " unit"]
    selectivity: Float64[np.ndarray, " unit"]
    bandwidth: Float64[np.ndarray, " unit"]
    low_pass: Bool[np.ndarray, " unit"]
    modulation: Float64[np.ndarray, " unit"]
    frequencies: Float64[np.ndarray, " frequency"]
    orientations: Float64[np.ndarray, " orientation"]
    at_gray: Float32[np.ndarray, " unit"]
    responses: Float32[np.ndarray, "unit frequency orientation phase"]

    def __len__(self) -> int:
        return len(self.channel)

    def as_rows(self) -> list[UnitTuning]:
        """One value a unit, in plain numbers, for tables."""
        names = ("layer", "channel", "responsive", "frequency", "orientation", "selectivity", "bandwidth", "low_pass")
        columns = [getattr(self, name).tolist() for name in (*names, "modulation")]
        return [UnitTuning(*row) for row in zip(*columns, strict=True)]

    def layers(self, *, least_selectivity: float | int = 0.1) -> list[LayerTuning]:
        """One value a layer, in the order that was asked. `oriented` counts units of at least this selectivity."""
        found = []
        for name in dict.fromkeys(self.layer.tolist()):
            own = self.layer == name
            answers = own & self.responsive
            clear = answers & (np.nan_to_num(self.selectivity) >= least_selectivity)
            counts = (self.orientation[clear][:, None] == self.orientations).sum(0)
            found.append(
                LayerTuning(
                    layer=name,
                    units=int(own.sum()),
                    responsive=int(answers.sum()),
                    frequency=_middle(self.frequency[answers]),
                    selectivity=_middle(self.selectivity[answers]),
                    modulation=_middle(self.modulation[answers]),
                    low_pass=_share(self.low_pass[answers]),
                    simple=_share(self.modulation[answers] > 1),
                    oriented=tuple(counts.tolist()),
                )
            )
        return found


def unit_tuning(
    network: nn.Module,
    layers: Sequence[str],
    size: tuple[int, int, int],
    *,
    frequencies: Sequence[float | int] | None = None,
    orientations: int = 12,
    phases: int = 8,
    contrast: float | int = 0.5,
    units: Literal["all"] | int = "all",
    at: tuple[int, int] | None = None,
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> Tuning:
    """F0 = mean_phi r - r_gray and F1 = |2 mean_phi r exp(-i phi)| of each unit, frequency and orientation.

    r: the response to `x = (1 + contrast cos(2 pi f n - phi)) / 2` in every channel, n being the distance across the
    bars from the middle of the image. A unit is tuned by whichever of F0 and F1 is the greater at its peak, so that a
    linear unit, whose mean does not change, is tuned too; F1/F0 tells simple from complex (Skottun et al., 1991).
    `size`: channel, height, width of what the network takes. `frequencies`: ascending, in cycles per pixel, below 1/2;
    by default 11 from one cycle per image to 0.45, evenly spaced in octaves. `orientations` and `phases`: how many,
    evenly spaced over 180 and 360 degrees, at least 3 of each. `units`: so many of each layer, evenly spaced over its
    channels. A unit stands `at` one row and column of its map, by default in the middle; a layer that gives vectors has
    units of its values. In evaluation mode; the network is left as it was found. `progress` is told gratings done and
    in all.
    Raises `InputError` for a layer or position that is not there, images that do not fit, gratings that cannot be.
    """
    asked = _checked(frequencies, size, orientations, phases, contrast, units, batch_size)
    works_in = like(network)
    taps = Taps(network, layers)
    gray = torch.full((1, *size), _GRAY, dtype=works_in.dtype, device=works_in.device)
    grid = (len(asked), orientations, phases)
    with torch.no_grad(), evaluating(network):
        for layer in layers:
            TappedUnit(network, Taps(network, [layer]), layer, torch.tensor([0]), at).check(gray)
        taps.check(network, gray)
        channels = [_chosen(found.shape[1], units) for found in taps.features(network, gray)]
        at_gray = _read(taps, network, gray, channels, at)[0]
        responses = np.empty((math.prod(grid), len(at_gray)), dtype=np.float32)
        for start in range(0, len(responses), batch_size):
            which = np.arange(start, min(start + batch_size, len(responses)))
            f, theta, phi = np.unravel_index(which, grid)
            shown = sine_gratings(
                size, asked[f], 180 * theta / orientations, 360 * phi / phases, contrast=float(contrast)
            )
            responses[which] = _read(taps, network, shown.to(gray), channels, at)
            if progress is not None:
                progress(int(which[-1]) + 1, len(responses))
    names = np.repeat(np.array(list(layers)), [len(c) for c in channels])
    if not np.isfinite(responses).all():
        broken = names[~np.isfinite(responses).all(0)][0]
        raise InputError(f"layer {str(broken)!r}: some responses to gratings are not finite; mend the network first")
    return _tuned(names, np.concatenate(channels), at_gray, responses.T.reshape(-1, *grid), asked)


def sine_gratings(
    size: tuple[int, int, int],
    frequencies: Float64[np.ndarray, " image"],
    orientations: Float64[np.ndarray, " image"],
    phases: Float64[np.ndarray, " image"],
    *,
    contrast: float,
) -> Float32[torch.Tensor, "image channel h w"]:
    """x = (1 + contrast cos(2 pi f n - phi)) / 2, n = dx sin(theta) + dy cos(theta) pixels from the image's middle.

    theta, in degrees anticlockwise from the horizontal, is the bars' own; rows run downwards. phi in degrees.
    """
    channels, h, w = size
    f, theta, phi = (torch.from_numpy(a)[:, None, None] for a in (frequencies, orientations, phases))
    dy, dx = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in (h, w))
    across = dx[None, None, :] * theta.deg2rad().sin() + dy[None, :, None] * theta.deg2rad().cos()
    waves = torch.cos(2 * math.pi * f * across - phi.deg2rad())
    return (_GRAY * (1 + contrast * waves)).float()[:, None].expand(-1, channels, -1, -1)


def _read(
    taps: Taps, network: nn.Module, images: torch.Tensor, channels: list[np.ndarray], at: tuple[int, int] | None
) -> np.ndarray:
    """(image, unit): the units of all layers, one layer after the other."""
    columns = []
    for features, wanted in zip(taps.features(network, images), channels, strict=True):
        if features.ndim == 4:
            row, column = at or (features.shape[2] // 2, features.shape[3] // 2)
            features = features[:, :, row, column]
        columns.append(features[:, torch.from_numpy(wanted).to(features.device)].float().cpu().numpy())
    return np.concatenate(columns, axis=1)


def _tuned(
    layer: np.ndarray,
    channel: Int64[np.ndarray, " unit"],
    at_gray: Float[np.ndarray, " unit"],
    responses: Float[np.ndarray, "unit frequency orientation phase"],
    frequencies: Float64[np.ndarray, " frequency"],
) -> Tuning:
    """Read each unit's preferences off its responses."""
    n, _, n_orientations, n_phases = responses.shape
    orientations = 180 * np.arange(n_orientations) / n_orientations
    r = responses.astype(np.float64)
    f0 = r.mean(3) - at_gray[:, None, None]
    f1 = np.abs(2 * (r @ np.exp(-2j * np.pi * np.arange(n_phases) / n_phases)) / n_phases)
    by_mean = f0.max((1, 2)) >= f1.max((1, 2))
    strength = np.where(by_mean[:, None, None], f0, f1).clip(min=0)
    largest = np.abs(r).max((1, 2, 3))
    of_layer = np.array([largest[layer == name].max() for name in layer])
    peak = strength.reshape(n, -1).argmax(1)
    best_f, best_theta = np.unravel_index(peak, strength.shape[1:])
    unit = np.arange(n)
    height = strength[unit, best_f, best_theta]
    responsive = height > np.maximum(_OWN_ROUNDING * largest, _LAYER_ROUNDING * of_layer)

    around = strength[unit, best_f]  # unit, orientation
    vector = np.abs(around @ np.exp(2j * np.deg2rad(orientations)))
    selectivity = _over(vector, around.sum(1), responsive)
    change = np.abs(f0[unit, best_f, best_theta])
    change = np.where(change > _OWN_ROUNDING * largest, change, 0)
    along = strength[unit, :, best_theta]  # unit, frequency
    octaves = np.log2(frequencies)
    curves = list(zip(along, best_f.tolist(), strict=True))
    low = np.array([_half(octaves[::-1], curve[::-1], len(octaves) - 1 - k) for curve, k in curves])
    high = np.array([_half(octaves, curve, k) for curve, k in curves])
    nothing = np.where(responsive, 0.0, np.nan)
    return Tuning(
        layer=layer,
        channel=channel,
        responsive=responsive,
        frequency=frequencies[best_f] + nothing,
        orientation=orientations[best_theta] + nothing,
        selectivity=selectivity,
        bandwidth=high - low + nothing,
        low_pass=np.isnan(low) & responsive & (len(frequencies) > 1),
        modulation=_over(f1[unit, best_f, best_theta], change, responsive),
        frequencies=frequencies,
        orientations=orientations,
        at_gray=at_gray.astype(np.float32),
        responses=responses,
    )


def _half(octaves: np.ndarray, along: np.ndarray, peak: int) -> float:
    """Where a curve first falls to half of its peak, going up from it; NaN if it does not."""
    below = np.flatnonzero(along[peak:] <= along[peak] / 2)
    if not len(below) or not along[peak] > 0:
        return float("nan")
    k = peak + int(below[0])
    part = (along[k - 1] - along[peak] / 2) / (along[k - 1] - along[k])
    return float(octaves[k - 1] + part * (octaves[k] - octaves[k - 1]))


def _over(above: np.ndarray, below: np.ndarray, where: np.ndarray) -> Float64[np.ndarray, " unit"]:
    """above / below; infinite where below is 0, NaN where not `where`."""
    ratio = np.divide(above, below, out=np.full(len(above), np.inf), where=below > 0)
    return np.where(where, ratio, np.nan)


def _middle(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else float("nan")


def _share(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _chosen(channels: int, units: Literal["all"] | int) -> Int64[np.ndarray, " unit"]:
    if isinstance(units, str) or units >= channels:
        return np.arange(channels)
    return np.arange(units) * channels // units


def _checked(
    frequencies: Sequence[float | int] | None,
    size: tuple[int, int, int],
    orientations: int,
    phases: int,
    contrast: float | int,
    units: Literal["all"] | int,
    batch_size: int,
) -> Float64[np.ndarray, " frequency"]:
    """Return the frequencies to ask. Raises `InputError` for gratings that cannot be."""
    if len(size) != 3 or min(size) < 1:
        raise InputError(f"tuning: size is {size}; give channel, height, width")
    if frequencies is None:
        lowest = min(1 / min(size[1:]), _HIGHEST / 2)
        asked = np.geomspace(lowest, _HIGHEST, _FREQUENCIES)
    else:
        asked = np.array(frequencies, dtype=np.float64)
    if not len(asked) or not (np.diff(asked) > 0).all() or not (asked[0] > 0 and asked[-1] < 0.5):
        raise InputError(
            f"tuning: frequencies are {asked.tolist()}; give ascending ones, in cycles per pixel, above 0, below 0.5"
        )
    if orientations < 3 or phases < 3 or not 0 < contrast <= 1 or batch_size < 1:
        raise InputError(
            f"tuning: orientations {orientations}, phases {phases}, contrast {contrast}, batch_size {batch_size}; give "
            "at least 3, 3, above 0 up to 1, and at least 1"
        )
    if units != "all" and (isinstance(units, str) or units < 1):
        raise InputError(f"tuning: units={units!r}; give 'all', or how many of each layer")
    return asked
