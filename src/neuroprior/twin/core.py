"""The convolutional core: images in, feature maps out, shared by all neurons."""

import torch
from torch import nn

from neuroprior.types import Float


class SeparableConv(nn.Sequential):
    """A depth-separable convolution (Sensorium 2022): 1x1 mixing, one spatial filter a channel, 1x1 mixing."""

    def __init__(self, in_channels: int, channels: int, kernel: int, bias: bool) -> None:
        super().__init__(
            nn.Conv2d(in_channels, channels, 1, bias=bias),
            nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=bias),
            nn.Conv2d(channels, channels, 1, bias=bias),
        )


class Core(nn.Module):
    """Convolution, batch norm and ELU, layer upon layer; `stack` of the last layers' maps are handed to the readout.

    Layer l sees the concatenation of the `sees[l]` layers before it (1: a plain chain; l: all of them, as in 2019).
    The first layer's convolution is unpadded, the others keep the size. Input `(image, channel, height, width)`.
    """

    def __init__(self, layers: list[nn.Module], sees: list[int], stack: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.sees = tuple(sees)
        self.stack = stack

    def forward(self, images: Float[torch.Tensor, "image channel h w"]) -> Float[torch.Tensor, "image feature a b"]:
        """Return the maps of the last `stack` layers, concatenated over channels."""
        maps = [self.layers[0](images)]
        for layer, back in zip(list(self.layers)[1:], self.sees[1:], strict=True):
            maps.append(layer(maps[-1] if back == 1 else torch.cat(maps[-back:], dim=1)))
        return maps[-1] if self.stack == 1 else torch.cat(maps[-self.stack :], dim=1)
