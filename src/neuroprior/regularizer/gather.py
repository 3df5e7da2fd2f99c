"""The stimuli's features, computed by all processes of a distributed training together."""

from typing import Any

import torch
from torch import distributed

from neuroprior.types import InputError


def world_size() -> int:
    """How many processes train together; 1 where there is no process group."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this process is; 0 where it is alone."""
    return distributed.get_rank() if world_size() > 1 else 0


def own_share(rows: torch.Tensor) -> torch.Tensor:
    """Return the part of the rows that is this process's to compute: all of them where it is alone."""
    n = world_size()
    return rows if n == 1 else rows.chunk(n)[rank()]


def gathered(features: torch.Tensor) -> torch.Tensor:
    """Return the features of all processes' shares in order, with gradients that reach the process they came from."""
    if world_size() == 1:
        return features
    joined: torch.Tensor = _Gather.apply(features)  # type: ignore[no-untyped-call]
    return joined


def check_same_draw(drawn: torch.Tensor, device: torch.device) -> None:
    """Raise `InputError` where processes that train together would look at different stimuli."""
    if world_size() == 1:
        return
    mine = drawn.to(device)
    theirs = [torch.empty_like(mine) for _ in range(world_size())]
    distributed.all_gather(theirs, mine)
    if any(not torch.equal(mine, other) for other in theirs):
        raise InputError(
            "regularizer: the processes draw different stimuli; give SimilarityRegularizer the same seed and the "
            "same state in all of them"
        )


class _Gather(torch.autograd.Function):
    """Every process computes the same loss of all features. Its gradient for a share is summed over the processes,
    and the mean over processes that DDP then takes of the parameters' gradients gives the single process's."""

    @staticmethod
    def forward(ctx: Any, features: torch.Tensor) -> torch.Tensor:
        features = features.contiguous()
        parts = [torch.empty_like(features) for _ in range(world_size())]
        distributed.all_gather(parts, features)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        whole = gradients[0].contiguous()
        distributed.all_reduce(whole)
        return whole.chunk(world_size())[rank()]
