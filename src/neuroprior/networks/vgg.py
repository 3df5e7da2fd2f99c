"""VGG-19 up to conv3_1: the network whose features stand in for a brain's (`vgg`)."""

import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from neuroprior.networks.layer import population_from_network, weights_digest
from neuroprior.similarity import target_from_population
from neuroprior.types import Details, Float, InputError, SimilarityTarget, Stimuli
from neuroprior.weights import read_weights

__all__ = ["VGG19", "VGG_LAYER", "load_vgg19", "vgg_details", "vgg_target"]

Kind = Literal["plain", "normalised"]

VGG_LAYER = "relu3_1"
"""conv3_1 as its successor sees it: after the ReLU."""

_CONVOLUTIONS = {
    "conv1_1": (3, 64),
    "conv1_2": (64, 64),
    "conv2_1": (64, 128),
    "conv2_2": (128, 128),
    "conv3_1": (128, 256),
}
_IN_FILE: dict[Kind, tuple[str, ...]] = {
    "plain": ("features.0", "features.2", "features.5", "features.7", "features.10"),
    "normalised": ("2", "5", "9", "12", "16"),
}
_PADDING: dict[Kind, Literal["zeros", "reflect"]] = {"plain": "zeros", "normalised": "reflect"}
_SAID: dict[Kind, str] = {
    "plain": "VGG-19 conv3_1, plain weights",
    "normalised": "VGG-19 conv3_1, normalised weights (each channel rescaled to unit mean activation)",
}
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB, as torchvision's weights expect


class _Colour(nn.Conv2d):
    """Gray or RGB in [0, 1] to what conv1_1 takes: gray repeated, then a 1x1 convolution."""

    def __init__(self) -> None:
        super().__init__(3, 3, 1)

    def forward(self, images: Float[torch.Tensor, "image channel h w"]) -> Float[torch.Tensor, "image 3 h w"]:
        """Repeat gray, then mix."""
        return super().forward(images.expand(-1, 3, -1, -1))


class VGG19(nn.Sequential):
    """`colour, conv1_1, relu1_1, ..., conv3_1, relu3_1`: `(image, 1 or 3, height, width)` in [0, 1] to 256 channels.

    `kind`: "plain" (zero padding), or "normalised" (each channel rescaled, reflection padding).
    """

    def __init__(self, kind: Kind) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict(colour=_Colour())
        for name, (taken, given) in _CONVOLUTIONS.items():
            if name in ("conv2_1", "conv3_1"):
                layers[f"pool{int(name[4]) - 1}"] = nn.MaxPool2d(2)
            layers[name] = nn.Conv2d(taken, given, 3, padding=1, padding_mode=_PADDING[kind])
            layers[name.replace("conv", "relu")] = nn.ReLU()
        super().__init__(layers)
        self.kind: Kind = kind


def load_vgg19(path: str | os.PathLike[str]) -> VGG19:
    """Read VGG-19 up to conv3_1, in evaluation mode, without gradient; the names in the file say which kind it is.

    "plain": torchvision's `vgg19-dcbb9e9d.pth` (what lies beyond conv3_1 is left aside). "normalised": layers `0`
    (1x1, RGB in [0, 1] to mean-subtracted BGR), `2`, `5`, `9`, `12`, `16`. Raises `InputError` for any other file.
    """
    file = Path(path)
    weights = read_weights(file)
    kind: Kind | None = next((k for k, names in _IN_FILE.items() if f"{names[0]}.weight" in weights), None)
    if kind is None:
        raise InputError(
            f"{file}: no VGG-19 (neither 'features.0.weight' nor '2.weight' is in it); `neuroprior data fetch vgg19`"
        )
    try:
        network = VGG19(kind)
        weights |= _imagenet_colour() if kind == "plain" else {}
        for name, named in zip(("colour", *_CONVOLUTIONS), ("0", *_IN_FILE[kind]), strict=True):
            layer = {"weight": weights[f"{named}.weight"], "bias": weights[f"{named}.bias"]}
            network.get_submodule(name).load_state_dict(layer)
    except KeyError as error:
        raise InputError(f"{file}: {error.args[0]} is missing; `neuroprior data fetch vgg19` brings it whole") from None
    except RuntimeError as error:
        said = str(error).splitlines()[-1].strip()
        raise InputError(f"{file}: no VGG-19 ({said}); `neuroprior data fetch vgg19` brings it") from None
    return network.eval().requires_grad_(False)


def vgg_target(
    path: str | os.PathLike[str], stimuli: Stimuli, *, progress: Callable[[int, int], None] | None = None
) -> SimilarityTarget:
    """`S_ij = e_i . e_j` (Eq. 2) of VGG-19's conv3_1, after the ReLU, flattened over channels and space."""
    network = load_vgg19(path)
    population = population_from_network(network, VGG_LAYER, stimuli, progress=progress)
    return target_from_population(population, stimuli, details=vgg_details(network))


def vgg_details(network: VGG19) -> Details:
    """Say which weights a target of this network rests on, for every table that uses it."""
    return {
        "network": _SAID[network.kind],
        "weights_digest": weights_digest(network),
        "layer": "conv3_1, after the ReLU",
    }


def _imagenet_colour() -> dict[str, torch.Tensor]:
    """(x - mean) / std of each channel, as a 1x1 convolution."""
    mean, std = torch.tensor(_MEAN), torch.tensor(_STD)
    return {"0.weight": torch.diag(1 / std)[:, :, None, None], "0.bias": -mean / std}
