"""What is asked of the network: which images make a batch, and its loss. Eq. 7 allows any."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import nn
from torch.nn import functional as F

from neuroprior.classifier.episodes import EpisodeLoss, episode_rows
from neuroprior.modes import evaluating
from neuroprior.types import Float, InputError, Int64

_VALIDATION_EPISODES = 50
_EVALUATED_AT_ONCE = 500


@runtime_checkable
class Task(Protocol):
    """`batch_size` images a step; the rows of an epoch's batches; the loss of one; loss and accuracy of many images."""

    @property
    def batch_size(self) -> int:
        """How many images a batch has."""

    def epoch(
        self, labels: Int64[torch.Tensor, " image"], random: torch.Generator
    ) -> Int64[torch.Tensor, "step batch"]:
        """Draw the batches of one epoch."""

    def loss(
        self,
        network: nn.Module,
        images: Float[torch.Tensor, "batch channel h w"],
        labels: Int64[torch.Tensor, " batch"],
    ) -> Float[torch.Tensor, ""]:
        """Return the mean loss of one batch."""

    def evaluate(
        self,
        network: nn.Module,
        images: Float[torch.Tensor, "image channel h w"],
        labels: Int64[torch.Tensor, " image"],
    ) -> tuple[float, float]:
        """Return mean loss and accuracy in evaluation mode; the network keeps the mode it was in."""


@dataclass(frozen=True, slots=True)
class Classification:
    """Cross-entropy of the logits; each image once an epoch, the last, smaller batch left out."""

    batch_size: int = 64

    def epoch(
        self, labels: Int64[torch.Tensor, " image"], random: torch.Generator
    ) -> Int64[torch.Tensor, "step batch"]:
        """Batch norm sees equal batches."""
        steps = len(labels) // self.batch_size
        if steps == 0:
            raise InputError(f"training: {len(labels)} training images are fewer than one batch of {self.batch_size}")
        return torch.randperm(len(labels), generator=random)[: steps * self.batch_size].view(steps, -1)

    def loss(
        self,
        network: nn.Module,
        images: Float[torch.Tensor, "batch channel h w"],
        labels: Int64[torch.Tensor, " batch"],
    ) -> Float[torch.Tensor, ""]:
        """-log softmax(z)_y, averaged."""
        return F.cross_entropy(network(images), labels)

    def evaluate(
        self,
        network: nn.Module,
        images: Float[torch.Tensor, "image channel h w"],
        labels: Int64[torch.Tensor, " image"],
    ) -> tuple[float, float]:
        """Cross-entropy, and the part of images whose largest logit is the label's."""
        loss = 0.0
        right = 0
        with torch.no_grad(), evaluating(network):
            for part, wanted in zip(
                torch.split(images, _EVALUATED_AT_ONCE), torch.split(labels, _EVALUATED_AT_ONCE), strict=True
            ):
                logits = network(part)
                loss += float(F.cross_entropy(logits, wanted, reduction="sum"))
                right += int((logits.argmax(1) == wanted).sum())
        return loss / len(images), right / len(images)


@runtime_checkable
class HasCore(Protocol):
    """A network that gives its features before the classifier."""

    def core(self, images: torch.Tensor) -> torch.Tensor:
        """Return `(image, feature)`."""


@dataclass(frozen=True, slots=True)
class FewShotTask:
    """Few-shot learning (Snell et al. 2017): each batch is one episode; the network's core is trained, not its head.

    As many episodes an epoch as there are batches of images.
    """

    episode: EpisodeLoss = field(default_factory=EpisodeLoss)

    @property
    def batch_size(self) -> int:
        """Images of an episode: shots and queries."""
        return self.episode.batch_size

    def epoch(
        self, labels: Int64[torch.Tensor, " image"], random: torch.Generator
    ) -> Int64[torch.Tensor, "step batch"]:
        """Episodes drawn anew."""
        return self._episodes(labels, max(1, len(labels) // self.batch_size), random)

    def loss(
        self,
        network: nn.Module,
        images: Float[torch.Tensor, "batch channel h w"],
        labels: Int64[torch.Tensor, " batch"],
    ) -> Float[torch.Tensor, ""]:
        """The prototypical-network loss of the core's features."""
        return self.episode(_core(network)(images), labels)

    def evaluate(
        self,
        network: nn.Module,
        images: Float[torch.Tensor, "image channel h w"],
        labels: Int64[torch.Tensor, " image"],
    ) -> tuple[float, float]:
        """Mean loss and accuracy of the same fixed episodes at each call."""
        e = self.episode
        with torch.no_grad(), evaluating(network):
            features = torch.cat([_core(network)(part).float() for part in torch.split(images, _EVALUATED_AT_ONCE)])
        rows = self._episodes(labels.cpu(), _VALIDATION_EPISODES, torch.Generator().manual_seed(0))
        loss = sum(float(e(features[one], labels[one])) for one in rows.to(labels.device)) / len(rows)
        grid = features[rows.to(labels.device)].view(len(rows), e.ways, e.shots + e.queries, -1)
        prototypes, queries = grid[:, :, : e.shots].mean(2), grid[:, :, e.shots :].flatten(1, 2)
        wanted = torch.arange(e.ways, device=labels.device).repeat_interleave(e.queries)
        return loss, float((torch.cdist(queries, prototypes).argmin(2) == wanted).float().mean())

    def _episodes(self, labels: torch.Tensor, n: int, random: torch.Generator) -> torch.Tensor:
        e = self.episode
        return torch.stack(
            [episode_rows(labels, ways=e.ways, shots=e.shots, queries=e.queries, random=random) for _ in range(n)]
        )


def _core(network: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    if not isinstance(network, HasCore):
        raise InputError(f"few-shot task: {type(network).__name__} has no method core(images) -> features; give it one")
    return network.core
