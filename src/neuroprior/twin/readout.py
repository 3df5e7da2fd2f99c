"""Readouts: how each neuron looks at the feature maps."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from neuroprior.twin.kernels import read_at
from neuroprior.types import Float, Int64

__all__ = ["CorticalPositions", "FactorisedReadout", "FreePositions", "GaussianReadout", "PositionSpread", "Readout"]


class FreePositions(nn.Module):
    """One learned position a neuron: x, y in [-1, 1], corners being the centres of the corner pixels."""

    def __init__(self, positions: Float[torch.Tensor, "neuron 2"]) -> None:
        super().__init__()
        self.positions = nn.Parameter(positions)

    def forward(self) -> Float[torch.Tensor, "neuron 2"]:
        """Return the positions."""
        return self.positions


class CorticalPositions(nn.Module):
    """position_a = tanh(MLP(cortex_a)): a smooth map from where a neuron is to where it looks, shared by all.

    `cortex`: standardised cortical coordinates, 2 of them (depth says nothing about where a neuron looks).
    """

    def __init__(self, cortex: Float[torch.Tensor, "neuron 2"], hidden: int = 30) -> None:
        super().__init__()
        self.register_buffer("cortex", cortex)
        self.cortex: torch.Tensor
        self.mlp = nn.Sequential(nn.Linear(2, hidden), nn.ELU(), nn.Linear(hidden, 2), nn.Tanh())

    def forward(self) -> Float[torch.Tensor, "neuron 2"]:
        """Return the positions."""
        positions: torch.Tensor = self.mlp(self.cortex)
        return positions


class PositionSpread(nn.Module):
    """What positions are sampled with in training: `position + L n`, n standard normal, L of one neuron.

    `factor`: `(neuron, 2, 2)` for a full covariance `L L^T`, `(neuron,)` for an isotropic one.
    """

    def __init__(self, factor: Float[torch.Tensor, "neuron *square"]) -> None:
        super().__init__()
        self.factor = nn.Parameter(factor)

    def forward(self, positions: Float[torch.Tensor, "neuron 2"], n_trials: int) -> Float[torch.Tensor, "t neuron 2"]:
        """Draw a position for every trial and neuron, within the maps."""
        normal = torch.randn(n_trials, *positions.shape, device=positions.device)
        if self.factor.ndim == 1:
            moved = self.factor[:, None] * normal
        else:
            moved = self.factor[..., 0] * normal[..., :1] + self.factor[..., 1] * normal[..., 1:]
        return (positions + moved).clamp(-1, 1)


class GaussianReadout(nn.Module):
    """y_ta = sum_c features_ac maps_c(position_a + shift_t) + bias_a (Lurz et al. 2021): one point a neuron.

    In training the position is drawn from a Gaussian about its mean, whose spread is learned; evaluation takes the
    mean. Bilinear interpolation, zero outside the maps.
    """

    def __init__(
        self,
        positions: Float[torch.Tensor, "neuron 2"] | nn.Module,
        features: Float[torch.Tensor, "neuron feature"],
        bias: Float[torch.Tensor, " neuron"],
        spread: PositionSpread | None = None,
    ) -> None:
        super().__init__()
        self.places = FreePositions(positions) if isinstance(positions, torch.Tensor) else positions
        self.features = nn.Parameter(features)
        self.bias = nn.Parameter(bias)
        self.spread = spread

    @property
    def positions(self) -> Float[torch.Tensor, "neuron 2"]:
        """Mean position of each neuron."""
        where: torch.Tensor = self.places()
        return where

    def forward(
        self,
        maps: Float[torch.Tensor, "image feature h w"],
        shift: Float[torch.Tensor, "trial 2"],
        rows: Int64[torch.Tensor, " trial"] | None = None,
    ) -> Float[torch.Tensor, "trial neuron"]:
        """Weight the features at each neuron's shifted position. `rows`: the map of each trial; trial t's is t."""
        if rows is None:
            rows = torch.arange(len(maps), device=maps.device)
        if self.training and self.spread is not None:
            where = self.spread(self.positions, len(rows))
        else:
            where = self.positions.clamp(-1, 1)[None]  # as the draws are
        # Under autocast the maps may be coarser than the parameters; what is read out is not.
        at = (where + shift[:, None]).to(self.features.dtype)
        return read_at(maps.to(self.features.dtype), at, self.features, rows) + self.bias

    def settled(self) -> "GaussianReadout":
        """Return the readout as evaluation needs it: fixed positions, no spread."""
        where, features, bias = (v.detach().clone() for v in (self.positions.clamp(-1, 1), self.features, self.bias))
        return GaussianReadout(where, features, bias)


class FactorisedReadout(nn.Module):
    """y_ta = sum_c features_ac sum_p mask_ap maps_cp + bias_a (Klindt et al. 2017): where times what.

    The gaze moves the maps (bilinear, zero outside) by the other way round. Cost grows with neurons times pixels.
    """

    def __init__(
        self,
        mask: Float[torch.Tensor, "neuron h w"],
        features: Float[torch.Tensor, "neuron feature"],
        bias: Float[torch.Tensor, " neuron"],
    ) -> None:
        super().__init__()
        self.mask = nn.Parameter(mask)
        self.features = nn.Parameter(features)
        self.bias = nn.Parameter(bias)

    @property
    def positions(self) -> Float[torch.Tensor, "neuron 2"]:
        """Centre of mass of each neuron's squared mask, x and y in [-1, 1]."""
        weight = self.mask.square()
        weight = weight / weight.sum(dim=(1, 2), keepdim=True).clamp(min=1e-30)
        height, width = self.mask.shape[1:]
        x = torch.linspace(-1, 1, width, device=weight.device)
        y = torch.linspace(-1, 1, height, device=weight.device)
        return torch.stack([(weight.sum(1) * x).sum(1), (weight.sum(2) * y).sum(1)], dim=1)

    def forward(
        self,
        maps: Float[torch.Tensor, "image feature h w"],
        shift: Float[torch.Tensor, "trial 2"],
        rows: Int64[torch.Tensor, " trial"] | None = None,
    ) -> Float[torch.Tensor, "trial neuron"]:
        """Sum the maps under each neuron's mask, then weight the features. `rows` as in `GaussianReadout`."""
        seen = maps.to(self.features.dtype)
        seen = moved(seen if rows is None else seen[rows], shift)
        under = torch.einsum("tcp,ap->tac", seen.flatten(2), self.mask.flatten(1))
        drive: torch.Tensor = torch.linalg.vecdot(under, self.features) + self.bias
        return drive

    def settled(self) -> "FactorisedReadout":
        """Return the readout as evaluation needs it."""
        return FactorisedReadout(*(value.detach().clone() for value in (self.mask, self.features, self.bias)))


