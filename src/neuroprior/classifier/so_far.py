"""How far a training has come: what a checkpoint holds, and the best epoch so far."""

import copy
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from neuroprior.classifier.second_loss import SecondLoss
from neuroprior.logs import TrainingLog
from neuroprior.types import InputError


@dataclass(frozen=True, slots=True)
class EpochLog:
    """What one epoch was like: losses are means over `n_images`, `n_pairs` and `n_validation`; `gamma` is at its end.

    `similarity_loss` is the second loss, before its factor alpha. Without one, or where it compares nothing, `n_pairs`
    is 0, `similarity_loss` nan and `gamma` empty.
    """

    epoch: int
    task_loss: float
    similarity_loss: float
    validation_loss: float
    validation_accuracy: float
    gamma: tuple[float, ...]
    n_images: int
    n_pairs: int
    n_validation: int


class SoFar:
    """All that a training changes as it goes: what a checkpoint holds, and no more."""

    order: torch.Tensor
    task_sum: torch.Tensor
    similarity_sum: torch.Tensor
    compared: int
    """Steps of this epoch in which the second loss was computed."""

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        regularizer: SecondLoss | None,
        random: torch.Generator,
        *,
        of: str = "",
    ) -> None:
        self.network, self.optimizer, self.regularizer, self.random = network, optimizer, regularizer, random
        self.noise_random = torch.Generator()
        self.of = of
        self.epoch = 0
        self.step = 0
        self.history: list[EpochLog] = []
        self.best_loss = math.inf
        self.best: dict[str, Any] = {}

    def begin_epoch(self, order: torch.Tensor, device: torch.device) -> None:
        """Take the batches of a new epoch, `(step, batch)` rows of the training images."""
        self.order = order
        self.task_sum = torch.zeros((), device=device)
        self.similarity_sum = torch.zeros((), device=device)
        self.compared = 0

    def log_goes_on(self, log: TrainingLog) -> None:
        """Let the log forget what it holds of steps that are taken again."""
        log.go_on_from(0 if not self.epoch and not self.step else self.epoch * len(self.order) + self.step)

    def back_to_best(self) -> str:
        """After a failure: give the network the weights of its best epoch, if there is one, and say so."""
        if math.isinf(self.best_loss):
            return "no epoch was finished, so nothing is kept"
        self._load_modules(self.best)
        best = min(self.history, key=lambda log: log.validation_loss)
        return f"the network holds the weights of its best epoch, {best.epoch}"

    def end_epoch(self, log: EpochLog) -> None:
        """Keep the log, and the weights where the validation loss was never less."""
        self.history.append(log)
        if log.validation_loss < self.best_loss:
            self.best_loss, self.best = log.validation_loss, copy.deepcopy(self._modules())
        self.epoch += 1
        self.step = 0

    def use_best(self) -> None:
        """Give network and regulariser the weights of the best epoch."""
        if math.isinf(self.best_loss):
            raise FloatingPointError(
                "no epoch had a finite validation loss; lower training.learning_rate or regularizer.alpha"
            )
        self._load_modules(self.best)

    def state(self) -> dict[str, Any]:
        """Tensors and plain values, nested."""
        return {
            "modules": self._modules(),
            "momentum": [self.optimizer.state[p].get("momentum_buffer") for p in self._parameters()],
            "of": self.of,
            "random": self.random.get_state(),
            "noise_random": self.noise_random.get_state(),
            "global_random": torch.get_rng_state(),  # dropout's
            "cuda_random": torch.cuda.get_rng_state(self._device()) if self._device().type == "cuda" else None,
            "order": self.order,
            "task_sum": self.task_sum,
            "similarity_sum": self.similarity_sum,
            "compared": self.compared,
            "epoch": self.epoch,
            "step": self.step,
            "history": [asdict(log) for log in self.history],
            "best_loss": self.best_loss,
            "best": self.best,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to what `state` gave. Raises `InputError` for the state of another training."""
        if state["of"] != self.of:
            raise InputError(
                "training: the checkpoint is of another training (its settings, seed, task, images or network differ); "
                "delete it, or name another file"
            )
        self._load_modules(state["modules"])
        for parameter, momentum in zip(self._parameters(), state["momentum"], strict=True):
            if momentum is not None:
                # Laid out in memory as the parameter is: the same kernels then run, to the last bit.
                self.optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(momentum)
        self.random.set_state(state["random"])
        self.noise_random.set_state(state["noise_random"])
        torch.set_rng_state(state["global_random"])
        if state["cuda_random"] is not None:
            torch.cuda.set_rng_state(state["cuda_random"], self._device())
        self.order = state["order"]
        device = self._device()
        self.compared = state["compared"]
        self.task_sum, self.similarity_sum = state["task_sum"].to(device), state["similarity_sum"].to(device)
        self.epoch, self.step = state["epoch"], state["step"]
        self.history = [EpochLog(**{**log, "gamma": tuple(log["gamma"])}) for log in state["history"]]
        self.best_loss, self.best = state["best_loss"], state["best"]

    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _modules(self) -> dict[str, Any]:
        regularizer = self.regularizer.state_dict() if self.regularizer is not None else {}
        return {"network": self.network.state_dict(), "regularizer": regularizer}

    def _load_modules(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        if self.regularizer is not None:
            self.regularizer.load_state_dict(state["regularizer"])
