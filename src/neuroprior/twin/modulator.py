"""The modulator: what the animal does scales every neuron's drive."""

import torch
from torch import nn

from neuroprior.types import Float


class MLPModulator(nn.Module):
    """gain_ta = exp(MLP(behaviour_t))_a, multiplied before the output nonlinearity; 1 when training begins."""

    def __init__(self, channels: int, n_neurons: int, hidden: int = 10) -> None:
        super().__init__()
        last = nn.Linear(hidden, n_neurons)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.Tanh(), last)

    def forward(self, behavior: Float[torch.Tensor, "trial channel"]) -> Float[torch.Tensor, "trial neuron"]:
        """Map standardised behaviour to gains."""
        gain: torch.Tensor = self.mlp(behavior).exp()
        return gain


class NoModulation(nn.Module):
    """The modulator of a twin that has none: gain 1, so that the forward pass has no branch."""

    def forward(self, behavior: Float[torch.Tensor, "trial channel"]) -> Float[torch.Tensor, "trial 1"]:
        """Return ones."""
        return behavior.new_ones(len(behavior), 1)