Readout = GaussianReadout | FactorisedReadout


def moved(
    maps: Float[torch.Tensor, "trial feature h w"], shift: Float[torch.Tensor, "trial 2"]
) -> Float[torch.Tensor, "trial feature h w"]:
    """`maps(p + shift)`: what stands at p of the result stood at p + shift (units of half the maps) before."""
    height, width = maps.shape[2:]
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height, device=maps.device),
        torch.linspace(-1, 1, width, device=maps.device),
        indexing="ij",
    )
    grid = torch.stack([x, y], dim=-1) + shift[:, None, None].to(maps.dtype)
    return F.grid_sample(maps, grid, align_corners=True)


def first_features(n_neurons: int, n_features: int) -> Float[torch.Tensor, "neuron feature"]:
    """Feature weights to begin training with: normal, variance 1 / C^2, so that the drive begins small."""
    return torch.randn(n_neurons, n_features) / n_features


def first_spread(n_neurons: int, spread: float, full: bool) -> PositionSpread:
    """Spreads to begin training with, alike in all directions."""
    if full:
        return PositionSpread(spread * torch.eye(2).expand(n_neurons, 2, 2).clone())
    return PositionSpread(torch.full((n_neurons,), spread))


def first_mask(positions: Float[torch.Tensor, "neuron 2"], height: int, width: int) -> torch.Tensor:
    """Masks to begin training with: a Gaussian bump of a fifth of the maps' half-width about each position, sum 1."""
    x, y = torch.linspace(-1, 1, width), torch.linspace(-1, 1, height)
    across = torch.exp(-0.5 * ((x - positions[:, :1]) / 0.2) ** 2)
    down = torch.exp(-0.5 * ((y - positions[:, 1:]) * (height / width) / 0.2) ** 2)
    mask = down[:, :, None] * across[:, None]
    return mask / mask.sum(dim=(1, 2), keepdim=True).clamp(min=math.ulp(1.0))
