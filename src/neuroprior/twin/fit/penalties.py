"""What keeps a twin's weights plain. Each is a mean over filters or neurons: none grows with the width of the model."""

import torch
from torch import nn
from torch.nn import functional as F

from neuroprior.twin.core import Core
from neuroprior.twin.readout import FactorisedReadout, Readout
from neuroprior.types import Float

__all__ = ["group_sparsity", "readout_l1", "roughness"]

_LAPLACE = ((0.25, 0.5, 0.25), (0.5, -3.0, 0.5), (0.25, 0.5, 0.25))


def roughness(filters: Float[torch.Tensor, "channel input k k"]) -> Float[torch.Tensor, ""]:
    """mean_c |L * w_c|^2 / |w_c|^2, L the Laplacian, zeros around the filter: 10.25 for one pixel alone.

    Relative to the filter's own size: batch norm takes the scale out of the first layer, so an absolute penalty would
    only shrink the weights.
    """
    kernel = filters.new_tensor(_LAPLACE)[None, None]
    flat = filters.flatten(0, 1)[:, None]
    rough = F.conv2d(flat, kernel, padding=1).square().sum(dim=(1, 2, 3))
    size = flat.square().sum(dim=(1, 2, 3)).clamp(min=1e-12)
    return (rough / size).mean()


def group_sparsity(core: Core) -> Float[torch.Tensor, ""]:
    """Mean over later layers of sum_oi |w_oi| / sqrt(n sum_oi |w_oi|^2): 1 where all n inputs are used alike.

    Groups are the spatial filters between two channels (Walker et al. 2019); depth-separable layers have them in their
    1x1 mixing. Small where each channel listens to few.
    """
    found = [_spread_of_groups(conv.weight) for layer in list(core.layers)[1:] for conv in _mixing(layer)]
    return torch.stack(found).mean() if found else core.filters.new_zeros(())


def readout_l1(readout: Readout) -> Float[torch.Tensor, ""]:
    """mean_a sum_c |features_ac|: few features a neuron (and, of a factorised readout, few pixels of its mask)."""
    total = readout.features.abs().sum(dim=1).mean()
    if isinstance(readout, FactorisedReadout):
        total = total + readout.mask.abs().sum(dim=(1, 2)).mean()
    return total


def _mixing(layer: nn.Module) -> list[nn.Conv2d]:
    return [module for module in layer.modules() if isinstance(module, nn.Conv2d) and module.groups == 1]


def _spread_of_groups(weight: Float[torch.Tensor, "out input k k"]) -> Float[torch.Tensor, ""]:
    groups = weight.square().sum(dim=(2, 3)).add(1e-12).sqrt()
    return groups.sum() / (groups.square().sum() * groups.numel()).sqrt()
