"""Batch norm, residual sum and ReLU in one go: on a processor they cost a network of small width half of its time.

Each pass over the maps is bound by memory. In torch ops a training step makes 13 of them, forward and backward; here it
makes 10: the statistics, the output; the sums of the gradient, the gradient.
"""

from collections.abc import Callable
from types import ModuleType

import numpy as np
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from neuroprior.processor import array_of, in_parts, n_threads
from neuroprior.types import Float

_TYPES = (torch.float32, torch.bfloat16)
_SMALL = 1 << 18  # values: so few are not worth a second thread
_LONG = 128  # values in an innermost loop, at least, where the shape allows


def normalised_relu(
    maps: Float[torch.Tensor, "image channel h w"],
    norm: nn.BatchNorm2d,
    shortcut: Float[torch.Tensor, "image channel h w"] | None = None,
) -> Float[torch.Tensor, "image channel h w"]:
    """relu(norm(maps) + shortcut), float32 or bfloat16, in training or evaluation; `norm` learns as it would by itself.

    Differentiable once.

    Compiled for maps on the processor that lie channels last; all others, and a `norm` that is looked at (hooks) or
    recorded (a dispatch mode, a compiler, torch.func), take `normalised_relu_plain`.
    """
    if _is_fast(maps, norm) and (shortcut is None or (shortcut.shape, shortcut.dtype) == (maps.shape, maps.dtype)):
        out: torch.Tensor = _NormalisedReLU.apply(maps, norm.weight, norm.bias, shortcut, norm)  # type: ignore[no-untyped-call]
        return out
    return normalised_relu_plain(maps, norm, shortcut)


def normalised_relu_plain(
    maps: Float[torch.Tensor, "image channel h w"],
    norm: nn.BatchNorm2d,
    shortcut: Float[torch.Tensor, "image channel h w"] | None = None,
) -> Float[torch.Tensor, "image channel h w"]:
    """`normalised_relu` as torch does it."""
    out: torch.Tensor = norm(maps)
    return F.relu(out if shortcut is None else out + shortcut, inplace=True)


