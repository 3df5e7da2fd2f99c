"""The control for mere exposure: the network sees the stimuli, and is taught nothing about them."""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import nn

from neuroprior.modes import evaluating, running_statistics_kept, unwrapped
from neuroprior.regularizer.sampler import StimulusSampler
from neuroprior.regularizer.taps import BatchNorm, Taps, evenly_spaced_stages
from neuroprior.regularizer.unmixed import Unmixed
from neuroprior.types import Float, InputError, Stimuli


class Exposure(Unmixed):
    """0, after stimuli went through the network: their statistics enter its batch norm, and nothing else happens.

    `taps`: the stimuli run as far as the deepest of these layers. Everything as in `SimilarityRegularizer`, whose draws
    for the same stimuli and `seed` these are. No parameters; `state_dict()` holds the state of the draws. Raises
    `InputError` as there.
    """

    unweighted: torch.Tensor | None = None

    def __init__(
        self,
        model: nn.Module,
        stimuli: Stimuli,
        taps: int | tuple[str, ...] = 5,
        *,
        batch_norm: BatchNorm = "shared",
        stimuli_per_step: int = 64,
        every: int = 1,
        size: tuple[int, int] | None = None,
        preprocess: Callable[[torch.Tensor], torch.Tensor] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if every < 1:
            raise InputError(f"exposure: every is {every}; it must be 1 (each call) or more")
        self._model = (unwrapped(model),)
        self._unseen = batch_norm == "task"
        self._every = every
        self.sampler = StimulusSampler(stimuli, stimuli_per_step, size=size, preprocess=preprocess, seed=seed)

        def attempt(images: torch.Tensor) -> None:
            names = evenly_spaced_stages(self._model[0], images, taps) if isinstance(taps, int) else taps
            self._taps = Taps(self._model[0], names)
            with torch.no_grad(), evaluating(self._model[0]):
                self._taps.features(self._model[0], images)

        self.sampler.fit(self._model[0], attempt)

    def forward(self) -> Float[torch.Tensor, ""]:
        """Show a fresh draw of stimuli; return 0."""
        step = self._calls
        self._calls += 1
        if step % self._every:
            return torch.zeros(())
        with torch.no_grad(), running_statistics_kept(self._model[0]) if self._unseen else nullcontext():
            self._taps.features(self._model[0], self.sampler.images(self.sampler.draw(), self._model[0]))
        return torch.zeros(())

    @property
    def pairs_per_step(self) -> int:
        """0: nothing is compared."""
        return 0
