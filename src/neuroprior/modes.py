"""Borrowing a network: see what it works in, switch how its modules behave, and give everything back as it was."""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch to evaluation, then give every module its own mode back (some may be frozen on purpose)."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def running_statistics_kept(model: nn.Module) -> Iterator[None]:
    """Let batch norm in training mode use a batch's statistics without remembering them."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def gone_through_again(model: nn.Module) -> AbstractContextManager[None]:
    """Return a context for a second forward pass of the same batch (gradient checkpointing).

    Batch norm does in it what it does now, but does not remember the batch's statistics a second time.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    modes = [(norm.training, norm.track_running_stats) for norm in norms]

    @contextmanager
    def again() -> Iterator[None]:
        before = [(norm.training, norm.track_running_stats, norm.momentum) for norm in norms]
        counts = [None if n.num_batches_tracked is None else n.num_batches_tracked.clone() for n in norms]
        for norm, (training, tracked) in zip(norms, modes, strict=True):
            norm.training, norm.track_running_stats, norm.momentum = training, tracked, 0.0
        try:
            yield
        finally:
            for norm, (training, tracked, momentum), count in zip(norms, before, counts, strict=True):
                norm.training, norm.track_running_stats, norm.momentum = training, tracked, momentum
                if count is not None and norm.num_batches_tracked is not None:
                    norm.num_batches_tracked.copy_(count)

    return again()


def like(model: nn.Module) -> torch.Tensor:
    """Return a tensor of the device and floating type that the model works in."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            return tensor
    return torch.empty(0)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the network inside `DistributedDataParallel`, `DataParallel` or `torch.compile`: the same weights."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def run_uncompiled() -> AbstractContextManager[object]:
    """Run modules as they are written, compiled or not: compiled code does not see hooks that come and go."""
    eager: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return eager


_GUARD = re.compile(r"Expected input at \*args\[0\]\.shape\[(\d)\] to be equal to (\d+), but got (\d+)")
_AXES = ("images", "channels", "rows of pixels", "columns of pixels")


def said_by_network(error: BaseException) -> str:
    """Return the last line of what a network failed with; of an exported program, what it takes, in words."""
    guard = _GUARD.search(str(error))
    if guard is not None and int(guard[1]) < len(_AXES):
        return f"it takes {guard[2]} {_AXES[int(guard[1])]}, and got {guard[3]}"
    said = (str(error).strip().splitlines() or [""])[-1][:160]
    kind = type(error).__name__
    return f"{kind}: {said}" if said and isinstance(error, LookupError) else said or kind  # 'x' says nothing by itself
