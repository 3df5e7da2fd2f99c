"""Joint training (Eq. 7): a task's loss, and whatever a second loss adds to it. One readable loop."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import distributed, nn

from neuroprior.checkpoint import Checkpoint
from neuroprior.classifier.augmentation import Augmentation, AugmentationKind
from neuroprior.classifier.datasets import LabelledImages
from neuroprior.classifier.recorded import Recorded, Tape
from neuroprior.classifier.second_loss import SecondLoss
from neuroprior.classifier.so_far import EpochLog, SoFar
from neuroprior.classifier.step import JointStep, Perturb
from neuroprior.classifier.task import Classification, FewShotTask, Task
from neuroprior.logs import NoLog, TrainingLog
from neuroprior.regularizer.drawn import on_device
from neuroprior.regularizer.gather import rank, world_size
from neuroprior.types import InputError, Precision

_PAPER_EPOCHS = 40
_WARM_UP = 0.15
_WRITTEN_EVERY = 50  # steps, to the log
_LOOKED_AT = 10  # steps on a GPU, which asking at every step would hold up; a processor has nothing to wait for


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
    augmentation: AugmentationKind = "crop_flip"
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
    regularizer: SecondLoss | None = None,
    task: Task | None = None,
    perturb: Perturb | None = None,
    precision: Precision = "float32",
    on_epoch: Callable[[EpochLog], None] | None = None,
    log: TrainingLog | None = None,
    checkpoint: Checkpoint | None = None,
    tape: Tape | None = None,
) -> list[EpochLog]:
    """Train `network` in place; it ends with the weights of the epoch whose validation loss was least.

    `regularizer`: a second loss, added to the first; it ends with its state of the same epoch. `task`: classification,
    where it is None. `perturb`: what is done to each batch first. The validation images are a random part of `images`;
    order, augmentation and split follow from `seed`. `log` gets losses, gamma, correlations and images a second now
    and then. With a `checkpoint`, a training that was stopped at any step goes on from the last one kept, to the same
    bytes. On a GPU a step is recorded and replayed (`tape`: a CUDA graph where it is None; `as_written` records
    nothing), unless it has a `perturb`, a second loss that does not come in parts, or processes that share it.

    Under `torchrun` (a process group is there) each process takes its share of every batch, gradients are averaged,
    and all end with the same weights: those of one process, where the network has no batch norm (whose statistics are
    of a process's own share; the first one's are evaluated with). Raises `InputError` for too few images, processes
    that cannot share a batch evenly, or a checkpoint of another training; `FloatingPointError`, naming the step, when
    the loss is no longer finite: the network then holds the weights of its best epoch, if one was finished.
    """
    device = next(network.parameters()).device
    task = Classification(settings.batch_size) if task is None else task
    log = NoLog() if log is None else log
    if isinstance(task, FewShotTask) and world_size() > 1:
        raise InputError("training: an episode cannot be shared by several processes; train few-shot in one")
    share = _share_of(task.batch_size)
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=random).numpy()
    n_validation = max(1, round(settings.validation_fraction * len(images)))
    held_out, kept = images.rows(order[:n_validation]), images.rows(order[n_validation:])
    labels = torch.from_numpy(kept.labels)
    running = _averaging_gradients(network, device)
    augment = Augmentation(torch.from_numpy(kept.pixels).to(device), settings.augmentation)
    step = JointStep(running, task, augment, labels.to(device), regularizer, perturb, precision)

    parameters = [*network.parameters(), *(regularizer.parameters() if regularizer is not None else ())]
    replayed = (device.type == "cuda" or tape is not None) and step.replayable and world_size() == 1
    optimizer = torch.optim.SGD(
        parameters,
        # a recorded step reads its rate from memory
        torch.tensor(settings.learning_rate, device=device) if replayed else settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        fused=True if replayed else None,
    )
    if replayed and settings.momentum:
        # The fused form wants all at once, and theta has no gradient before alpha rises from 0. From 0 it is the same.
        for parameter in parameters:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    of = _digest(settings, seed, task, kept.labels, parameters)
    so_far = SoFar(network, optimizer, regularizer, random, of=of)
    so_far.noise_random.manual_seed(seed + 1)
    if checkpoint is not None and (saved := checkpoint.load()) is not None:
        so_far.restore(saved)
    if _is_first():
        so_far.log_goes_on(log)

    def take(given: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the losses of one step and go down their gradient."""
        if replayed:
            optimizer.param_groups[0]["lr"].copy_(given["rate"])
        task_loss, second = step.losses(given)
        loss = task_loss + second
        if device.type == "cpu" and not replayed:
            look(loss)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call] # missing from torch's stub
        optimizer.step()
        return task_loss.detach(), loss.detach()

    def look(loss: torch.Tensor) -> None:
        """Stop where something went wrong."""
        step.look()
        _stop_if_not_finite(loss, so_far.epoch, so_far.step, rate)

    taken = Recorded(take, device, tape) if replayed else lambda given: take(on_device(given, device))

    try:
        while so_far.epoch < settings.epochs:
            epoch = so_far.epoch
            network.train()
            if so_far.step == 0:
                so_far.begin_epoch(task.epoch(labels, random), device)
            steps = len(so_far.order)
            clock = _Clock()
            while so_far.step < steps:
                at = so_far.step
                rate = learning_rate(settings, (epoch * steps + at + 0.5) / (settings.epochs * steps))
                drawn = step.draw(so_far.order[at], random, so_far.noise_random, share)
                if replayed:
                    drawn["rate"] = torch.tensor(rate)
                else:
                    for group in optimizer.param_groups:
                        group["lr"] = rate
                task_loss, loss = taken(drawn)
                if (replayed or device.type != "cpu") and (at % _LOOKED_AT == _LOOKED_AT - 1 or at == steps - 1):
                    look(loss)
                so_far.task_sum += task_loss
                if regularizer is not None and regularizer.unweighted is not None:
                    so_far.similarity_sum += regularizer.unweighted
                    so_far.compared += 1
                so_far.step = at + 1
                clock.count(task.batch_size)
                if at % _WRITTEN_EVERY == 0 and _is_first():
                    log.write(
                        epoch * steps + at,
                        {
                            "epoch": epoch + at / steps,
                            "learning_rate": rate,
                            "task_loss": float(task_loss),
                            "images_per_second": clock.rate(),
                            **_second_values(regularizer),
                        },
                    )
                if checkpoint is not None and checkpoint.is_due() and _is_first():
                    _stop_if_not_finite(so_far.task_sum + so_far.similarity_sum, epoch, at, rate)
                    checkpoint.save(so_far.state())
            _share_buffers(network)
            pixels = torch.from_numpy(held_out.pixels).to(device).float() / 255
            validation_loss, accuracy = task.evaluate(network, pixels, torch.from_numpy(held_out.labels).to(device))
            ended = EpochLog(
                epoch=epoch + 1,
                task_loss=_mean_over_processes(so_far.task_sum) / steps,
                similarity_loss=float(so_far.similarity_sum) / so_far.compared if so_far.compared else math.nan,
                validation_loss=validation_loss,
                validation_accuracy=accuracy,
                gamma=tuple(regularizer.gamma.tolist()) if regularizer is not None else (),
                n_images=steps * task.batch_size,
                n_pairs=so_far.compared * (regularizer.pairs_per_step if regularizer is not None else 0),
                n_validation=n_validation,
            )
            so_far.end_epoch(ended)
            if _is_first():
                log.write((epoch + 1) * steps, {"validation_loss": validation_loss, "validation_accuracy": accuracy})
            if on_epoch is not None:
                on_epoch(ended)
    except FloatingPointError as error:
        raise FloatingPointError(f"{error}; {so_far.back_to_best()}") from None
    finally:
        log.close()
    so_far.use_best()
    return so_far.history


