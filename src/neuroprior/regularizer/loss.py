"""Eq. 8 and 10 as pure functions: layers to similarity, similarity to loss."""

from collections.abc import Sequence
from typing import Literal

import torch

from neuroprior.types import Float

Mean = Literal["lineage", "batch", "dataset"]
Pairs = Literal["disjoint", "all"]
Scale = Literal["printed", "lineage"]

LARGEST_SIMILARITY = 1 - 1e-5
"""|S| is clamped to this before atanh, which is infinite at 1."""


def combine_layers(
    similarities: Sequence[Float[torch.Tensor, "image image"]], gamma: Float[torch.Tensor, " layer"]
) -> Float[torch.Tensor, "image image"]:
    """S = sum_k gamma_k S_k (Eq. 10)."""
    with torch.autocast(gamma.device.type, enabled=False):
        return torch.einsum("kij,k->ij", torch.stack(list(similarities)), gamma)


def similarity_loss(
    network: Float[torch.Tensor, "image image"],
    target: Float[torch.Tensor, "image image"],
    pairs: Pairs = "disjoint",
    scale: Scale = "printed",
    within: tuple[float | int, float | int] | None = None,
) -> Float[torch.Tensor, ""]:
    """Mean over pairs i < j of (atanh S_cnn - atanh S_neural)^2 (Eq. 8), in float32.

    `pairs`: `all` pairs of the images, or `disjoint` ones (0, 1), (2, 3), ...; the mean makes the scale the same.
    `scale`: `printed` as in the paper; `lineage` without atanh's factor 1/2, which is 4 times as much.
    `within`: only pairs whose S_neural lies in this range count; 0 where there is none.
    """
    n = len(network)
    if pairs == "all":
        i, j = torch.triu_indices(n, n, offset=1, device=network.device)
    else:
        i = torch.arange(0, n - 1, 2, device=network.device)
        j = i + 1
    with torch.autocast(network.device.type, enabled=False):
        wanted = target[i, j]
        squares = (_fisher(network[i, j]) - _fisher(wanted)).square()
        if within is None:
            loss = squares.mean()
        else:
            counts = (wanted >= within[0]) & (wanted <= within[1])
            loss = (squares * counts).sum() / counts.sum().clamp(min=1)
        return loss * (4.0 if scale == "lineage" else 1.0)


def _fisher(similarity: torch.Tensor) -> torch.Tensor:
    return torch.atanh(similarity.float().clamp(-LARGEST_SIMILARITY, LARGEST_SIMILARITY))
