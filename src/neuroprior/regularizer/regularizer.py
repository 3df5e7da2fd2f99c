"""`SimilarityRegularizer`: teach any network to find the same pairs of images alike as a brain does."""

import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, get_args

import torch
from torch import nn

from neuroprior.modes import evaluating, like, running_statistics_kept
from neuroprior.regularizer.loss import (
    LARGEST_SIMILARITY,
    Mean,
    Pairs,
    Scale,
    combine_layers,
    layer_similarity,
    similarity_loss,
)
from neuroprior.regularizer.taps import BatchNorm, Taps, evenly_spaced_stages
from neuroprior.types import Float, InputError, SimilarityTarget, Stimuli

_KEPT = 0.9  # of the running mean at each step (code lineage)
_NEARLY_ALL = 0.9  # of the pairs
_PATIENCE = 20  # steps with a gradient but without a change of theta, after which its absence is pointed out
_CHUNK = 128  # images a pass, where gradients are not needed


class SimilarityRegularizer(nn.Module):
    """alpha * L_similarity (Eq. 7-10) of `model` on `target`, a fresh draw of stimuli at each call.

        reg = SimilarityRegularizer(model, target, stimuli, taps=5, alpha=20.0)
        optimiser = SGD([*model.parameters(), *reg.parameters()], ...)
        loss = F.cross_entropy(model(x), y) + reg()

    The stimuli run through `model` as floats in [0, 1], `(image, 1, height, width)`, or through `preprocess` first,
    in whatever mode and under whatever autocast the model is; the similarity is float32 always.

    - `taps`: names of modules, or K for K evenly spaced stages. Hooks are there only during the call.
    - `alpha`: weight, >= 0. 0 computes nothing and returns 0.
    - `scale`: `printed` (Eq. 8) or `lineage` (4 times as much).
    - `mean`: f̄ of Eq. 9. `lineage`: per channel, running (0.9 old + 0.1 new, from 0, no gradient); `batch`: per
      feature, of the step's stimuli; `dataset`: per feature, of all stimuli, in evaluation mode without gradient,
      computed anew each time the stimuli have been gone through once.
    - `batch_norm`: `shared` lets the stimuli into the running statistics of batch norm, as in the lineage; `task` keeps
      them out, for stimuli that look unlike the task's images (evaluation would else normalise with a mixture of both).
    - `pairs`, `stimuli_per_step`: `disjoint` pairs, or `all` pairs of the step's stimuli (drawn without replacement).
    - `seed`: of the draws.

    `parameters()` is theta alone, `gamma = softmax(theta)` (Eq. 10); `state_dict()` holds theta, the running means and
    the state of the draws. The model gains neither parameters nor buffers. Raises `InputError` for stimuli that are
    not the target's, alpha < 0, unknown taps or options, or fewer than 2 stimuli a step.
    """

    theta: nn.Parameter
    alpha: float
    _pixels: torch.Tensor
    _target: torch.Tensor

    def __init__(
        self,
        model: nn.Module,
        target: SimilarityTarget,
        stimuli: Stimuli,
        taps: int | str | Sequence[str] = 5,
        alpha: float = 20.0,
        *,
        scale: Scale = "printed",
        mean: Mean = "lineage",
        pairs: Pairs = "disjoint",
        batch_norm: BatchNorm = "shared",
        stimuli_per_step: int = 64,
        preprocess: Callable[[torch.Tensor], torch.Tensor] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        shown = stimuli.select(target.image_ids)
        if shown.digest != target.stimuli_digest:
            raise InputError(
                f"regularizer: the stimuli are not those of the target (digest {shown.digest[:12]}, target "
                f"{target.stimuli_digest[:12]}): same ids, other pixels; pass the images it was made from"
            )
        if not 0 <= alpha < math.inf:
            raise InputError(f"regularizer: alpha is {alpha}; it must be 0 or more, and finite")
        for name, value, options in (
            ("scale", scale, Scale),
            ("mean", mean, Mean),
            ("pairs", pairs, Pairs),
            ("batch_norm", batch_norm, BatchNorm),
        ):
            if value not in get_args(options):
                raise InputError(f"regularizer: {name}={value!r} is not one of {', '.join(get_args(options))}")
        if not 2 <= stimuli_per_step <= len(shown):
            raise InputError(
                f"regularizer: stimuli_per_step is {stimuli_per_step}; it must be from 2 to {len(shown)}, all there are"
            )
        self.alpha = float(alpha)
        self.scale: Scale = scale
        self.mean: Mean = mean
        self.pairs: Pairs = pairs
        self.batch_norm: BatchNorm = batch_norm
        self.stimuli_per_step = stimuli_per_step
        self.preprocess = preprocess
        self._model = (model,)  # in a tuple: nn.Module must not see it as a child, or its weights were ours
        device = like(model).device
        # Buffers move with `reg.to(device)`; not saved, since they are the user's own; copies, since those are frozen.
        self.register_buffer("_pixels", torch.from_numpy(shown.pixels.copy()).to(device), persistent=False)
        self.register_buffer("_target", torch.from_numpy(target.matrix.copy()).to(device), persistent=False)
        self.taps = self._tried_taps(taps)
        names = self.taps.names
        self.theta = nn.Parameter(torch.zeros(len(names), device=device))
        self._sampler = torch.Generator().manual_seed(seed)
        self._means: list[torch.Tensor] = []
        self._steps = 0
        self._theta_unmoved = 0
        self._saturation_said = False

    def forward(self) -> Float[torch.Tensor, ""]:
        """Draw stimuli, compare, return alpha * L_similarity (Eq. 7, 8)."""
        if self.alpha == 0:
            return torch.zeros((), device=self.theta.device)
        self._notice_forgotten_theta()
        # The draw is made on the CPU, so that a seed means the same draw on every device.
        drawn = torch.randperm(len(self._pixels), generator=self._sampler)[: self.stimuli_per_step].to(
            self._pixels.device
        )
        if self.mean == "dataset" and self._steps % max(1, len(self._pixels) // self.stimuli_per_step) == 0:
            self._means = self._dataset_means()
        unseen = running_statistics_kept(self._model[0]) if self.batch_norm == "task" else nullcontext()
        with unseen:
            features = self.taps.features(self._model[0], self._images(drawn))
        if self.mean == "lineage":
            self._update_running_means(features)
        means = [f.float().mean(0) for f in features] if self.mean == "batch" else self._means_like(features)
        layers = [layer_similarity(f, m) for f, m in zip(features, means, strict=True)]
        combined = combine_layers(layers, torch.softmax(self.theta, dim=0))
        self._notice_saturation(combined)
        self._steps += 1
        target = self._target[drawn[:, None], drawn[None, :]]
        return self.alpha * similarity_loss(combined, target, self.pairs, self.scale)

    @property
    def pairs_per_step(self) -> int:
        """How many pairs i < j one call compares."""
        n = self.stimuli_per_step
        return n * (n - 1) // 2 if self.pairs == "all" else n // 2

    @property
    def gamma(self) -> Float[torch.Tensor, " layer"]:
        """The layers' weights, softmax(theta): non-negative, summing to 1 (Eq. 10)."""
        return torch.softmax(self.theta.detach(), dim=0)

    def similarity(self, images: Float[torch.Tensor, "image channel h w"]) -> Float[torch.Tensor, "image image"]:
        """S_cnn of `images` (floats in [0, 1]): Eq. 9 and 10 with this gamma, in evaluation mode, float32.

        The mean is over exactly these images, of the kind that `mean` names: per channel for `lineage`, per feature
        otherwise. So it can be asked of any images, and asked again gives the same.
        """
        return combine_layers(self.layer_similarities(images), self.gamma)

    def layer_similarities(
        self, images: Float[torch.Tensor, "image channel h w"]
    ) -> list[Float[torch.Tensor, "image image"]]:
        """S of each tap (Eq. 9), as `similarity` combines them."""
        images = images if self.preprocess is None else self.preprocess(images)
        model = self._model[0]
        with torch.no_grad(), evaluating(model):
            chunks = [self.taps.features(model, part) for part in torch.split(images, _CHUNK)]
        features = [torch.cat(layer) for layer in zip(*chunks, strict=True)]
        return [
            layer_similarity(f, _channel_mean(f) if self.mean == "lineage" else f.float().mean(0)) for f in features
        ]

    def get_extra_state(self) -> dict[str, Any]:
        """What is not a parameter: running means, the sampler's random state and the step count."""
        return {"means": self._means, "sampler": self._sampler.get_state(), "steps": self._steps}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_extra_state` gave."""
        self._means = list(state["means"])
        self._sampler.set_state(state["sampler"].cpu())
        self._steps = state["steps"]

    def _images(self, rows: torch.Tensor | slice) -> torch.Tensor:
        images = (self._pixels[rows][:, None].float() / 255).to(like(self._model[0]).dtype)
        return images if self.preprocess is None else self.preprocess(images)

    def _tried_taps(self, taps: int | str | Sequence[str]) -> Taps:
        """Find the taps, and run the network once: what cannot work is told now, not in the first step."""
        model, images = self._model[0], self._images(slice(0, 2))
        try:
            given = [taps] if isinstance(taps, str) else taps
            names = evenly_spaced_stages(model, images, given) if isinstance(given, int) else list(given)
            found = Taps(model, names)
            with torch.no_grad(), evaluating(model):
                found.features(model, images)
        except RuntimeError as error:
            raise InputError(
                f"regularizer: the model cannot take stimuli of {tuple(images.shape[1:])} "
                f"({str(error).splitlines()[0][:120]}); fit them with preprocess=, "
                "e.g. lambda x: x.expand(-1, 3, -1, -1) for a colour network"
            ) from None
        return found

    def _means_like(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        """Keep the means where the features are: model and regulariser may have been moved since."""
        self._means = [mean.to(f.device) for mean, f in zip(self._means, features, strict=bool(self._means))]
        return self._means

    def _update_running_means(self, features: list[torch.Tensor]) -> None:
        with torch.no_grad():
            now = [_channel_mean(f) for f in features]
            old = self._means_like(features) or [torch.zeros_like(m) for m in now]
            self._means = [_KEPT * before + (1 - _KEPT) * new for before, new in zip(old, now, strict=True)]

    def _dataset_means(self) -> list[torch.Tensor]:
        total: list[torch.Tensor] = []
        model = self._model[0]
        with torch.no_grad(), evaluating(model):
            for start in range(0, len(self._pixels), _CHUNK):
                caught = self.taps.features(model, self._images(slice(start, start + _CHUNK)))
                sums = [f.double().sum(0) for f in caught]
                total = sums if not total else [t + s for t, s in zip(total, sums, strict=True)]
        return [(t / len(self._pixels)).float() for t in total]

    def _notice_forgotten_theta(self) -> None:
        """Warn once when theta gets gradients but no optimiser moves it."""
        if self.theta.grad is None or len(self.theta) == 1 or self._theta_unmoved < 0:
            return
        if bool(self.theta.detach().abs().max() > 0):
            self._theta_unmoved = -1  # it moves: nothing to say, ever
            return
        self._theta_unmoved += 1
        if self._theta_unmoved >= _PATIENCE:
            self._theta_unmoved = -1
            warnings.warn(
                "theta, the mix of layers, gets gradients but never changes: is it missing from the optimiser? "
                "SGD([*model.parameters(), *reg.parameters()], ...)",
                UserWarning,
                stacklevel=5,  # the user's own line, beyond nn.Module's two
            )

    def _notice_saturation(self, similarity: torch.Tensor) -> None:
        """Warn once when the network finds nearly all images the same: the clamped loss has no gradient there."""
        if self._saturation_said or self._steps % 10 != 9:  # now and then: it waits for a GPU
            return
        n = len(similarity)
        clamped = int((similarity.detach().abs() >= LARGEST_SIMILARITY).sum()) - n  # the diagonal always is
        if clamped > _NEARLY_ALL * (n * n - n):
            self._saturation_said = True
            warnings.warn(
                "the network's similarity is +-1 for nearly all pairs of stimuli, where the loss has no gradient: its "
                "features have collapsed; lower the learning rate or alpha, or use batch norm",
                UserWarning,
                stacklevel=5,
            )


def _channel_mean(features: torch.Tensor) -> torch.Tensor:
    """Return the mean over images and places of each channel, shaped to broadcast against one image's features.

    Channels are axis 1 of maps `(image, channel, height, width)` and the last axis of tokens `(image, token, channel)`.
    """
    channel = 2 if features.ndim == 3 else 1
    others = [axis for axis in range(features.ndim) if axis != channel]
    return features.float().mean(dim=others, keepdim=True).squeeze(0)
