"""Joint training (Eq. 7): a classification loss, and whatever the regulariser adds to it. One readable loop."""

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional as F

from neuroprior.classifier.checkpoint import Checkpoint
from neuroprior.classifier.datasets import LabelledImages
from neuroprior.modes import evaluating
from neuroprior.regularizer import SimilarityRegularizer
from neuroprior.types import Float, InputError, Precision, UInt8

_PAPER_EPOCHS = 40
_PAD = 4
_WARM_UP = 0.15


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How a network is trained; the defaults are the paper's and its code lineage's."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    epochs: int = 40
    batch_size: int = 64
    learning_rate: float = 0.1
    schedule: Literal["paper", "linear"] = "paper"
    momentum: float = 0.9
    weight_decay: float = 0.0
    augmentation: Literal["crop_flip", "crop", "none"] = "crop_flip"
    validation_fraction: float = 0.01

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2:
            raise InputError(f"training: epochs {self.epochs} and batch_size {self.batch_size} must be >= 1 and >= 2")
        if not 0 < self.validation_fraction < 1:
            raise InputError(f"training: validation_fraction is {self.validation_fraction}; it must be in (0, 1)")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"training: learning_rate is {self.learning_rate}; it must be above 0, and finite")
        if not (0 <= self.momentum < 1 and 0 <= self.weight_decay < math.inf):
            raise InputError(
                f"training: momentum is {self.momentum}, weight_decay {self.weight_decay}; use [0, 1) and 0 or more"
            )


