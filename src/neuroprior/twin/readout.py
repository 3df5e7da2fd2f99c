"""The readout: every neuron looks at one position of the feature maps."""

import torch
from torch import nn
from torch.nn import functional as F

from neuroprior.types import Float


class GaussianReadout(nn.Module):
    """y_a = sum_c features_ac maps_c(position_a + shift) + bias_a, at the mean of each neuron's position.

    `positions`: x, y in [-1, 1], corners being the centres of the corner pixels; bilinear interpolation, zero outside.
    The covariance of a position matters in training only, where it is sampled, so evaluation does not hold it.
    """

    def __init__(
        self,
        positions: Float[torch.Tensor, "neuron 2"],
        features: Float[torch.Tensor, "neuron feature"],
        bias: Float[torch.Tensor, " neuron"],
    ) -> None:
        super().__init__()
        self.positions = nn.Parameter(positions)
        self.features = nn.Parameter(features)
        self.bias = nn.Parameter(bias)

    def forward(
        self, maps: Float[torch.Tensor, "image feature h w"], shift: Float[torch.Tensor, "image 2"]
    ) -> Float[torch.Tensor, "image neuron"]:
        """Sample the maps at each neuron's shifted position and weight the features found there."""
        grid = self.positions[None, :, None, :] + shift[:, None, None, :]
        seen = F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=True).squeeze(-1)
        return torch.einsum("bfn,nf->bn", seen, self.features) + self.bias
