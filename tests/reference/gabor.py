"""The rate of a Gabor cell as one would write it on a blackboard: loops over pixels, in float64."""

import math

import numpy as np


def _gaussian(distance: float, spread: float) -> float:
    return math.exp(-0.5 * (distance / spread) ** 2)


def local_contrast(x: np.ndarray, centre: tuple[int, int], spread: float) -> float:
    height, width = x.shape
    total = first = second = 0.0
    for row in range(height):
        for column in range(width):
            weight = _gaussian(column - centre[0], spread) * _gaussian(row - centre[1], spread)
            total += weight
            first += weight * x[row, column]
            second += weight * x[row, column] ** 2
    return second / total - (first / total) ** 2


def projection(x: np.ndarray, centre, wavelength: float, angle: float, phase: float) -> float:
    height, width = x.shape
    gabor, window = np.empty(x.shape), np.empty(x.shape)
    for row in range(height):
        for column in range(width):
            dx, dy = column + 0.5 - centre[0], row + 0.5 - centre[1]
            window[row, column] = _gaussian(math.hypot(dx, dy), 0.4 * wavelength)
            along = dx * math.cos(angle) + dy * math.sin(angle)
            gabor[row, column] = window[row, column] * math.cos(2 * math.pi * along / wavelength + phase)
    gabor -= window * gabor.sum() / window.sum()
    return float((gabor * x).sum() / math.sqrt((gabor**2).sum()))


def drive(x: np.ndarray, centre, wavelength: float, angle: float, phase: float, complex_cell: bool) -> float:
    """Return `d_a` of one z-scored image."""
    even = projection(x, centre, wavelength, angle, phase)
    if complex_cell:
        seen = math.hypot(even, projection(x, centre, wavelength, angle, phase - math.pi / 2))
    else:
        seen = max(0.0, even)
    at = (int(centre[0]), int(centre[1]))
    pool = local_contrast(x, at, 5.0) / 3 + 2 * local_contrast(x, at, 15.0) / 3
    return seen / math.sqrt(0.3**2 + pool)
