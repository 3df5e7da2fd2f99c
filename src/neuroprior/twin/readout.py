"""The readout: every neuron looks at one position of the feature maps."""

import torch
from torch import nn
from torch.nn import functional as F

from neuroprior.types import Float, Int64


class GaussianReadout(nn.Module):
    """y_a = sum_c features_ac maps_c(position_a + shift) + bias_a, at the mean of each neuron's position.

    `positions`: x, y in [-1, 1], corners being the centres of the corner pixels; bilinear interpolation, zero outside.
    The covariance of a position matters in training only, where it is sampled, so evaluation does not hold it.

    Each neuron needs four pixels of all maps. They are summed by `embedding_bag`, with a pixel's features as one row:
    nothing of the size images x features x neurons is ever written, as `grid_sample` would.
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
        height, width = maps.shape[2:]
        # Under autocast the maps may be coarser than the parameters; what is read out is not.
        rows = maps.permute(0, 2, 3, 1).reshape(len(maps), height * width, -1).to(self.features.dtype)
        # Neurons in the order of their pixels: neighbours in the list then find their rows in the cache.
        order = torch.argsort(_pixel(self.positions, height, width))
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        positions, features = self.positions[order], self.features[order]
        drive = []
        corners = weights = None
        for image, pixels in enumerate(rows):
            if corners is None or not torch.equal(shift[image], shift[image - 1]):  # one gaze for all is the rule
                corners, weights = _bilinear(positions + shift[image], height, width)
            seen = F.embedding_bag(corners, pixels, mode="sum", per_sample_weights=weights)
            drive.append(torch.linalg.vecdot(seen, features))
        return torch.stack(drive)[:, place] + self.bias


def _pixel(positions: Float[torch.Tensor, "neuron 2"], height: int, width: int) -> Int64[torch.Tensor, " neuron"]:
    x = ((positions[:, 0] + 1) / 2 * (width - 1)).floor().long().clamp(0, width - 1)
    y = ((positions[:, 1] + 1) / 2 * (height - 1)).floor().long().clamp(0, height - 1)
    return y * width + x


def _bilinear(
    positions: Float[torch.Tensor, "neuron 2"], height: int, width: int
) -> tuple[Int64[torch.Tensor, "neuron 4"], Float[torch.Tensor, "neuron 4"]]:
    """Return the four pixels around each position (row-major index) and their weights; 0 for pixels outside."""
    size = positions.new_tensor([width, height])
    at = (positions + 1) / 2 * (size - 1)
    low = at.floor()
    corners, weights = [], []
    for step in ((0, 0), (1, 0), (0, 1), (1, 1)):
        corner = low + positions.new_tensor(step)
        inside = ((corner >= 0) & (corner <= size - 1)).all(dim=1)
        weight = (1 - (at - corner).abs()).prod(dim=1)
        x, y = torch.minimum(corner.clamp(min=0), size - 1).long().unbind(1)
        corners.append(y * width + x)
        weights.append(torch.where(inside, weight, 0))
    return torch.stack(corners, 1), torch.stack(weights, 1)
