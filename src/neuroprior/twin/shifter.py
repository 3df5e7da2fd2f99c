"""The shifter: where the eye looks moves every receptive field by the same amount."""

from itertools import pairwise

import torch
from torch import nn

from neuroprior.types import Float


class MLPShifter(nn.Module):
    """shift = tanh(W_k ... tanh(W_1 pupil + b_1) ... + b_k), in units of half the maps' width and height."""

    def __init__(self, layers: list[nn.Linear]) -> None:
        super().__init__()
        self.mlp = nn.Sequential(*[module for layer in layers for module in (layer, nn.Tanh())])

    @classmethod
    def untrained(cls, hidden: int = 5, depth: int = 3) -> "MLPShifter":
        """Return a shifter to train: its last layer begins at 0, and so do all shifts."""
        widths = [2, *[hidden] * (depth - 1), 2]
        shifter = cls([nn.Linear(a, b) for a, b in pairwise(widths)])
        shifter.rest()
        return shifter

    def rest(self) -> None:
        """Set the last layer to 0, and so all shifts: as a shifter is before training."""
        for value in self.mlp[-2].parameters():
            nn.init.zeros_(value)

    def forward(self, pupil_center: Float[torch.Tensor, "image 2"]) -> Float[torch.Tensor, "image 2"]:
        """Map standardised pupil positions to shifts."""
        shift: torch.Tensor = self.mlp(pupil_center)
        return shift


class NoShift(nn.Module):
    """The shifter of a twin that has none: zero, so that the forward pass has no branch."""

    def forward(self, pupil_center: Float[torch.Tensor, "image 2"]) -> Float[torch.Tensor, "image 2"]:
        """Return zeros."""
        return torch.zeros_like(pupil_center)
