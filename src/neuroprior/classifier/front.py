"""A network's first modules: they see pixels in [0, 1], so noise and attacks come before them for every network."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from neuroprior.types import Float, InputError


class PixelScaling(nn.Module):
    """x -> 5 (x - 0.5): pixels in [0, 1] to about unit variance, the same for task images and stimuli."""

    def forward(self, images: Float[torch.Tensor, "image channel h w"]) -> Float[torch.Tensor, "image channel h w"]:
        """Scale."""
        return 5 * (images - 0.5)


class GaussianBlur(nn.Module):
    """A fixed Gaussian blur of `sigma` pixels, reflect padding, kernel cut at 4 sigma and summing to 1."""

    kernel: torch.Tensor

    def __init__(self, sigma: float) -> None:
        super().__init__()
        if not sigma > 0:
            raise InputError(f"blur: sigma is {sigma} pixels; it must be above 0")
        self.radius = max(1, math.ceil(4 * sigma))
        at = torch.arange(-self.radius, self.radius + 1, dtype=torch.float64)
        weight = torch.exp(-(at**2) / (2 * sigma**2))
        self.register_buffer("kernel", (weight / weight.sum()).float(), persistent=False)

    def forward(self, images: Float[torch.Tensor, "image channel h w"]) -> Float[torch.Tensor, "image channel h w"]:
        """Blur rows, then columns."""
        channels = images.shape[1]
        if min(images.shape[2:]) <= self.radius:
            raise InputError(
                f"blur: images of {images.shape[2]}x{images.shape[3]} are too small for a kernel reaching "
                f"{self.radius} pixels; lower blur_sigma"
            )
        across = self.kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
        down = self.kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
        r = self.radius
        blurred = F.conv2d(F.pad(images, (r, r, 0, 0), mode="reflect"), across, groups=channels)
        return F.conv2d(F.pad(blurred, (0, 0, r, r), mode="reflect"), down, groups=channels)
