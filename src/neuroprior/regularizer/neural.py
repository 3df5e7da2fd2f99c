"""S_neural of a step's stimuli, from wherever the target lies."""

import numpy as np
import torch
from torch import nn

from neuroprior.regularizer.sampler import HELD_BYTES
from neuroprior.types import AnyTarget, FactoredTarget, Float, InputError, Int64, Stimuli


class NeuralSimilarity(nn.Module):
    """Blocks of a target: from the device where the target is small, else read from memory or disk, block by block.

    `rows`: which row of the target each stimulus is. `threshold`: S -> +1 above it, -1 below its negative, 0 between
    (Attias et al. 2024). The values are the same wherever they are kept, but for the rounding of a factored target's
    products.
    """

    def __init__(
        self,
        target: AnyTarget,
        rows: Int64[np.ndarray, " stimulus"],
        *,
        threshold: float | None = None,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        self._target = target
        self._rows = rows
        self.threshold = threshold
        array = target.coordinates if isinstance(target, FactoredTarget) else target.matrix
        self._held: torch.Tensor | None
        self.register_buffer(
            "_held", torch.from_numpy(array.copy()).to(device) if array.nbytes <= HELD_BYTES else None, persistent=False
        )

    def given(self, drawn: Int64[torch.Tensor, " stimulus"]) -> torch.Tensor:
        """Return what the device needs for these rows of the sampler: the target's rows, or S where it holds none."""
        rows = self._rows[drawn.numpy()]
        return torch.from_numpy(rows if self._held is not None else self._target.block(rows))

    def forward(self, given: torch.Tensor, device: torch.device) -> Float[torch.Tensor, "stimulus stimulus"]:
        """Return S of the stimuli that were `given`, float32."""
        if self._held is None:
            block = given.to(device)
        else:
            at = given.to(self._held.device)
            if isinstance(self._target, FactoredTarget):
                e = self._held[at]
                block = (e @ e.T).clamp(-1, 1).fill_diagonal_(1).to(device)
            else:
                block = self._held[at[:, None], at[None, :]].to(device)
        if self.threshold is None:
            return block
        return (block > self.threshold).float() - (block < -self.threshold).float()


def common_stimuli(targets: dict[str, AnyTarget], stimuli: Stimuli) -> tuple[Stimuli, dict[str, np.ndarray]]:
    """Return the stimuli that all targets are of, in the first one's order, and each one's row in each target.

    Raises `InputError` where a target's images are not among `stimuli`, or have other pixels there, or no image is in
    all targets.
    """
    for name, target in targets.items():
        shown = stimuli.select(target.image_ids)
        if shown.digest != target.stimuli_digest:
            of = f" {name!r}" if len(targets) > 1 else ""
            raise InputError(
                f"regularizer: the stimuli are not those of the target{of} (digest {shown.digest[:12]}, target "
                f"{target.stimuli_digest[:12]}): same ids, other pixels; pass the images it was made from"
            )
    first, *others = targets.values()
    if not others:
        return stimuli.select(first.image_ids), {name: np.arange(len(first)) for name in targets}
    row = {name: {str(image): i for i, image in enumerate(t.image_ids)} for name, t in targets.items()}
    ids = [str(image) for image in first.image_ids if all(str(image) in known for known in row.values())]
    if not ids:
        raise InputError(f"regularizer: no image is in all of the targets {', '.join(targets)}; they must share some")
    return stimuli.select(np.array(ids)), {name: np.array([known[i] for i in ids]) for name, known in row.items()}
