"""What joint training asks of a second loss."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn


@runtime_checkable
class SecondLoss(Protocol):
    """What `train` asks of a second loss: `SimilarityRegularizer`, `ResponseRegression`, `Exposure`, or your own."""

    def __call__(self) -> torch.Tensor:
        """Return the loss, weighted."""

    @property
    def unweighted(self) -> torch.Tensor | None:
        """The last call's loss before its factor alpha, without gradient; None where it computed nothing."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """What is learned beside the network."""

    def state_dict(self) -> dict[str, Any]:
        """All that changes as it is called and trained."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> object:
        """Go on from there."""

    @property
    def pairs_per_step(self) -> int:
        """How many comparisons a call averages over."""

    @property
    def tap_names(self) -> tuple[str, ...]:
        """What each number of `gamma` belongs to."""

    @property
    def gamma(self) -> torch.Tensor:
        """The mix of layers."""

    def correlations(self) -> dict[str, float]:
        """How alike network and target were in the last call, by layer."""


@runtime_checkable
class InParts(Protocol):
    """A second loss whose call comes apart, so that what the device does can be recorded once and replayed.

    `loss = self()` is `drawn = self.draw()`, `loss = self.loss_of(drawn on the device)`, `self.look()`.
    """

    def draw(self) -> dict[str, torch.Tensor]:
        """Return, on the processor, all that differs from call to call; empty where this one computes nothing."""

    def loss_of(self, drawn: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss, weighted. The same operations at each call, and none that waits for the device."""

    def look(self) -> None:
        """Raise `FloatingPointError` where the last call went wrong."""
