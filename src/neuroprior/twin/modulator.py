"""The modulator: what the animal does scales every neuron's drive, or its rate."""

from typing import Literal

import torch
from torch import nn

from neuroprior.types import Float

Scaled = Literal["drive", "rate"]


class MLPModulator(nn.Module):
    """gain_ta = exp(MLP(behaviour_t))_a; 1 when training begins.

    `of`: what it multiplies, the "drive" before the output nonlinearity (2018, 2019) or the "rate" after it. A larger
    gain of the drive takes a response that is below the baseline down, one of the rate takes every response up.
    """

    def __init__(self, channels: int, n_neurons: int, hidden: int = 10, *, of: Scaled = "drive") -> None:
        super().__init__()
        self.of = of
        last = nn.Linear(hidden, n_neurons)  # drawn first: what is drawn after it stays as it always was
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.Tanh(), last)
        self.rest()

    def rest(self) -> None:
        """Set the last layer to 0, and so all gains to 1: as a modulator is before training."""
        for value in self.mlp[-1].parameters():
            nn.init.zeros_(value)

    def forward(self, behavior: Float[torch.Tensor, "trial channel"]) -> Float[torch.Tensor, "trial neuron"]:
        """Map standardised behaviour to gains."""
        gain: torch.Tensor = self.mlp(behavior).exp()
        return gain


class NoModulation(nn.Module):
    """The modulator of a twin that has none: gain 1."""

    of: Scaled = "drive"

    def forward(self, behavior: Float[torch.Tensor, "trial channel"]) -> Float[torch.Tensor, "trial 1"]:
        """Return ones."""
        return behavior.new_ones(len(behavior), 1)
