"""Random crops and flips."""

from typing import Literal

import torch
from torch.nn import functional as F

from neuroprior.types import Float, InputError, UInt8

AugmentationKind = Literal["crop_flip", "crop", "none"]
_PAD = 4


class Augmentation:
    """Random crops of reflect-padded images, and horizontal flips, as one gather of uint8 pixels a batch."""

    def __init__(self, pixels: UInt8[torch.Tensor, "image channel h w"], kind: AugmentationKind) -> None:
        if kind != "none" and min(pixels.shape[2:]) <= _PAD:
            raise InputError(
                f"training.augmentation {kind}: images of {pixels.shape[2]}x{pixels.shape[3]} cannot be padded by "
                f"{_PAD} reflected pixels; use augmentation none"
            )
        self.kind = kind
        self.height, self.width = pixels.shape[2:]
        self.pad = 0 if kind == "none" else _PAD
        padded = F.pad(pixels.float(), (self.pad,) * 4, mode="reflect") if self.pad else pixels
        # Channels last, so that the gather below writes each pixel's channels in one go.
        self.padded = padded.to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def __call__(
        self, rows: torch.Tensor, random: torch.Generator, share: slice = slice(None)
    ) -> Float[torch.Tensor, "image channel h w"]:
        """Return these images, each cropped and flipped anew, as floats in [0, 1].

        `share`: only these of the batch are made; the draws are those of the whole batch.
        """
        n, device = len(rows), self.padded.device
        top, left = (torch.randint(2 * self.pad + 1, (n, 1), generator=random) for _ in range(2))
        across = torch.arange(self.width).expand(n, -1)
        if self.kind == "crop_flip":
            flip = torch.rand(n, 1, generator=random) < 0.5
            across = torch.where(flip, self.width - 1 - across, across)
        y = (top + torch.arange(self.height))[share].to(device)
        x = (left + across)[share].to(device)
        cropped = self.padded[rows[share].to(device)[:, None, None], y[:, :, None], x[:, None, :]]
        return cropped.permute(0, 3, 1, 2).float() / 255
