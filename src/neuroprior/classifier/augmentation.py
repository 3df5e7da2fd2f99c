"""Random crops and flips."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch.nn import functional as F

from neuroprior.regularizer.drawn import Drawn
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
        self.shape = pixels.shape[1:]
        self.height, self.width = pixels.shape[2:]
        self.pad = 0 if kind == "none" else _PAD
        padded = F.pad(pixels.float(), (self.pad,) * 4, mode="reflect") if self.pad else pixels
        # Channels last, so that the gather below writes each pixel's channels in one go.
        self.padded = padded.to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def draw(self, rows: torch.Tensor, random: torch.Generator, share: slice = slice(None)) -> Drawn:
        """Draw a crop and a flip for each of these rows, on the processor, so that a seed means the same everywhere.

        `share`: only these of the batch are given; the draws are those of the whole batch.
        """
        n = len(rows)
        top, left = (torch.randint(2 * self.pad + 1, (n, 1), generator=random) for _ in range(2))
        drawn = {"rows": rows[share], "top": top[share], "left": left[share]}
        if self.kind == "crop_flip":
            drawn["flip"] = (torch.rand(n, 1, generator=random) < 0.5)[share]
        return drawn

    def images(self, drawn: Mapping[str, torch.Tensor]) -> Float[torch.Tensor, "image channel h w"]:
        """Return the images as drawn, as floats in [0, 1]; `drawn` lies where the pixels do."""
        device = self.padded.device
        across = torch.arange(self.width, device=device).expand(len(drawn["rows"]), -1)
        if "flip" in drawn:
            across = torch.where(drawn["flip"], self.width - 1 - across, across)
        y = drawn["top"] + torch.arange(self.height, device=device)
        x = drawn["left"] + across
        cropped = self.padded[drawn["rows"][:, None, None], y[:, :, None], x[:, None, :]]
        return cropped.permute(0, 3, 1, 2).float() / 255
