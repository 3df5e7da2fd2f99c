"""Digests of a network and of an image, by which a ledger is told to be of the same ones."""

import hashlib
import re

import torch
from torch import nn

from neuroprior.modes import like
from neuroprior.robustness.victim import Victim


def fingerprint(victim: Victim) -> str:
    """A digest of the network's layers, weights and buffers, and of how it is asked."""
    before = victim.preprocess
    told = hashlib.blake2b(digest_size=16)
    told.update(re.sub("0x[0-9a-f]+", "", f"{victim.model!r} {before!r}").encode())
    told.update(f"{victim.bounds} {victim.outputs} {like(victim.model).dtype}".encode())
    for part in (victim.model, before):
        if not isinstance(part, nn.Module):
            continue
        for key, value in sorted({**part.state_dict(), **dict(part.named_buffers())}.items()):
            told.update(key.encode())
            told.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return told.hexdigest()


def answers(victim: Victim, image: torch.Tensor) -> list[float]:
    """What the network answers to two images of noise, in standard deviations of its logits.

    What no digest of weights sees (code, constants inside a function) shows here.
    """
    noise = torch.rand(2, *image.shape[1:], generator=torch.Generator().manual_seed(0))
    with victim.borrowed():
        logits = victim.logits(noise.to(victim.device))
    return [float(x) for x in (logits / logits.std().clamp_min(1e-12)).flatten().double()]


def image_digest(image: torch.Tensor, label: int) -> str:
    """A digest of an image's pixels and of its label."""
    return hashlib.blake2b(image.float().cpu().numpy().tobytes() + str(label).encode(), digest_size=8).hexdigest()
