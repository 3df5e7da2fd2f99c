"""Response regression: the alternative that the paper argues against, a readout from a layer to the neurons."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from neuroprior.modes import evaluating, like
from neuroprior.regularizer.drawn import Drawn
from neuroprior.regularizer.sampler import StimulusSampler
from neuroprior.regularizer.schedule import Alpha, checked_alpha
from neuroprior.regularizer.taps import Taps, evenly_spaced_stages
from neuroprior.regularizer.unmixed import Unmixed
from neuroprior.types import Float, InputError, Population, Stimuli


class ResponseRegression(Unmixed):
    """alpha * mean over stimuli i and neurons a of (w_a . f(x_i) + b_a - z_ia)^2, a second loss like the regulariser's.

    `z`: the population's mean responses, each neuron standardised over the stimuli (neurons that never vary are left
    out), so that a readout which knows nothing costs 1 whatever the neurons' number and units. `f`: the features at
    `tap` (the deepest of that many stages where it is a number), average-pooled to at most `grid` places and flattened.
    The readout (w, b) is learned with the network; `parameters()` is it alone. `neurons_per_step`: so many neurons,
    drawn anew each call; all of them where it is None. Call, `alpha`, `size`, `preprocess`, `seed` as in
    `SimilarityRegularizer`. Raises `InputError` for stimuli that the population did not see, or no neuron that varies.
    """

    def __init__(
        self,
        model: nn.Module,
        population: Population,
        stimuli: Stimuli,
        tap: int | str = 5,
        alpha: Alpha = 1.0,
        *,
        grid: tuple[int, int] = (4, 4),
        stimuli_per_step: int = 64,
        neurons_per_step: int | None = None,
        size: tuple[int, int] | None = None,
        preprocess: Callable[[torch.Tensor], torch.Tensor] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(model)
        if not callable(alpha):
            checked_alpha(alpha)
        self._alpha = alpha
        self._grid = grid
        device = like(model).device
        shown = stimuli.select(population.image_ids)
        self.sampler = StimulusSampler(
            shown, stimuli_per_step, size=size, preprocess=preprocess, seed=seed, device=device
        )
        spread = population.mean.std(axis=0, dtype=np.float64)
        varies = np.flatnonzero(spread > 1e-6 * np.abs(population.mean).max(initial=0))
        if not len(varies):
            raise InputError("regression: no neuron's response differs between stimuli; there is nothing to predict")
        if neurons_per_step is not None and neurons_per_step < 1:
            raise InputError(f"regression: neurons_per_step is {neurons_per_step}; it must be 1 or more")
        self._neurons_per_step = min(neurons_per_step or len(varies), len(varies))
        mean = population.mean.mean(axis=0, dtype=np.float64)
        z = ((population.mean[:, varies] - mean[varies]) / spread[varies]).astype(np.float32)
        self._responses: torch.Tensor
        self.register_buffer("_responses", torch.from_numpy(z).to(device), persistent=False)
        features = self._tried_tap(tap)
        # A readout that starts at 0 predicts the mean: the loss begins at 1 for every network.
        self.readout = nn.Linear(features.shape[1], len(varies), device=device)
        nn.init.zeros_(self.readout.weight)
        nn.init.zeros_(self.readout.bias)
        self._unweighted = torch.zeros(())
        self._computes = False  # whether the last call did

    def draw(self) -> Drawn:
        """Draw stimuli and neurons; empty where alpha is 0."""
        alpha = self.alpha
        self._calls += 1
        self._computes = alpha > 0
        if not self._computes:
            return {}
        rows = self.sampler.draw()
        neurons = torch.randperm(self._responses.shape[1], generator=self.sampler.random)[: self._neurons_per_step]
        return {**self.sampler.given(rows), "rows": rows, "neurons": neurons, "alpha": torch.tensor(alpha)}

    def loss_of(self, drawn: Drawn) -> Float[torch.Tensor, ""]:
        """Predict; return alpha times the mean squared error."""
        features = self._features(self.sampler.shown(drawn, self._model[0]))
        with torch.autocast(self._responses.device.type, enabled=False):
            at = drawn["neurons"]
            predicted = F.linear(features.float(), self.readout.weight[at], self.readout.bias[at])
            loss = F.mse_loss(predicted, self._responses[drawn["rows"][:, None], at])
        self._unweighted = loss.detach()
        return drawn["alpha"] * loss

    def look(self) -> None:
        """Raise `FloatingPointError` where the last call's loss is no longer finite. Waits for a GPU."""
        if self._computes and not bool(torch.isfinite(self._unweighted)):
            raise FloatingPointError(
                f"regression: the loss of tap {self._taps.names[0]!r} is no longer finite at step {self._calls}; lower "
                "the learning rate or alpha, and go on from the last state that was kept"
            )

    @property
    def unweighted(self) -> torch.Tensor | None:
        """The last call's mean squared error, without gradient; None where it computed none."""
        return self._unweighted if self._computes else None

    @property
    def alpha(self) -> float:
        """The weight of the next call."""
        return checked_alpha(self._alpha(self._calls)) if callable(self._alpha) else float(self._alpha)

    @property
    def pairs_per_step(self) -> int:
        """How many pairs of stimulus and neuron one call compares."""
        return self.sampler.per_step * self._neurons_per_step

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        (features,) = self._taps.features(self._model[0], images)
        if features.ndim == 4:
            (down, across), (height, width) = self._grid, features.shape[2:]
            features = F.adaptive_avg_pool2d(features, (min(down, height), min(across, width)))
        return features.flatten(1)

    def _tried_tap(self, tap: int | str) -> torch.Tensor:
        """Find the tap, and return the features of two stimuli there."""
        model = self._model[0]
        found: list[torch.Tensor] = []

        def attempt(images: torch.Tensor) -> None:
            name = tap if isinstance(tap, str) else evenly_spaced_stages(model, images, tap)[-1]
            self._taps = Taps(model, [name])
            with torch.no_grad(), evaluating(model):
                found.append(self._features(images))

        self.sampler.fit(model, attempt)
        return found[-1]
