"""How fast the network is here, and what it keeps: passes and steps done a few times, tensors counted."""

import copy
from functools import cache, cached_property

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from neuroprior.classifier import ResNet
from neuroprior.experiment.forecast.needs import median_seconds
from neuroprior.experiment.recipe import Recipe
from neuroprior.experiment.steps.training import new_regularizer
from neuroprior.modes import evaluating
from neuroprior.types import SimilarityTarget, Stimuli

_TRIAL_SECONDS = 1.0  # a training step longer than this is tried with fewer images, at two sizes, and extrapolated
_CONVOLUTIONS_BESIDE = 3  # of a layer's output, in a forward pass that keeps nothing: input, output, the shortcut


class NetworkTrial:
    """The network of a recipe, fresh, and what its passes take; `image`: shape of a task's, (channel, h, w)."""

    def __init__(self, recipe: Recipe, image: tuple[int, ...], classes: int, stimuli: Stimuli) -> None:
        self.recipe = recipe
        self.device = recipe.compute.device
        self.image, self.stimuli = image, stimuli
        self.network = ResNet(
            recipe.network.architecture,
            width=recipe.network.width,
            classes=classes,
            channels=image[0],
        ).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.bytes = 4 * sum(p.numel() for p in self.network.parameters())

    @cached_property
    def forward(self) -> float:
        """Seconds of a forward pass, an image."""
        batch = torch.rand(32, *self.image, device=self.device)
        with torch.inference_mode(), evaluating(self.network):
            self.network(batch)
            return median_seconds(lambda: float(self.network(batch).sum())) / len(batch)

    @cache  # noqa: B019 - lives as long as the forecast
    def rate(self, *, training: bool) -> float:
        """Operations a second, 2 a multiply-add, of this machine: of a training step, or of a forward pass."""
        with FlopCounterMode(display=False) as counter:
            self._on_meta().eval()(torch.empty(1, *self.image, device="meta"))
        forward = counter.get_total_flops()
        if not training:
            return float(forward / self.forward)
        # The backward pass is two more: for the layer's input, and for its weights.
        return float(3 * forward * self.recipe.training.batch_size / self.step_seconds(0))

    @cache  # noqa: B019 - lives as long as the forecast
    def step_seconds(self, stimuli: int) -> float:
        """Seconds of a training step: tried as it is, or where that is long, extrapolated from two smaller ones."""
        batch = self.recipe.training.batch_size
        sizes = [part for part in (8, 4, 1) if batch // part >= 2 and (not stimuli or stimuli // part >= 2)]
        small, large = sizes[0], sizes[min(1, len(sizes) - 1)]
        quick = self._try_step(batch // small, stimuli // small)
        if quick * small <= _TRIAL_SECONDS or small == large:
            return self._try_step(batch, stimuli)
        slow = self._try_step(batch // large, stimuli // large)
        slope = (slow - quick) / (1 / large - 1 / small)  # seconds = fixed part + slope * part of a batch
        return slow + slope * (1 - 1 / large)

    def _try_step(self, images: int, stimuli: int) -> float:
        network = self.network.train()
        regularizer = None
        if stimuli:
            shown = self.stimuli.select(self.stimuli.ids[: max(stimuli, 2)])
            eye = np.eye(len(shown), dtype=np.float32)
            options = self.recipe.regularizer.model_copy(update={"stimuli_per_step": len(shown), "every": 1})
            target = SimilarityTarget(eye, shown.ids, shown.digest, "user")
            regularizer = new_regularizer(options, network, target, shown, seed=0)
        parameters = [*network.parameters(), *(regularizer.parameters() if regularizer is not None else ())]
        optimizer = torch.optim.SGD(parameters, 1e-6, momentum=0.9)
        batch = torch.rand(images, *self.image, device=self.device)
        labels = torch.zeros(images, dtype=torch.long, device=self.device)

        def step() -> None:
            with torch.autocast(self.device, torch.bfloat16, enabled=self.recipe.compute.precision == "bfloat16"):
                loss = F.cross_entropy(network(batch), labels)
                loss = loss if regularizer is None else loss + regularizer()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            float(loss.detach())  # waits for a GPU to finish

        step()
        return median_seconds(step)

    def kept_bytes(self, stimuli: int) -> float:
        """Bytes that a step keeps for its backward pass, with as much again as its largest map takes thrice."""
        seen: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            seen[storage._cdata] = storage.nbytes()
            return tensor

        network = self._on_meta()
        batch = self.recipe.training.batch_size
        shapes = [(batch, *self.image)]
        if stimuli:
            shapes.append((stimuli, self.image[0], *self.stimuli.pixels.shape[1:]))
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            kept = [network(torch.empty(shape, device="meta")) for shape in shapes]
        half: float = 0.5 if self.recipe.compute.precision == "bfloat16" else 1.0
        largest = max(4 * self.recipe.network.width * shape[0] * shape[2] * shape[3] for shape in shapes)
        del kept
        return half * float(sum(seen.values()) + _CONVOLUTIONS_BESIDE * largest)

    def forward_bytes(self, images: int) -> float:
        """Bytes of a forward pass of so many images."""
        return _CONVOLUTIONS_BESIDE * 4.0 * images * self.recipe.network.width * float(np.prod(self.image[1:]))

    def tap_sizes(self) -> list[int]:
        """Values a stimulus at each of the network's stages."""
        sizes = []
        x = torch.empty(1, self.image[0], *self.stimuli.pixels.shape[1:], device="meta")
        network = self._on_meta()
        for stage in ResNet.stages:
            x = getattr(network, stage)(x)
            sizes.append(x.numel())
        return sizes

    def _on_meta(self) -> nn.Module:
        network: nn.Module = copy.deepcopy(self.network).to("meta")
        return network.train()
