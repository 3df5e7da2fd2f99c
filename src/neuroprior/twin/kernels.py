"""What PyTorch has no fast form of on a processor: reading maps at points, and two gradients of a core's layers.

Compiled by numba for float32 on the CPU, split over as many threads as torch uses; other devices and types take the
form in torch ops beside each, which is what the tests hold them against.
"""

from functools import cache
from typing import no_type_check

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from neuroprior.processor import array_of, in_parts, n_threads
from neuroprior.types import Float, Int64

__all__ = ["depthwise", "depthwise_plain", "normalised_elu", "normalised_elu_plain", "read_at", "read_at_plain"]

_REORDER = {"reassoc", "contract", "nsz"}  # sums may be reordered; NaN and inf stay what they are


def read_at(
    maps: Float[torch.Tensor, "image feature h w"],
    positions: Float[torch.Tensor, "trial neuron 2"],
    features: Float[torch.Tensor, "neuron feature"],
    rows: Int64[torch.Tensor, " trial"],
) -> Float[torch.Tensor, "trial neuron"]:
    """y_ta = sum_c features_ac maps_rows[t],c(positions_ta): bilinear, zero outside, [-1, 1] from corner to corner.

    Nothing of the size trials x neurons x features is written, forward or backward. `rows`: of `maps`, one a trial.
    """
    if maps.is_cpu and maps.dtype == features.dtype == torch.float32 and not torch.compiler.is_exporting():
        seen: torch.Tensor = _ReadAt.apply(maps, positions, features, rows)  # type: ignore[no-untyped-call]
        return seen
    return read_at_plain(maps, positions, features, rows)


def read_at_plain(
    maps: Float[torch.Tensor, "image feature h w"],
    positions: Float[torch.Tensor, "trial neuron 2"],
    features: Float[torch.Tensor, "neuron feature"],
    rows: Int64[torch.Tensor, " trial"],
) -> Float[torch.Tensor, "trial neuron"]:
    """`read_at` in torch ops: the four pixels around each position, weighted and summed by `embedding_bag`."""
    height, width = maps.shape[2:]
    pixels = maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1]).to(features.dtype)
    size = positions.new_tensor([width, height])
    at = (positions + 1) / 2 * (size - 1)
    low = at.detach().floor()
    lost = at.isnan().any(dim=-1)  # a training that went astray must see it
    corners, weights = [], []
    for step in ((0, 0), (1, 0), (0, 1), (1, 1)):
        corner = low + positions.new_tensor(step)
        outside = ((corner < 0) | (corner > size - 1)).any(dim=-1) & ~lost
        weight = (1 - (at - corner).abs()).prod(dim=-1)
        x, y = torch.minimum(corner.nan_to_num(0).clamp(min=0), size - 1).long().unbind(-1)
        corners.append(y * width + x + rows[:, None] * (height * width))
        weights.append(torch.where(outside, 0, weight))
    four = torch.stack(corners, -1).reshape(-1, 4)
    seen = F.embedding_bag(four, pixels, mode="sum", per_sample_weights=torch.stack(weights, -1).reshape(-1, 4))
    drive: torch.Tensor = torch.linalg.vecdot(seen.view(*positions.shape[:2], -1), features)
    return drive


def depthwise(
    maps: Float[torch.Tensor, "image channel h w"],
    weight: Float[torch.Tensor, "channel 1 k k"],
    bias: Float[torch.Tensor, " channel"] | None,
) -> Float[torch.Tensor, "image channel h w"]:
    """One spatial filter a channel, size-keeping: torch's convolution, with the gradient of the filters in one pass."""
    wanted = torch.is_grad_enabled() and weight.requires_grad and not torch.compiler.is_exporting()
    if wanted and maps.is_cpu and maps.dtype == torch.float32 and not torch.is_autocast_enabled("cpu"):
        spread: torch.Tensor = _Depthwise.apply(maps, weight)  # type: ignore[no-untyped-call]
        return spread if bias is None else spread + bias[:, None, None]
    return depthwise_plain(maps, weight, bias)


