"""The convolutional core: images in, feature maps out, shared by all neurons and all scans."""

import torch
from torch import nn

from neuroprior.twin.kernels import depthwise, normalised_elu
from neuroprior.types import Float


class SeparableConv(nn.Sequential):
    """A depth-separable convolution (Sensorium 2022): 1x1 mixing, one spatial filter a channel, 1x1 mixing."""

    def __init__(self, in_channels: int, channels: int, kernel: int, bias: bool = False) -> None:
        super().__init__(
            nn.Conv2d(in_channels, channels, 1, bias=bias),
            nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=bias),
            nn.Conv2d(channels, channels, 1, bias=bias),
        )

    def forward(self, maps: Float[torch.Tensor, "image channel h w"]) -> Float[torch.Tensor, "image feature h w"]:
        """Mix, filter, mix."""
        mix_in, spatial, mix_out = self
        mixed: torch.Tensor = mix_out(depthwise(mix_in(maps), spatial.weight, spatial.bias))  # type: ignore[arg-type]
        return mixed


class Layer(nn.Sequential):
    """Convolution, batch norm, and ELU or nothing."""

    def forward(self, maps: Float[torch.Tensor, "image channel h w"]) -> Float[torch.Tensor, "image feature a b"]:
        """Filter, normalise, bend."""
        conv, norm, bend = self
        drive: torch.Tensor = conv(maps)
        if self.training and isinstance(norm, nn.BatchNorm2d) and isinstance(bend, nn.ELU):
            return normalised_elu(drive, norm)
        bent: torch.Tensor = bend(norm(drive))
        return bent


class Core(nn.Module):
    """Convolution, batch norm and ELU, layer upon layer; `stack` of the last layers' maps are handed to the readout.

    Layer l sees the concatenation of the `sees[l]` layers before it (1: a plain chain; l: all of them, as in 2019).
    The first layer's convolution is unpadded, or `padded` with mean gray; the others keep the size. Input
    `(image, channel, height, width)`.
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

    @property
    def filters(self) -> Float[torch.Tensor, "channel input k k"]:
        """The first layer's convolution."""
        (first,) = (module for module in self.layers[0].modules() if isinstance(module, nn.Conv2d))
        return first.weight


def stacked_core(
    in_channels: int,
    channels: int,
    first_kernel: int,
    kernel: int,
    n_layers: int,
    *,
    linear: bool = False,
    padded: bool = False,
) -> Core:
    """The core of 2019 (Walker et al., Cadena et al.): dense layers, each sees all before it, the readout sees all.

    `linear`: no ELU; in evaluation the whole is then one linear filter of the image, and a constant.
    """
    layers: list[nn.Module] = [first_layer(in_channels, channels, first_kernel, linear=linear, padded=padded)]
    for before in range(1, n_layers):
        conv = nn.Conv2d(before * channels, channels, kernel, padding=kernel // 2, bias=False)
        layers.append(layer_of(conv, channels, linear))
    return Core(layers, sees=list(range(n_layers)), stack=n_layers)


def separable_core(
    in_channels: int,
    channels: int,
    first_kernel: int,
    kernel: int,
    n_layers: int,
    *,
    linear: bool = False,
    padded: bool = False,
) -> Core:
    """The core of Sensorium 2022: a dense layer, then depth-separable ones in a chain; the readout sees the last."""
    layers: list[nn.Module] = [first_layer(in_channels, channels, first_kernel, linear=linear, padded=padded)]
    layers += [layer_of(SeparableConv(channels, channels, kernel), channels, linear) for _ in range(1, n_layers)]
    return Core(layers, sees=[0] + [1] * (n_layers - 1), stack=1)


def first_layer(in_channels: int, channels: int, kernel: int, *, linear: bool, padded: bool) -> Layer:
    """Return the layer that sees the image: unpadded, or padded with mean gray."""
    conv = nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2 if padded else 0, bias=False)
    return layer_of(conv, channels, linear)


def layer_of(conv: nn.Module, channels: int, linear: bool) -> Layer:
    """Return a layer of this convolution."""
    return Layer(conv, nn.BatchNorm2d(channels), nn.Identity() if linear else nn.ELU())