def evaluate(network: nn.Module, images: LabelledImages) -> tuple[float, float]:
    """Return the mean cross-entropy and the accuracy in evaluation mode; the network keeps the mode it was in."""
    device = next(network.parameters()).device
    pixels = torch.from_numpy(images.pixels).to(device).float() / 255
    return Classification().evaluate(network, pixels, torch.from_numpy(images.labels).to(device))


class _Clock:
    """Images a second since the last asking."""

    def __init__(self) -> None:
        self._since, self._images = time.perf_counter(), 0

    def count(self, images: int) -> None:
        self._images += images

    def rate(self) -> float:
        now = time.perf_counter()
        rate = self._images / max(now - self._since, 1e-9)
        self._since, self._images = now, 0
        return rate


def _second_values(second: SecondLoss | None) -> dict[str, float]:
    if second is None:
        return {}
    gamma = {f"gamma/{name}": value for name, value in zip(second.tap_names, second.gamma.tolist(), strict=True)}
    alike = {f"similarity_correlation/{name}": value for name, value in second.correlations().items()}
    loss = {} if second.unweighted is None else {"similarity_loss": float(second.unweighted)}
    return {**loss, **gamma, **alike}


def _is_first() -> bool:
    return rank() == 0


def _share_of(batch_size: int) -> slice:
    at, world = rank(), world_size()
    if batch_size % world:
        raise InputError(
            f"training: {world} processes cannot share a batch of {batch_size} images evenly; make batch_size a "
            "multiple of their number"
        )
    return slice(at * batch_size // world, (at + 1) * batch_size // world)


def _averaging_gradients(network: nn.Module, device: torch.device) -> nn.Module:
    """Return the network as it is, or where several processes train it, wrapped: their gradients are averaged."""
    if world_size() == 1:
        return network
    return nn.parallel.DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)


def _share_buffers(network: nn.Module) -> None:
    """Let all processes evaluate with the first one's running statistics, so that they choose the same epoch."""
    if world_size() > 1:
        for buffer in network.buffers():
            distributed.broadcast(buffer, 0)


def _digest(
    settings: TrainingSettings, seed: int, task: Task, labels: np.ndarray, parameters: Sequence[nn.Parameter]
) -> str:
    """Say which training this is, so that no other one goes on from its checkpoint."""
    shapes = [list(parameter.shape) for parameter in parameters]
    said = json.dumps([asdict(settings), seed, repr(task), shapes])
    return hashlib.sha256(said.encode() + np.ascontiguousarray(labels).tobytes()).hexdigest()


def _mean_over_processes(value: torch.Tensor) -> float:
    if world_size() > 1:
        value = value.clone()
        distributed.all_reduce(value)
    return float(value) / world_size()


def _stop_if_not_finite(value: torch.Tensor, epoch: int, step: int, rate: float) -> None:
    if not bool(torch.isfinite(value)):
        raise FloatingPointError(
            f"the loss is no longer finite by step {step + 1} of epoch {epoch + 1} (learning rate {rate:.3g}); "
            "lower training.learning_rate or regularizer.alpha"
        )