def depthwise_plain(
    maps: Float[torch.Tensor, "image channel h w"],
    weight: Float[torch.Tensor, "channel 1 k k"],
    bias: Float[torch.Tensor, " channel"] | None,
) -> Float[torch.Tensor, "image channel h w"]:
    """`depthwise` as torch does it."""
    return F.conv2d(maps, weight, bias, padding=weight.shape[-1] // 2, groups=len(weight))


def normalised_elu(
    maps: Float[torch.Tensor, "image channel h w"], norm: nn.BatchNorm2d
) -> Float[torch.Tensor, "image channel h w"]:
    """ELU(batch norm(maps)) with the batch's own statistics, which `norm` learns: torch's, with one backward pass.

    The gradient goes back through both at once: ELU's slope is known from what came out of it.
    """
    wanted = torch.is_grad_enabled() and not torch.compiler.is_exporting()
    if wanted and maps.is_cpu and maps.dtype == torch.float32 and not torch.is_autocast_enabled("cpu"):
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
        out: torch.Tensor = _NormalisedELU.apply(maps, norm.weight, norm.bias, norm)  # type: ignore[no-untyped-call]
        return out
    return normalised_elu_plain(maps, norm)


def normalised_elu_plain(
    maps: Float[torch.Tensor, "image channel h w"], norm: nn.BatchNorm2d
) -> Float[torch.Tensor, "image channel h w"]:
    """`normalised_elu` as torch does it."""
    # in place: batch norm's gradient needs its input, ELU's can do with its output, so one map is not kept
    return F.elu(norm(maps), inplace=True)


class _NormalisedELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, maps, weight, bias, norm):  # type: ignore[no-untyped-def]
        out, mean, scale = torch.native_batch_norm(
            maps, weight, bias, norm.running_mean, norm.running_var, True, norm.momentum, norm.eps
        )
        F.elu_(out)
        ctx.save_for_backward(maps, weight, out, mean, scale)
        return out

    @staticmethod
    def backward(ctx, upstream):  # type: ignore[no-untyped-def]
        maps, weight, out, mean, scale = ctx.saved_tensors
        x, y, flow = (array_of(value.permute(0, 2, 3, 1)) for value in (maps, out, upstream))
        middle, inverse = array_of(mean), array_of(scale)
        # per channel: the sum of the flow behind ELU, and of that times the normalised input; an image at a time
        sums = np.zeros((n_threads(), 2, len(middle)))
        in_parts(
            _compiled().normalised_sums,
            len(x),
            lambda first, last, part: (x, y, flow, middle, inverse, sums[part], first, last),
        )
        to_bias, to_weight = sums.sum(axis=0)
        n = x.size // len(middle)
        parts = [array_of(weight) * inverse, to_bias / n, inverse * to_weight / n]
        factor, shift, slope = (np.asarray(part, dtype=np.float32) for part in parts)
        to_maps = np.empty_like(x)
        in_parts(
            _compiled().normalised_backward,
            len(x),
            lambda first, last, _: (x, y, flow, middle, factor, shift, slope, to_maps, first, last),
        )
        to_norm = (torch.from_numpy(part.astype(np.float32)) for part in (to_weight, to_bias))
        return torch.from_numpy(to_maps).permute(0, 3, 1, 2), *to_norm, None


class _ReadAt(torch.autograd.Function):
    @staticmethod
    def forward(ctx, maps, positions, features, rows):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(maps, positions, features, rows)  # which torch lets go of as soon as it was used
        held = [array_of(maps.permute(0, 2, 3, 1)), array_of(positions), array_of(features), array_of(rows)]
        out = np.empty(positions.shape[:2], dtype=np.float32)
        in_parts(_compiled().read, len(rows), lambda first, last, _: (*held, out, first, last))
        return torch.from_numpy(out)

    @staticmethod
    def backward(ctx, upstream):  # type: ignore[no-untyped-def]
        maps, *rest = ctx.saved_tensors
        maps, positions, features, rows = array_of(maps.permute(0, 2, 3, 1)), *(array_of(value) for value in rest)
        flow = array_of(upstream)
        # not zeros_like, which writes the zeros: the system hands out pages that are zero already
        to_maps, to_positions = np.zeros(maps.shape, dtype=np.float32), np.empty_like(positions)
        to_features = np.zeros((n_threads(), *features.shape), dtype=np.float32)
        # split by images: no two threads then write to one map
        in_parts(
            _compiled().read_backward,
            len(maps),
            lambda first, last, part: (
                maps, positions, features, rows, flow, to_maps, to_positions, to_features[part], first, last,
            ),
        )  # fmt: skip
        return (
            torch.from_numpy(to_maps).permute(0, 3, 1, 2),
            torch.from_numpy(to_positions),
            torch.from_numpy(to_features.sum(axis=0)),
            None,
        )


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, maps, weight):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(maps, weight)
        return depthwise_plain(maps, weight, None)

    @staticmethod
    def backward(ctx, upstream):  # type: ignore[no-untyped-def]
        maps, weight = ctx.saved_tensors
        reach = weight.shape[-1] // 2
        # the gradient to the maps is the convolution with the filters turned round, which torch does fast
        to_maps = depthwise_plain(upstream, weight.flip(2, 3), None) if ctx.needs_input_grad[0] else None
        x = array_of(maps.permute(0, 2, 3, 1))
        around = np.zeros((len(x), x.shape[1] + 2 * reach, x.shape[2] + 2 * reach, x.shape[3]), dtype=np.float32)
        around[:, reach : reach + x.shape[1], reach : reach + x.shape[2]] = x
        flow = array_of(upstream.permute(0, 2, 3, 1))
        sums = np.zeros((n_threads(), *weight.shape[2:], len(weight)), dtype=np.float32)
        in_parts(
            _compiled().filter_gradient, len(maps), lambda first, last, part: (around, flow, sums[part], first, last)
        )
        return to_maps, torch.from_numpy(sums.sum(axis=0)).permute(2, 0, 1)[:, None]


