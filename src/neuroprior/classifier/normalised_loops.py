"""The loops of `normalised`, compiled by numba at their first use and kept on disk.

Maps are `(row, lane)`, float32, or bfloat16 as its bits; all is computed in float32, sums over many rows in float64.
A row holds the channels of one pixel or of several, one after the other, so that the innermost loop is long enough.
"""

from typing import no_type_check

import numpy as np
from numba import njit, types
from numba.extending import overload

_REORDER = {"reassoc", "contract", "nsz"}  # sums may be reordered; NaN and inf stay what they are
_ROWS = 64  # summed in float32 before they are added in float64


@no_type_check
def _read(stored):
    """A stored value as float32."""


@no_type_check
def _as_stored(value, maps):
    """A float32 as `maps` stores it: bfloat16 is rounded to the nearest, ties to even."""


@overload(_read)
@no_type_check
def _read_of(stored):
    if isinstance(stored, types.Float):
        return lambda stored: stored
    return lambda stored: np.uint32(np.uint32(stored) << np.uint32(16)).view(np.float32)


@overload(_as_stored)
@no_type_check
def _as_stored_of(value, maps):
    if isinstance(maps.dtype, types.Float):
        return lambda value, maps: value

    def rounded(value, maps):
        if value != value:  # rounding up would carry a NaN's last bits into its sign
            return np.uint16(0x7FC0)
        bits = np.float32(value).view(np.uint32)
        odd = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
        return np.uint16(np.uint32(bits + np.uint32(np.uint32(0x7FFF) + odd)) >> np.uint32(16))

    return rounded


_compiled = njit(nogil=True, fastmath=_REORDER, cache=True)


@_compiled
@no_type_check
def moments(x, sums, first, last):
    """sums[0] += d, sums[1] += d^2, over rows; d = x - its first row: a mean far from 0 would else cost digits."""
    lanes = x.shape[1]
    origin, one, two = np.empty(lanes, np.float32), np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    for c in range(lanes):
        origin[c] = _read(x[0, c])
    for start in range(first, last, _ROWS):
        one[:], two[:] = 0, 0
        for row in range(start, min(last, start + _ROWS)):
            for c in range(lanes):
                d = _read(x[row, c]) - origin[c]
                one[c] += d
                two[c] += d * d
        for c in range(lanes):
            sums[0, c] += one[c]
            sums[1, c] += two[c]


@_compiled
@no_type_check
def learnt(x, sums, mean, variance):
    """Write mean and variance of each channel, from the moments of all threads and lanes."""
    rows, lanes = x.shape
    channels = len(mean)
    together = lanes // channels
    mean[:], variance[:] = 0, 0
    own = np.empty(lanes)
    for c in range(lanes):
        one, two = 0.0, 0.0
        for part in range(len(sums)):
            one += sums[part, 0, c]
            two += sums[part, 1, c]
        own[c] = _read(x[0, c]) + one / rows
        mean[c % channels] += own[c] / together
        variance[c % channels] += max(two - one * one / rows, 0.0) / (rows * together)
    for c in range(lanes):
        off = own[c] - mean[c % channels]
        variance[c % channels] += off * off / together


@_compiled
@no_type_check
def remembered(mean, variance, n, momentum, running_mean, running_var):
    """running += momentum (now - running); the variance as of a sample of n."""
    for c in range(len(mean)):
        running_mean[c] += momentum * (mean[c] - running_mean[c])
        running_var[c] += momentum * (variance[c] * n / (n - 1) - running_var[c])


@_compiled
@no_type_check
def line(mean, variance, eps, weight, bias, inverse, lanes):
    """Write 1 / sqrt(variance + eps); return mean, slope and height of each lane's line."""
    channels = len(mean)
    found = np.empty((3, lanes), np.float32)
    for c in range(channels):
        inverse[c] = 1 / np.sqrt(variance[c] + eps)
    for c in range(lanes):
        k = c % channels
        found[0, c], found[1, c], found[2, c] = mean[k], weight[k] * inverse[k], bias[k]
    return found


@_compiled
@no_type_check
def rectified(x, mean, slope, height, out, first, last):
    """out = relu((x - mean) slope + height)."""
    for row in range(first, last):
        for c in range(x.shape[1]):
            value = (_read(x[row, c]) - mean[c]) * slope[c] + height[c]
            # not max(value, 0), which would hide a NaN
            out[row, c] = _as_stored(np.float32(0) if value < 0 else value, out)


@_compiled
@no_type_check
def rectified_sum(x, mean, slope, height, shortcut, out, first, last):
    """out = relu((x - mean) slope + height + shortcut)."""
    for row in range(first, last):
        for c in range(x.shape[1]):
            value = (_read(x[row, c]) - mean[c]) * slope[c] + height[c] + _read(shortcut[row, c])
            out[row, c] = _as_stored(np.float32(0) if value < 0 else value, out)


@_compiled
@no_type_check
def flow_sums(x, mean, out, flow, sums, first, last):
    """sums[0] += d, sums[1] += d (x - mean), over rows; d: the flow where out > 0."""
    lanes = x.shape[1]
    behind, along = np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    for start in range(first, last, _ROWS):
        behind[:], along[:] = 0, 0
        for row in range(start, min(last, start + _ROWS)):
            for c in range(lanes):
                d = _read(flow[row, c]) if _read(out[row, c]) > 0 else np.float32(0)
                behind[c] += d
                along[c] += d * (_read(x[row, c]) - mean[c])
        for c in range(lanes):
            sums[0, c] += behind[c]
            sums[1, c] += along[c]


@_compiled
@no_type_check
def line_back(sums, line, inverse, n, learns, to_weight, to_bias):
    """Write the gradients to weight and bias; return mean, factor, shift and slope of `flow_back`, of each lane."""
    channels, lanes = len(inverse), line.shape[1]
    to_weight[:], to_bias[:] = 0, 0
    for part in range(len(sums)):
        for c in range(lanes):
            to_bias[c % channels] += sums[part, 0, c]
            to_weight[c % channels] += sums[part, 1, c] * inverse[c % channels]
    found = np.zeros((4, lanes), np.float32)
    for c in range(lanes):
        k = c % channels
        found[0, c], found[1, c] = line[0, c], line[1, c]
        if learns:  # the batch's statistics depend on the maps too
            found[2, c], found[3, c] = to_bias[k] / n, to_weight[k] * inverse[k] / n
    return found


@_compiled
@no_type_check
def flow_back(x, mean, factor, shift, slope, out, flow, to_x, first, last):
    """to_x = factor (d - shift - (x - mean) slope); d as in `flow_sums`."""
    for row in range(first, last):
        for c in range(x.shape[1]):
            d = _read(flow[row, c]) if _read(out[row, c]) > 0 else np.float32(0)
            back = factor[c] * (d - shift[c] - (_read(x[row, c]) - mean[c]) * slope[c])
            to_x[row, c] = _as_stored(back, to_x)


@_compiled
@no_type_check
def flow_back_sum(x, mean, factor, shift, slope, out, flow, to_x, to_shortcut, first, last):
    """As `flow_back`; and to_shortcut = d."""
    for row in range(first, last):
        for c in range(x.shape[1]):
            d = _read(flow[row, c]) if _read(out[row, c]) > 0 else np.float32(0)
            back = factor[c] * (d - shift[c] - (_read(x[row, c]) - mean[c]) * slope[c])
            to_x[row, c] = _as_stored(back, to_x)
            to_shortcut[row, c] = _as_stored(d, to_shortcut)
