"""Lengths of perturbations, and the balls around an image."""

import math
from typing import Literal

import torch

from neuroprior.types import Bool, Float

Norm = Literal["l0", "l1", "l2", "linf"]


def length(delta: torch.Tensor, norm: Norm) -> Float[torch.Tensor, " image"]:
    """|delta_i|_p of each image: l0 counts changed values, the others are in units of the pixel range [0, 1]."""
    flat = delta.flatten(1)
    if norm == "l0":
        return (flat != 0).sum(1).to(flat.dtype)
    order = {"l1": 1, "l2": 2, "linf": math.inf}[norm]
    lengths: torch.Tensor = torch.linalg.vector_norm(flat, ord=order, dim=1)
    return lengths


def dual_length(gradient: torch.Tensor, norm: Norm) -> Float[torch.Tensor, " image"]:
    """max of g . delta over |delta|_p <= 1: how fast a linear loss can rise; p = 1, 2, inf."""
    order = {"l1": math.inf, "l2": 2, "linf": 1}[norm]
    lengths: torch.Tensor = torch.linalg.vector_norm(gradient.flatten(1), ord=order, dim=1)
    return lengths


def linear_length(margin: torch.Tensor, gradient: torch.Tensor, norm: Norm) -> Float[torch.Tensor, " image"]:
    """-m / |grad m|_q, q the dual norm: how far away the margin's linear model crosses zero."""
    return -margin / dual_length(gradient, norm).clamp_min(1e-30)


def steepest(gradient: torch.Tensor, norm: Norm) -> torch.Tensor:
    """The direction of length 1 (in `norm`) along which a linear loss rises most; 0 where the gradient is 0."""
    if norm == "linf":
        return gradient.sign()
    return gradient / over(length(gradient, "l2").clamp_min(1e-30), gradient)


def into_ball(delta: torch.Tensor, radius: torch.Tensor, norm: Norm) -> torch.Tensor:
    """The nearest perturbation (in l2) of length at most `radius`, for each image."""
    wide = over(radius, delta)
    if norm == "linf":
        return delta.clamp(-wide, wide)
    if norm == "l0":
        size = delta.flatten(1).abs()
        rank = size.argsort(dim=1, descending=True).argsort(dim=1).reshape_as(delta)
        return delta * (rank < wide)
    if norm == "l1":
        return _soft(delta, radius)
    return delta * (wide / over(length(delta, "l2").clamp_min(1e-30), delta)).clamp_max(1)


def _soft(delta: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """sign(delta) max(|delta| - s, 0), s >= 0 such that its l1 length is at most `radius` (Duchi et al. 2008)."""
    size = delta.flatten(1).abs()
    ordered = size.sort(dim=1, descending=True).values
    count = torch.arange(1, size.shape[1] + 1, device=size.device)
    shrunk = (ordered.cumsum(1) - radius[:, None]) / count
    last = (ordered > shrunk).sum(1, keepdim=True).clamp_min(1) - 1
    s = shrunk.gather(1, last).clamp_min(0)
    return delta.sign() * (size - s).clamp_min(0).reshape_as(delta)


def largest_length(images: torch.Tensor, norm: Norm) -> float:
    """The length of the longest perturbation inside [0, 1]."""
    n = images[0].numel()
    return {"l0": float(n), "l1": float(n), "l2": math.sqrt(n), "linf": 1.0}[norm]


def over(values: Float[torch.Tensor, " image"] | Bool[torch.Tensor, " image"], images: torch.Tensor) -> torch.Tensor:
    """One value an image, shaped to multiply images."""
    return values.reshape(-1, *(1,) * (images.ndim - 1))
