"""Network -> Population -> SimilarityTarget: a layer's features, taken for the responses of neurons."""

import hashlib
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from neuroprior.modes import evaluating, like, said_by_network
from neuroprior.networks.load import ScriptedNetwork
from neuroprior.regularizer import Taps
from neuroprior.similarity import target_from_population
from neuroprior.types import Details, Float32, InputError, Population, SimilarityTarget, Stimuli

__all__ = ["network_details", "population_from_network", "target_from_network", "weights_digest"]

Progress = Callable[[int, int], None]
Preprocess = Callable[[torch.Tensor], torch.Tensor]


def population_from_network(
    network: nn.Module,
    layer: str,
    stimuli: Stimuli,
    *,
    size: tuple[int, int] | None = None,
    preprocess: Preprocess | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Population:
    """`rho_ia`: feature `a` (channel and position) of the module `layer`, as it puts it out, for image `i`; weights 1.

    The network sees gray in [0, 1], `(image, channel, height, width)`, repeated over as many channels as its first
    convolution takes, resized to `size` (height, width; bilinear, antialiased) where that is given, then `preprocess`ed
    (its own normalisation, if that is not its first module). In evaluation mode, without gradient; left as it was
    found. `progress` is told images done and images in all.
    Raises `InputError` for a layer that is not there or not used, images that do not fit, features not finite.
    """
    taps = Taps(network, [layer])
    if isinstance(network, ScriptedNetwork) and layer != "output":
        raise InputError(f"layer {layer!r}: of a TorchScript network only 'output' can be read; name that one")
    works_in, channels = like(network), _channels(network)
    features: Float32[np.ndarray, "image feature"] | None = None
    with torch.no_grad(), evaluating(network):
        for start in range(0, len(stimuli), batch_size):
            gray = torch.from_numpy(stimuli.pixels[start : start + batch_size].astype(np.float32) / 255)
            gray = gray[:, None]
            if size is not None:
                gray = F.interpolate(gray, size, mode="bilinear", antialias=True, align_corners=False)
            images = gray.expand(-1, channels, -1, -1).to(works_in)
            found = _features(network, taps, images if preprocess is None else preprocess(images), layer)
            if features is None:
                features = np.empty((len(stimuli), found.shape[1]), dtype=np.float32)
            features[start : start + len(found)] = found
            if progress is not None:
                progress(min(start + batch_size, len(stimuli)), len(stimuli))
    if features is None:
        raise InputError("stimuli: there is no image in them; pass at least one")
    return Population(stimuli.ids, features, np.ones(features.shape[1], dtype=np.float32), "network")


def target_from_network(
    network: nn.Module,
    layer: str,
    stimuli: Stimuli,
    *,
    name: str | None = None,
    size: tuple[int, int] | None = None,
    preprocess: Preprocess | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> SimilarityTarget:
    """`S_ij = e_i . e_j` (Eq. 2) of a layer's features. `name`: what tables call the network; its class's, unless
    given.

    Other arguments and errors as in `population_from_network`.
    """
    population = population_from_network(
        network, layer, stimuli, size=size, preprocess=preprocess, batch_size=batch_size, progress=progress
    )
    details = network_details(network, name or type(network).__name__, layer, population, size)
    return target_from_population(population, stimuli, details=details)


def network_details(
    network: nn.Module, name: str, layer: str, population: Population, size: tuple[int, int] | None = None
) -> Details:
    """Say what a network's target is made of, for every table that uses it; its weights by their SHA-256."""
    return {
        "network": name,
        "weights_digest": weights_digest(network),
        "layer": layer,
        "features": int(population.mean.shape[1]),
        **({} if size is None else {"size": f"{size[0]}x{size[1]}"}),
    }


def weights_digest(network: nn.Module) -> str:
    """SHA-256 of the names and bytes of all parameters and buffers: a factory may draw other weights at every call."""
    sha = hashlib.sha256()
    for name, value in network.state_dict().items():
        sha.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        sha.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def _features(network: nn.Module, taps: Taps, images: torch.Tensor, layer: str) -> Float32[np.ndarray, "image feature"]:
    try:
        found = taps.features(network, images)[0]
    except (RuntimeError, AssertionError) as error:  # layers say so with the one, exported programs with the other
        raise InputError(
            f"layer {layer!r}: the network does not take images {tuple(images.shape)}: {said_by_network(error)}; give "
            "the size that it takes (--size 32,32, size=(32, 32)), preprocess=, or export it with a dynamic batch"
        ) from error
    flat: np.ndarray = found.flatten(1).float().cpu().numpy()
    if not np.isfinite(flat).all():
        raise InputError(f"layer {layer!r}: its features are not finite; mend the network's weights or preprocess")
    return flat


def _channels(network: nn.Module) -> int:
    """Return what the first convolution takes; where there is none that says so, 1."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    for parameter in network.parameters():  # scripted or exported layers are no nn.Conv2d, but have its weight
        if parameter.ndim == 4:
            return parameter.shape[1]
    return 1
