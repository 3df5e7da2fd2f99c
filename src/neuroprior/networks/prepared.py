"""A network from elsewhere behind what its own authors put before it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from neuroprior.modes import said_by_network
from neuroprior.types import Float, InputError


class Prepared(nn.Module):
    """Images in [0, 1] -> network((low + (high - low) x - mean) / std), all of it per channel.

    `bounds` (low, high): the pixel range that `mean` and `std` are of; without these the network's own. `channels`,
    once it is set: gray images are repeated that many times first. What stands here is in the `state_dict`, so it is
    part of the network's fingerprint. Whatever the network fails with is an `InputError` of one line.
    Raises `InputError` for bounds the wrong way round, a mean without a std, or a std that is not above 0.
    """

    bounds: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        bounds: tuple[float, float] = (0.0, 1.0),
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if not bounds[0] < bounds[1]:
            raise InputError(f"bounds {bounds[0]:g},{bounds[1]:g}: give the lower one first")
        if (mean is None) != (std is None) or len(mean or ()) != len(std or ()) or not all(s > 0 for s in std or ()):
            raise InputError(
                f"mean {_listed(mean)}, std {_listed(std)}: give both, of one length, one value a channel, std above 0"
            )
        self.network = network
        self.channels: int | None = None
        self.register_buffer("bounds", torch.tensor(bounds))
        self.register_buffer("mean", torch.tensor(mean if mean is not None else [0.0]))
        self.register_buffer("std", torch.tensor(std if std is not None else [1.0]))

    def forward(self, images: Float[torch.Tensor, "image channel h w"]) -> Any:
        """Return what the network gives, whatever that is: who measures it judges."""
        if self.channels is not None:
            images = images.expand(-1, self.channels, -1, -1)
        if len(self.mean) not in (1, images.shape[1]):
            raise InputError(f"mean and std have {len(self.mean)} values for images of {images.shape[1]} channels")
        low, high = self.bounds.to(images)
        mean, std = self.mean.to(images), self.std.to(images)
        x = (low + (high - low) * images - mean[:, None, None]) / std[:, None, None]
        try:
            return self.network(x)
        except Exception as error:  # somebody else's code
            raise InputError(
                f"network: cannot take images of {tuple(x.shape[1:])}, {len(x)} at a time "
                f"({said_by_network(error)}); show it what it was made for"
            ) from error


def _listed(values: Sequence[float] | None) -> str:
    return "not given" if values is None else ",".join(f"{value:g}" for value in values)
