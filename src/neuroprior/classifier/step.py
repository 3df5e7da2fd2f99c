"""One step of joint training: drawn on the processor, computed on the device, then looked at."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import nn

from neuroprior.classifier.augmentation import Augmentation
from neuroprior.classifier.second_loss import InParts, SecondLoss
from neuroprior.classifier.task import Classification, Task
from neuroprior.modes import unwrapped
from neuroprior.regularizer.drawn import Drawn
from neuroprior.types import Int64, Precision

Perturb: TypeAlias = Callable[[nn.Module, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(network, images, labels, noise) -> images: what a batch becomes before it is trained on (adversarial training).

`noise`: uniform in [-1, 1], of the images' shape, to start from; it has draws of its own, so that a training with
`perturb` sees the same batches as one without."""

_SECOND = "second/"  # before the names of what the second loss drew


@dataclass(frozen=True, slots=True, eq=False)
class JointStep:
    """L_task + L_second of one batch (Eq. 7). `draw` is the processor's part, `losses` the device's.

    Between them lies all that differs from step to step, as tensors by name; so `losses` can be recorded and replayed.
    A second loss that does not come in parts draws and computes in one, within `losses`.
    """

    network: nn.Module
    task: Task
    augment: Augmentation
    labels: Int64[torch.Tensor, " image"]
    second: SecondLoss | None = None
    perturb: Perturb | None = None
    precision: Precision = "float32"

    @property
    def replayable(self) -> bool:
        """Whether `losses` does the same operations at each step that is given the same names."""
        in_parts = self.second is None or isinstance(self.second, InParts)
        return in_parts and self.perturb is None and isinstance(self.task, Classification)

    def draw(
        self, rows: Int64[torch.Tensor, " batch"], random: torch.Generator, noise: torch.Generator, share: slice
    ) -> Drawn:
        """Draw what one step needs: crops and flips of these rows, noise to perturb from, the second loss's stimuli."""
        drawn = self.augment.draw(rows, random, share)
        if self.perturb is not None:
            shape = (len(rows), *self.augment.shape)
            drawn["noise"] = torch.empty(shape).uniform_(-1, 1, generator=noise)[share]
        if isinstance(self.second, InParts):
            drawn |= {_SECOND + name: value for name, value in self.second.draw().items()}
        return drawn

    def losses(self, drawn: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the task's loss and the second one, weighted, of what was drawn, taken to the device."""
        batch, wanted = self.augment.images(drawn), self.labels[drawn["rows"]]
        if self.perturb is not None:
            batch = self.perturb(unwrapped(self.network), batch, wanted, drawn["noise"].to(batch))
        with torch.autocast(batch.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            return self.task.loss(self.network, batch, wanted), self._second_loss(drawn)

    def look(self) -> None:
        """Raise `FloatingPointError` where the second loss went wrong."""
        if isinstance(self.second, InParts):
            self.second.look()

    def _second_loss(self, drawn: Mapping[str, torch.Tensor]) -> torch.Tensor:
        if isinstance(self.second, InParts):
            own = {name.removeprefix(_SECOND): value for name, value in drawn.items() if name.startswith(_SECOND)}
            if own:
                return self.second.loss_of(own)
        elif self.second is not None:
            return self.second()
        return torch.zeros((), device=self.labels.device)
