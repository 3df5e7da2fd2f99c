"""How far a fit has come: what a checkpoint holds, and the best weights so far."""

import copy
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from neuroprior.types import InputError

__all__ = ["FitEpoch", "FitSoFar"]


@dataclass(frozen=True, slots=True)
class FitEpoch:
    """One epoch: mean Poisson loss of a response (penalties apart), and the mean over neurons of the correlation of
    prediction and response over validation trials."""  # fmt: skip

    epoch: int
    loss: float
    penalty: float
    validation_correlation: float
    learning_rate: float


class FitSoFar:
    """All that a fit changes as it goes. `digest`: what its checkpoints are told apart by."""

    def __init__(
        self, models: nn.ModuleList, optimizer: torch.optim.Optimizer, random: torch.Generator, digest: str
    ) -> None:
        self.models, self.optimizer, self.random, self.digest = models, optimizer, random, digest
        self.epoch = 0
        self.step = 0
        self.order = torch.empty(0, dtype=torch.long)
        self.sums = torch.zeros(
            2, dtype=torch.float64
        )  # of loss over this epoch's responses, of penalty over its images
        self.waited = 0
        self.gained_from = -math.inf  # correlation from which a gain is counted
        self.decays = 0
        self.history: list[FitEpoch] = []
        self.best_correlation = -math.inf
        self.best: dict[str, torch.Tensor] = {}

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        rate: float = self.optimizer.param_groups[0]["lr"]
        return rate

    def begin_epoch(self, order: torch.Tensor) -> None:
        """Take the images of a new epoch in this order."""
        self.order, self.step = order, 0
        self.sums = torch.zeros(2, dtype=torch.float64)

    def end_epoch(self, ended: FitEpoch, least_gain: float) -> None:
        """Keep the log, and the weights where they were never better; wait where that is by less than `least_gain`."""
        self.history.append(ended)
        if ended.validation_correlation > self.best_correlation:
            self.best_correlation = ended.validation_correlation
            self.best = copy.deepcopy(self.models.state_dict())
        if self.best_correlation > self.gained_from + least_gain:
            self.gained_from, self.waited = self.best_correlation, 0
        else:
            self.waited += 1
        self.epoch += 1
        self.step = 0

    def decay(self, by: float) -> None:
        """Go back to the best weights, with a lower learning rate and no memory of past gradients."""
        self.use_best()
        self.optimizer.state.clear()
        for group in self.optimizer.param_groups:
            group["lr"] *= by
        self.decays += 1
        self.waited = 0

    def use_best(self) -> None:
        """Give the models the best weights."""
        if self.best:
            self.models.load_state_dict(self.best)

    def state(self) -> dict[str, Any]:
        """Tensors and plain values, nested, for `Checkpoint`."""
        moments = {
            str(k): {name: value for name, value in self.optimizer.state[p].items()}
            for k, p in enumerate(self._parameters())
            if p in self.optimizer.state
        }
        return {
            "of": self.digest,
            "models": self.models.state_dict(),
            "moments": moments,
            "learning_rate": self.learning_rate,
            "random": self.random.get_state(),
            "global_random": torch.get_rng_state(),
            "order": self.order,
            "sums": self.sums,
            "epoch": self.epoch,
            "step": self.step,
            "waited": self.waited,
            "gained_from": self.gained_from if self.best else None,
            "decays": self.decays,
            "history": [asdict(epoch) for epoch in self.history],
            "best_correlation": self.best_correlation if self.best else None,
            "best": self.best,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to what `state` gave. Raises `InputError` for the state of another fit."""
        if state["of"] != self.digest:
            raise InputError(
                "twin fit: the checkpoint is of another fit (its scans, settings or architecture differ); name another "
                "--out, or delete it"
            )
        self.models.load_state_dict(state["models"])
        parameters = self._parameters()
        for k, moments in state["moments"].items():
            parameter = parameters[int(k)]
            self.optimizer.state[parameter] = {
                # laid out in memory as the parameter is: the same kernels then run, to the last bit
                name: torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
                for name, value in moments.items()
            }
        for group in self.optimizer.param_groups:
            group["lr"] = state["learning_rate"]
        self.random.set_state(state["random"])
        torch.set_rng_state(state["global_random"])
        self.order, self.sums = state["order"], state["sums"]
        self.epoch, self.step, self.waited, self.decays = (state[k] for k in ("epoch", "step", "waited", "decays"))
        self.history = [FitEpoch(**epoch) for epoch in state["history"]]
        self.best = state["best"]
        if self.best:
            self.best_correlation, self.gained_from = state["best_correlation"], state["gained_from"]

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
