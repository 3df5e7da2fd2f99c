"""Gabor cells as in a mouse's visual cortex: what they see, what their surround takes away, how fast they fire."""

from dataclasses import dataclass

import numpy as np

from neuroprior.types import Bool, Float32, Float64, InputError, Int64, Stimuli, UInt8

# Mouse V1 prefers 0.03 to 0.04 cycles a degree; at about 2 degrees a pixel (64 pixels across the screen) that is a
# wavelength of some 12 to 16 pixels. Photographs' similarities spread as wide as a real mouse's only at the long end.
_WAVELENGTH = 16.0  # pixels, median
_WAVELENGTH_SPREAD = 0.4  # of its logarithm
_ENVELOPE = 0.4  # standard deviation of the Gaussian window, in wavelengths: about 1.5 octaves of bandwidth
_RATE_SPREAD = 0.5  # of the logarithm of the mean rate, whose median is 1
_SPONTANEOUS = 0.1  # rate without drive, as a part of the mean driven rate
_SEMI_SATURATION = 0.3  # contrast at which normalisation sets in, in standard deviations of the pixels
_NEAR, _BROAD = 5.0, 15.0  # standard deviations in pixels of what normalises: about the field, and its surround
_SURROUND = 2 / 3  # the surround's part of it
_LEAST_DRIVE = 1e-5  # mean drive below which a cell sees nothing; photographs give about 1
_NOTHING = 1e-9  # of a filter of length 1: the rest of a Gaussian would be denormal numbers, tenfold slow to multiply