@dataclass(frozen=True, slots=True)
class EpochLog:
    """What one epoch was like: losses are means over `n_images`, `n_pairs` and `n_validation`; `gamma` is at its end.

    Without a regulariser `n_pairs` is 0, `similarity_loss` nan (it is before its factor alpha) and `gamma` empty.
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


def learning_rate(settings: TrainingSettings, progress: float) -> float:
    """lr = lr_0 0.3^((e mod 20) // 4) with e = 40 progress: the paper's schedule, compressed to however short a run.

    `progress`: in [0, 1), the part of all steps already taken. `schedule: linear` rises from 0 to lr_0 over the first
    15 % of the steps and falls to 0 over the rest: better where a run is so short that the paper's restart wastes half.
    """
    if settings.schedule == "linear":
        return settings.learning_rate * min(progress / _WARM_UP, (1 - progress) / (1 - _WARM_UP))
    paper_epoch = int(_PAPER_EPOCHS * progress)
    return settings.learning_rate * 0.3 ** ((paper_epoch % 20) // 4)


def train(
    network: nn.Module,
    images: LabelledImages,
    settings: TrainingSettings,
    *,
    seed: int,
    regularizer: SimilarityRegularizer | None = None,
    precision: Precision = "float32",
    on_epoch: Callable[[EpochLog], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> list[EpochLog]:
    """Train `network` in place; it ends with the weights of the epoch whose validation loss was least.

    With a `checkpoint`, a training that was stopped at any step goes on from the last one kept, to the same bytes.

    The regulariser, if any, ends with its state of the same epoch. The validation images are a random part of
    `images`; order, augmentation and split follow from `seed`. Raises `FloatingPointError`, naming the step, when the
    loss is no longer finite.
    """
    device = next(network.parameters()).device
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=random).numpy()
    n_validation = max(1, round(settings.validation_fraction * len(images)))
    held_out, kept = images.rows(order[:n_validation]), images.rows(order[n_validation:])
    if len(kept) < settings.batch_size:
        raise InputError(f"training: {len(kept)} training images are fewer than one batch of {settings.batch_size}")
    augment = Augmentation(torch.from_numpy(kept.pixels).to(device), settings.augmentation)
    labels = torch.from_numpy(kept.labels).to(device)

    parameters = [*network.parameters(), *(regularizer.parameters() if regularizer is not None else ())]
    optimizer = torch.optim.SGD(
        parameters, settings.learning_rate, momentum=settings.momentum, weight_decay=settings.weight_decay
    )
    steps = len(kept) // settings.batch_size  # the last, smaller batch is left out: batch norm sees equal batches
    so_far = _SoFar(network, optimizer, regularizer, random)
    if checkpoint is not None and (saved := checkpoint.load()) is not None:
        so_far.restore(saved)

    while so_far.epoch < settings.epochs:
        epoch = so_far.epoch
        network.train()
        if so_far.step == 0:
            so_far.order = torch.randperm(len(kept), generator=random)
            so_far.task_sum = torch.zeros((), device=device)
            so_far.similarity_sum = torch.zeros((), device=device)
        for step in range(so_far.step, steps):
            rate = learning_rate(settings, (epoch * steps + step + 0.5) / (settings.epochs * steps))
            for group in optimizer.param_groups:
                group["lr"] = rate
            rows = so_far.order[step * settings.batch_size : (step + 1) * settings.batch_size]
            batch = augment(rows, random)
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                task_loss = F.cross_entropy(network(batch), labels[rows.to(device)])
                similarity_loss = regularizer() if regularizer is not None else torch.zeros((), device=device)
            loss = task_loss + similarity_loss
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call] # missing from torch's stub
            optimizer.step()
            so_far.task_sum += task_loss.detach()
            so_far.similarity_sum += similarity_loss.detach()
            # Asking a GPU after every step would hold it up; a processor has nothing to wait for.
            if device.type == "cpu" or step % 50 == 49 or step == steps - 1:
                _stop_if_not_finite(so_far.task_sum + so_far.similarity_sum, epoch, step, rate)
            so_far.step = step + 1
            if checkpoint is not None and checkpoint.is_due():
                checkpoint.save(so_far.state())
        validation_loss, accuracy = evaluate(network, held_out)
        alpha = regularizer.alpha if regularizer is not None else 0.0
        log = EpochLog(
            epoch=epoch + 1,
            task_loss=float(so_far.task_sum) / steps,
            similarity_loss=float(so_far.similarity_sum) / steps / alpha if alpha > 0 else math.nan,
            validation_loss=validation_loss,
            validation_accuracy=accuracy,
            gamma=tuple(regularizer.gamma.tolist()) if regularizer is not None else (),
            n_images=steps * settings.batch_size,
            n_pairs=steps * regularizer.pairs_per_step if regularizer is not None else 0,
            n_validation=n_validation,
        )
        so_far.end_epoch(log)
        if on_epoch is not None:
            on_epoch(log)

    so_far.use_best()
    return so_far.history


class _SoFar:
    """All that a training changes as it goes: what a checkpoint holds, and no more."""

    order: torch.Tensor
    task_sum: torch.Tensor
    similarity_sum: torch.Tensor

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        regularizer: SimilarityRegularizer | None,
        random: torch.Generator,
    ) -> None:
        self.network, self.optimizer, self.regularizer, self.random = network, optimizer, regularizer, random
        self.epoch = 0
        self.step = 0
        self.history: list[EpochLog] = []
        self.best_loss = math.inf
        self.best: dict[str, Any] = {}

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
            "random": self.random.get_state(),
            "order": self.order,
            "task_sum": self.task_sum,
            "similarity_sum": self.similarity_sum,
            "epoch": self.epoch,
            "step": self.step,
            "history": [asdict(log) for log in self.history],
            "best_loss": self.best_loss,
            "best": self.best,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to what `state` gave."""
        self._load_modules(state["modules"])
        for parameter, momentum in zip(self._parameters(), state["momentum"], strict=True):
            if momentum is not None:
                # Laid out in memory as the parameter is: the same kernels then run, to the last bit.
                self.optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(momentum)
        self.random.set_state(state["random"])
        self.order = state["order"]
        device = next(self.network.parameters()).device
        self.task_sum, self.similarity_sum = state["task_sum"].to(device), state["similarity_sum"].to(device)
        self.epoch, self.step = state["epoch"], state["step"]
        self.history = [EpochLog(**{**log, "gamma": tuple(log["gamma"])}) for log in state["history"]]
        self.best_loss, self.best = state["best_loss"], state["best"]

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _modules(self) -> dict[str, Any]:
        regularizer = self.regularizer.state_dict() if self.regularizer is not None else {}
        return {"network": self.network.state_dict(), "regularizer": regularizer}

    def _load_modules(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        if self.regularizer is not None:
            self.regularizer.load_state_dict(state["regularizer"])


class Augmentation:
    """Random crops of reflect-padded images, and horizontal flips, as one gather of uint8 pixels a batch."""

    def __init__(
        self, pixels: UInt8[torch.Tensor, "image channel h w"], kind: Literal["crop_flip", "crop", "none"]
    ) -> None:
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

    def __call__(self, rows: torch.Tensor, random: torch.Generator) -> Float[torch.Tensor, "image channel h w"]:
        """Return these images, each cropped and flipped anew, as floats in [0, 1]."""
        n, device = len(rows), self.padded.device
        top, left = (torch.randint(2 * self.pad + 1, (n, 1), generator=random) for _ in range(2))
        across = torch.arange(self.width).expand(n, -1)
        if self.kind == "crop_flip":
            flip = torch.rand(n, 1, generator=random) < 0.5
            across = torch.where(flip, self.width - 1 - across, across)
        y = (top + torch.arange(self.height)).to(device)
        x = (left + across).to(device)
        cropped = self.padded[rows.to(device)[:, None, None], y[:, :, None], x[:, None, :]]
        return cropped.permute(0, 3, 1, 2).float() / 255


def evaluate(network: nn.Module, images: LabelledImages, batch_size: int = 500) -> tuple[float, float]:
    """Return the mean cross-entropy and the accuracy in evaluation mode; the network keeps the mode it was in."""
    device = next(network.parameters()).device
    loss = 0.0
    right = 0
    with torch.no_grad(), evaluating(network):
        for start in range(0, len(images), batch_size):
            part = images.rows(slice(start, start + batch_size))
            logits = network(torch.from_numpy(part.pixels).to(device).float() / 255)
            labels = torch.from_numpy(part.labels).to(device)
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
            right += int((logits.argmax(1) == labels).sum())
    return loss / len(images), right / len(images)


def _stop_if_not_finite(value: torch.Tensor, epoch: int, step: int, rate: float) -> None:
    if not bool(torch.isfinite(value)):
        raise FloatingPointError(
            f"the loss is no longer finite by step {step + 1} of epoch {epoch + 1} (learning rate {rate:.3g}); "
            "lower training.learning_rate or regularizer.alpha"
        )
