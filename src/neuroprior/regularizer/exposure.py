"""The control for mere exposure: the network sees the stimuli, and is taught nothing about them."""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import nn

from neuroprior.modes import evaluating, like, running_statistics_kept
from neuroprior.regularizer.drawn import Drawn
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
        super().__init__(model)
        if every < 1:
            raise InputError(f"exposure: every is {every}; it must be 1 (each call) or more")
        self._unseen = batch_norm == "task"
        self._every = every
        self.sampler = StimulusSampler(stimuli, stimuli_per_step, size=size, preprocess=preprocess, seed=seed)

        def attempt(images: torch.Tensor) -> None:
            names = evenly_spaced_stages(self._model[0], images, taps) if isinstance(taps, int) else taps
            self._taps = Taps(self._model[0], names)
            with torch.no_grad(), evaluating(self._model[0]):
                self._taps.features(self._model[0], images)

        self.sampler.fit(self._model[0], attempt)

    def draw(self) -> Drawn:
        """Draw stimuli; empty where this call shows none."""
        step = self._calls
        self._calls += 1
        return {} if step % self._every else self.sampler.given(self.sampler.draw())

    def loss_of(self, drawn: Drawn) -> Float[torch.Tensor, ""]:
        """Show the stimuli; return 0."""
        model = self._model[0]
        with torch.no_grad(), running_statistics_kept(model) if self._unseen else nullcontext():
            self._taps.features(model, self.sampler.shown(drawn, model))
        return torch.zeros((), device=like(model).device)

    @property
    def pairs_per_step(self) -> int:
        """0: nothing is compared."""
        return 0