def looked_at(module: nn.Module) -> bool:
    """Whether somebody looks at a module, or has put something else in its place: it must then be called itself."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks) or "forward" in vars(module) or bool(nn.modules.module._has_any_global_hook())  # type: ignore[no-untyped-call]


def _is_fast(maps: torch.Tensor, norm: nn.BatchNorm2d) -> bool:
    if (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or is_in_torch_dispatch_mode()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or looked_at(norm)
    ):
        return False
    return (
        type(maps) is torch.Tensor
        and type(norm) is nn.BatchNorm2d
        and maps.is_cpu
        and maps.ndim == 4
        and maps.dtype in _TYPES
        and maps.is_contiguous(memory_format=torch.channels_last)
        and norm.momentum is not None
        and norm.num_batches_tracked is not None
        and norm.eps > 0
        # compiled loops check no bounds
        and all(
            value is not None
            and value.is_cpu
            and value.dtype == torch.float32
            and value.shape == maps.shape[1:2]
            and value.is_contiguous()
            for value in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        )
        and maps.numel() > maps.shape[1]  # batch norm says what it has against a single value a channel
    )


class _NormalisedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, maps, weight, bias, shortcut, norm):  # type: ignore[no-untyped-def]
        loops, rows = _loops(), _Rows(maps)
        x, inverse = rows.of(maps), np.empty(rows.channels)
        mean, variance = _statistics(x, rows, norm) if norm.training else _kept(norm)
        line = loops.line(mean, variance, norm.eps, array_of(weight), array_of(bias), inverse, rows.lanes)
        out = torch.empty_like(maps, memory_format=torch.channels_last)
        if shortcut is None:
            rows.run(loops.rectified, x, *line, rows.of(out))
        else:
            rows.run(loops.rectified_sum, x, *line, rows.of(shortcut), rows.of(out))
        ctx.save_for_backward(maps, out)
        ctx.line, ctx.inverse, ctx.learns, ctx.summed = line, inverse, norm.training, shortcut is not None
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):  # type: ignore[no-untyped-def]
        maps, out = ctx.saved_tensors
        loops, rows = _loops(), _Rows(maps)
        x, y, flow = rows.of(maps), rows.of(out), rows.of(upstream.contiguous(memory_format=torch.channels_last))
        sums = rows.sums()
        if ctx.learns or any(ctx.needs_input_grad[1:3]):
            rows.run(loops.flow_sums, x, ctx.line[0], y, flow, sums)
        to_weight, to_bias = np.empty((2, rows.channels), np.float32)
        line = loops.line_back(sums, ctx.line, ctx.inverse, rows.pixels, ctx.learns, to_weight, to_bias)
        to_maps = torch.empty_like(maps, memory_format=torch.channels_last)
        to_shortcut = torch.empty_like(to_maps) if ctx.summed else None
        if to_shortcut is None:
            rows.run(loops.flow_back, x, *line, y, flow, rows.of(to_maps))
        else:
            rows.run(loops.flow_back_sum, x, *line, y, flow, rows.of(to_maps), rows.of(to_shortcut))
        return to_maps, torch.from_numpy(to_weight), torch.from_numpy(to_bias), to_shortcut, None


class _Rows:
    """Maps that lie channels last, as rows of lanes: the channels of one pixel, or of several."""

    def __init__(self, maps: torch.Tensor) -> None:
        self.channels = maps.shape[1]
        self.pixels = self.n = maps.numel() // self.channels
        self.lanes = self.channels
        while self.lanes < _LONG and self.n % 2 == 0:
            self.lanes, self.n = 2 * self.lanes, self.n // 2
        self.threads = 1 if maps.numel() <= _SMALL else n_threads()

    def of(self, maps: torch.Tensor) -> np.ndarray:
        """Return the values, without a copy."""
        return array_of(maps.permute(0, 2, 3, 1)).reshape(self.n, self.lanes)

    def sums(self) -> np.ndarray:
        """Return zeros for two sums a thread."""
        return np.zeros((self.threads, 2, self.lanes))

    def run(self, loop: Callable[..., None], *arrays: np.ndarray) -> None:
        """Run a loop over all rows; of sums, `(thread, 2, lane)`, each thread has its own."""
        if self.threads == 1:
            loop(*(array[0] if array.ndim == 3 else array for array in arrays), 0, self.n)
            return

        def arguments(first: int, last: int, part: int) -> tuple[object, ...]:
            return *(array[part] if array.ndim == 3 else array for array in arrays), first, last

        in_parts(loop, self.n, arguments)


def _statistics(x: np.ndarray, rows: _Rows, norm: nn.BatchNorm2d) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of each channel, and let `norm` remember them if it does."""
    loops, sums = _loops(), rows.sums()
    mean, variance = np.empty((2, rows.channels))
    rows.run(loops.moments, x, sums)
    loops.learnt(x, sums, mean, variance)
    if norm.track_running_stats:
        loops.remembered(mean, variance, rows.pixels, norm.momentum, *_running(norm))
        norm.num_batches_tracked.add_(1)  # type: ignore[union-attr] # _is_fast
    return mean, variance


def _kept(norm: nn.BatchNorm2d) -> tuple[np.ndarray, np.ndarray]:
    mean, variance = _running(norm)
    return mean.astype(np.float64), variance.astype(np.float64)


def _running(norm: nn.BatchNorm2d) -> tuple[np.ndarray, np.ndarray]:
    """Return the running statistics, where they lie."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return array_of(norm.running_mean), array_of(norm.running_var)


def _loops() -> ModuleType:
    # numba takes a moment to import, and longer to compile
    from neuroprior.classifier import normalised_loops

    return normalised_loops
