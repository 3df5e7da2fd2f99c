"""The control for mere exposure: the network sees the stimuli, and is taught nothing about them."""

from collections.abc import Callable

import torch
from torch import nn

from neuroprior.modes import evaluating, unwrapped
from neuroprior.regularizer.sampler import StimulusSampler
from neuroprior.regularizer.taps import Taps, evenly_spaced_stages
from neuroprior.types import Float, Stimuli


class Exposure(nn.Module):
    """0, after stimuli went through the network: their statistics enter its batch norm, and nothing else happens.

    `taps`: the stimuli run as far as the deepest of these layers, as in `SimilarityRegularizer`, whose draws for the
    same `seed` these are. No parameters; `state_dict()` holds the state of the draws. Raises `InputError` as there.
    """

    alpha = 0.0

    def __init__(
        self,
        model: nn.Module,
        stimuli: Stimuli,
        taps: int | tuple[str, ...] = 5,
        *,
        stimuli_per_step: int = 64,
        size: tuple[int, int] | None = None,
        preprocess: Callable[[torch.Tensor], torch.Tensor] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self._model = (unwrapped(model),)
        self.sampler = StimulusSampler(stimuli, stimuli_per_step, size=size, preprocess=preprocess, seed=seed)
        self.unweighted = torch.zeros(())

        def attempt(images: torch.Tensor) -> None:
            names = evenly_spaced_stages(self._model[0], images, taps) if isinstance(taps, int) else taps
            self._taps = Taps(self._model[0], names)
            with torch.no_grad(), evaluating(self._model[0]):
                self._taps.features(self._model[0], images)

        self.sampler.fit(self._model[0], attempt)

    def forward(self) -> Float[torch.Tensor, ""]:
        """Show a fresh draw of stimuli; return 0."""
        with torch.no_grad():
            self._taps.features(self._model[0], self.sampler.images(self.sampler.draw(), self._model[0]))
        return torch.zeros(())

    @property
    def tap_names(self) -> tuple[str, ...]:
        """None: no layers are mixed."""
        return ()

    @property
    def gamma(self) -> Float[torch.Tensor, " layer"]:
        """Empty: no layers are mixed."""
        return torch.zeros(0)

    @property
    def pairs_per_step(self) -> int:
        """0: nothing is compared."""
        return 0

    def correlations(self) -> dict[str, float]:
        """Nothing is compared."""
        return {}
