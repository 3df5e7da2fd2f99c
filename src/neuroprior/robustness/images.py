"""What every measurement asks of its images, and of the network that sees them."""

import hashlib
from typing import Any

import numpy as np
import torch
from torch import nn

from neuroprior.modes import said_by_network
from neuroprior.types import Float, InputError, Int64

Images = Float[torch.Tensor, "image channel h w"] | Float[np.ndarray, "image channel h w"]
Labels = Int64[torch.Tensor, " image"] | Int64[np.ndarray, " image"]


def checked_images(what: str, images: Images, labels: Labels) -> tuple[torch.Tensor, torch.Tensor]:
    """Return them as tensors. Raises `InputError`, which begins with `what`, unless they fit and lie in [0, 1]."""
    images, labels = torch.as_tensor(images).detach(), torch.as_tensor(labels).detach()
    whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if images.ndim != 4 or labels.ndim != 1 or len(images) != len(labels) or not len(images) or not whole:
        raise InputError(
            f"{what}: images are {tuple(images.shape)}, labels {tuple(labels.shape)} of {labels.dtype}; "
            "give (image, channel, height, width) and one whole number an image"
        )
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):
        raise InputError(
            f"{what}: images span [{low:.3g}, {high:.3g}]; scale pixels to [0, 1], the network does the rest"
        )
    return images, labels.to(torch.int64)


def logits_of(what: str, model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Ask the network. Raises `InputError`, which begins with `what`, for images that it cannot take, or no tensor."""
    try:
        given: Any = model(images)
    except InputError:  # says itself what the network cannot do
        raise
    except torch.OutOfMemoryError as error:
        raise InputError(f"{what}: out of memory with {len(images)} images at a time; lower batch_size") from error
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError) as error:
        raise InputError(
            f"{what}: the model cannot take images of {tuple(images.shape[1:])} ({said_by_network(error)})"
        ) from error
    if not isinstance(given, torch.Tensor):
        raise InputError(
            f"{what}: the model gives a {type(given).__name__}, not a tensor of logits; wrap it to give one"
        )
    return given


def random_of(image: np.ndarray, seed: str) -> np.random.Generator:
    """Return a generator seeded by an image's pixels and `seed`: the image, not its place, decides what is drawn."""
    secret = seed.encode()
    if len(secret) > hashlib.blake2b.MAX_KEY_SIZE:
        secret = hashlib.blake2b(secret).digest()
    key = hashlib.blake2b(image.tobytes(), digest_size=16, key=secret).digest()
    return np.random.Generator(np.random.SFC64(list(key)))