_BLOCK = 256  # images or cells at a time


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Receptive fields: centre (x, y) and wavelength in pixels, angle that the grating runs in, phase, kind, level."""

    centre: Float64[np.ndarray, "neuron 2"]
    wavelength: Float64[np.ndarray, " neuron"]
    angle: Float64[np.ndarray, " neuron"]
    phase: Float64[np.ndarray, " neuron"]
    complex_cell: Bool[np.ndarray, " neuron"]
    level: Float64[np.ndarray, " neuron"]
    """Mean rate over the stimuli."""


def draw_cells(
    field: Float64[np.ndarray, "corner 2"],
    size: tuple[int, int],
    n_neurons: int,
    complex_fraction: float,
    rng: np.random.Generator,
) -> Cells:
    """Draw cells: centres uniform in the `field`, angles and phases uniform, wavelengths and mean rates log-normal.

    `field`: its low and high corner (x, y) in parts of the image, whose height and width are the `size`.
    """
    low, high = field * size[::-1]
    return Cells(
        centre=rng.uniform(low, high, (n_neurons, 2)),
        wavelength=_WAVELENGTH * np.exp(_WAVELENGTH_SPREAD * rng.standard_normal(n_neurons)),
        angle=rng.random(n_neurons) * np.pi,
        phase=rng.random(n_neurons) * 2 * np.pi,
        complex_cell=rng.permutation(n_neurons) < round(complex_fraction * n_neurons),
        level=np.exp(_RATE_SPREAD * rng.standard_normal(n_neurons)),
    )


def filters(
    cells: Cells, chosen: np.ndarray, height: int, width: int, *, quarter: int = 0
) -> Float32[np.ndarray, "chosen pixel"]:
    """Gabors of the chosen cells, `quarter` of a cycle on, without mean under their window and of unit length."""
    rows = np.arange(len(cells.level))[chosen]
    found = np.empty((len(rows), height * width), dtype=np.float32)
    for start in range(0, len(rows), _BLOCK):
        part = rows[start : start + _BLOCK]
        x = np.arange(width) + 0.5 - cells.centre[part, :1]
        y = np.arange(height) + 0.5 - cells.centre[part, 1:]
        spread = (_ENVELOPE * cells.wavelength[part])[:, None]
        turn = (2 * np.pi / cells.wavelength[part])[:, None]
        angle = cells.angle[part][:, None]
        # exp(i (k.r + phase)) under a Gaussian is a product of a column and a row
        begin = np.exp(1j * (cells.phase[part][:, None] - 0.5 * np.pi * quarter))
        column = begin * np.exp(1j * turn * np.sin(angle) * y - 0.5 * (y / spread) ** 2)
        row = np.exp(1j * turn * np.cos(angle) * x - 0.5 * (x / spread) ** 2)
        gabor = column.real[:, :, None] * row.real[:, None, :] - column.imag[:, :, None] * row.imag[:, None, :]
        window = np.abs(column)[:, :, None] * np.abs(row)[:, None, :]
        # so that plain brightness drives no cell, also at the border of the screen
        gabor -= window * (gabor.sum(axis=(1, 2)) / window.sum(axis=(1, 2)))[:, None, None]
        gabor /= np.sqrt(np.square(gabor).sum(axis=(1, 2)))[:, None, None]
        gabor[np.abs(gabor) < _NOTHING] = 0.0
        found[start : start + _BLOCK] = gabor.reshape(len(part), -1)
    return found


def _averaging(size: int, spread: float) -> Float32[np.ndarray, "size size"]:
    """Gaussian weights of each position for each position, of sum 1: beyond the screen there is nothing to average."""
    at = np.arange(size)
    weights = np.exp(-0.5 * ((at[:, None] - at) / spread) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    averaging: Float32[np.ndarray, "size size"] = weights.astype(np.float32)
    return averaging


def local_contrast(
    x: Float32[np.ndarray, "image height width"], spread: float
) -> Float32[np.ndarray, "image height width"]:
    """`V(p) = E_q x(q)^2 - (E_q x(q))^2`, q weighted by a Gaussian about p: the variance of what is near."""
    down, across = (_averaging(size, spread) for size in x.shape[1:])
    mean = down @ x @ across.T
    contrast: Float32[np.ndarray, "image height width"] = np.maximum(down @ np.square(x) @ across.T - mean**2, 0)
    return contrast


@dataclass(frozen=True, slots=True, eq=False)
class GaborPopulation:
    """`mu_a = level_a (d_a / mean_a + 0.1) / 1.1`, `d_a = [g_a.x]+ / sqrt(s^2 + P_a)`: divisive normalisation.

    `x`: pixels (0..255) z-scored with one mean and one standard deviation, those of the stimuli it was made for.
    That is a simple cell; a complex one has `sqrt((g_a.x)^2 + (g'_a.x)^2)`, of two Gabors a quarter of a cycle apart.
    `P_a = V_near / 3 + 2 V_broad / 3`: `local_contrast` about the cell's centre, under Gaussians of
    5 and of 15 pixels; the broad one is a suppressive surround. `s` is 0.3. `mean_a`: mean of `d_a` over the stimuli.
    A cell that those do not drive fires at its level. Call it with pixels to get rates, `(image, neuron)`.
    """

    cells: Cells
    pixel_mean: float
    pixel_std: float
    even: Float32[np.ndarray, "neuron pixel"]
    odd: Float32[np.ndarray, "complex pixel"]
    scale: Float32[np.ndarray, " neuron"]
    offset: Float32[np.ndarray, " neuron"]

    def __call__(self, pixels: Float32[np.ndarray, "image height width"]) -> Float32[np.ndarray, "image neuron"]:
        """Return the rates to these pixels (0..255)."""
        rates = self._drive((pixels - np.float32(self.pixel_mean)) / np.float32(self.pixel_std))
        rates *= self.scale
        rates += self.offset
        return rates

    def _drive(self, x: Float32[np.ndarray, "image height width"]) -> Float32[np.ndarray, "image neuron"]:
        pool = (1 - _SURROUND) * local_contrast(x, _NEAR) + _SURROUND * local_contrast(x, _BROAD)
        pool = 1 / np.sqrt(pool + np.float32(_SEMI_SATURATION**2))
        flat = x.reshape(len(x), -1)
        drive: Float32[np.ndarray, "image neuron"] = flat @ self.even.T
        kind = self.cells.complex_cell
        drive[:, kind] = np.hypot(drive[:, kind], flat @ self.odd.T)
        np.maximum(drive, 0, out=drive)
        drive *= pool.reshape(len(x), -1)[:, _pixel_under(self.cells.centre, x.shape[1], x.shape[2])]
        return drive


def _pixel_under(centre: Float64[np.ndarray, "neuron 2"], height: int, width: int) -> Int64[np.ndarray, " neuron"]:
    x, y = np.minimum(centre, (width - 1, height - 1)).astype(np.int64).T
    pixel: Int64[np.ndarray, " neuron"] = y * width + x
    return pixel


def gabor_population(cells: Cells, stimuli: Stimuli) -> tuple[GaborPopulation, Float32[np.ndarray, "image neuron"]]:
    """Return the population of these cells, scaled so that each one's mean rate over `stimuli` is its level, and rates.

    Raises `InputError` for stimuli without contrast.
    """
    pixels: UInt8[np.ndarray, "image height width"] = stimuli.pixels
    mean, std = float(pixels.mean(dtype=np.float64)), float(pixels.std(dtype=np.float64))
    if std == 0:
        raise InputError("simulated scan: all pixels of the stimuli are the same; pass images that differ")
    _, height, width = pixels.shape
    n = len(cells.level)
    raw = GaborPopulation(
        cells,
        mean,
        std,
        even=filters(cells, np.ones(n, dtype=bool), height, width),
        odd=filters(cells, cells.complex_cell, height, width, quarter=1),
        scale=np.ones(n, dtype=np.float32),
        offset=np.zeros(n, dtype=np.float32),
    )
    rates = np.empty((len(pixels), n), dtype=np.float32)
    for start in range(0, len(pixels), _BLOCK):
        rates[start : start + _BLOCK] = raw(pixels[start : start + _BLOCK].astype(np.float32))
    drive = rates.mean(axis=0, dtype=np.float64)
    # a cell that next to nothing in these images drives fires spontaneously: no rounding error is blown up to a rate
    driven = drive > _LEAST_DRIVE
    scale = np.where(driven, cells.level / np.where(driven, drive, 1.0), 0.0) / (1 + _SPONTANEOUS)
    offset = np.where(driven, cells.level * _SPONTANEOUS / (1 + _SPONTANEOUS), cells.level)
    population = GaborPopulation(
        cells, mean, std, raw.even, raw.odd, scale.astype(np.float32), offset.astype(np.float32)
    )
    rates *= population.scale
    rates += population.offset
    return population, rates
