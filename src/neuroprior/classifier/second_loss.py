"""What joint training asks of a second loss."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn


@runtime_checkable
class SecondLoss(Protocol):
    """What `train` asks of a second loss: `SimilarityRegularizer`, `ResponseRegression`, `Exposure`, or your own."""

    unweighted: torch.Tensor | None
    """The last call's loss before its factor alpha, without gradient; None where it computed nothing."""

    def __call__(self) -> torch.Tensor:
        """Return the loss, weighted."""

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