class _Loops:
    """The compiled loops; compiling is put off to the first use, and kept on disk."""

    def __init__(self) -> None:
        from numba import njit

        compiled = njit(nogil=True, fastmath=_REORDER, cache=True)
        self.read = compiled(_read)
        self.read_backward = compiled(_read_backward)
        self.filter_gradient = compiled(_filter_gradient)
        self.normalised_sums = compiled(_normalised_sums)
        self.normalised_backward = compiled(_normalised_backward)


@cache
def _compiled() -> _Loops:
    return _Loops()


@no_type_check  # compiled, not checked
def _read(maps, positions, features, rows, out, first, last):
    height, width, n_features = maps.shape[1:]
    one = np.float32(1)
    for t in range(first, last):
        for a in range(len(features)):
            x = (positions[t, a, 0] + one) * np.float32(0.5) * np.float32(width - 1)
            y = (positions[t, a, 1] + one) * np.float32(0.5) * np.float32(height - 1)
            left, top = np.floor(x), np.floor(y)
            drive = np.float32(0)
            if -1 <= left < width and -1 <= top < height:
                for k in range(4):
                    column, row = int(left) + (k & 1), int(top) + (k >> 1)
                    if 0 <= column < width and 0 <= row < height:
                        part = (x - left if k & 1 else one - (x - left)) * (y - top if k >> 1 else one - (y - top))
                        value = np.float32(0)
                        for c in range(n_features):
                            value += maps[rows[t], row, column, c] * features[a, c]
                        drive += part * value
            elif x != x or y != y:  # a training that went astray must see it
                drive = x + y
            out[t, a] = drive


@no_type_check  # compiled, not checked
def _read_backward(maps, positions, features, rows, flow, to_maps, to_positions, to_features, first, last):
    height, width, n_features = maps.shape[1:]
    one = np.float32(1)
    for t in range(len(rows)):
        image = rows[t]
        if image < first or image >= last:
            continue
        for a in range(len(features)):
            x = (positions[t, a, 0] + one) * np.float32(0.5) * np.float32(width - 1)
            y = (positions[t, a, 1] + one) * np.float32(0.5) * np.float32(height - 1)
            left, top = np.floor(x), np.floor(y)
            along_x, along_y = np.float32(0), np.float32(0)
            if -1 <= left < width and -1 <= top < height:
                for k in range(4):
                    column, row = int(left) + (k & 1), int(top) + (k >> 1)
                    if 0 <= column < width and 0 <= row < height:
                        across = x - left if k & 1 else one - (x - left)
                        down = y - top if k >> 1 else one - (y - top)
                        part = flow[t, a] * across * down
                        value = np.float32(0)
                        for c in range(n_features):
                            value += maps[image, row, column, c] * features[a, c]
                            to_maps[image, row, column, c] += part * features[a, c]
                            to_features[a, c] += part * maps[image, row, column, c]
                        along_x += value * (down if k & 1 else -down)
                        along_y += value * (across if k >> 1 else -across)
            to_positions[t, a, 0] = flow[t, a] * along_x * np.float32(0.5) * np.float32(width - 1)
            to_positions[t, a, 1] = flow[t, a] * along_y * np.float32(0.5) * np.float32(height - 1)


@no_type_check  # compiled, not checked
def _filter_gradient(around, flow, sums, first, last):
    kernel = len(sums)
    height, width, channels = flow.shape[1:]
    for image in range(first, last):
        for y in range(height):
            for i in range(kernel):
                for x in range(width):
                    for j in range(kernel):
                        for c in range(channels):
                            sums[i, j, c] += around[image, y + i, x + j, c] * flow[image, y, x, c]


@no_type_check  # compiled, not checked
def _normalised_sums(x, y, flow, mean, inverse, sums, first, last):
    height, width, channels = x.shape[1:]
    one = np.float32(1)
    behind, along = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for image in range(first, last):
        behind[:], along[:] = 0, 0  # float32 for one image, float64 over all of them
        for row in range(height):
            for column in range(width):
                for c in range(channels):
                    out = y[image, row, column, c]
                    d = flow[image, row, column, c] * (one if out > 0 else out + one)
                    behind[c] += d
                    along[c] += d * (x[image, row, column, c] - mean[c])
        for c in range(channels):
            sums[0, c] += behind[c]
            sums[1, c] += along[c] * inverse[c]


@no_type_check  # compiled, not checked
def _normalised_backward(x, y, flow, mean, factor, shift, slope, to_maps, first, last):
    height, width, channels = x.shape[1:]
    one = np.float32(1)
    for image in range(first, last):
        for row in range(height):
            for column in range(width):
                for c in range(channels):
                    out = y[image, row, column, c]
                    d = flow[image, row, column, c] * (one if out > 0 else out + one)
                    centred = x[image, row, column, c] - mean[c]
                    to_maps[image, row, column, c] = factor[c] * (d - shift[c] - centred * slope[c])
