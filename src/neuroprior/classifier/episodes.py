"""Few-shot learning as a task: episodes of few images of few classes, and the prototypical-network loss of one."""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from neuroprior.types import Float, InputError, Int64

__all__ = ["EpisodeLoss", "episode_rows"]


@dataclass(frozen=True, slots=True)
class EpisodeLoss:
    """L = mean_q CE(softmax_k(-|z_q - c_k|^2), k_q), with c_k = mean_s z_s (Snell et al. 2017, Eq. 1 and 2).

    A batch is one episode: of each of `ways` classes `shots` images, which make the prototype c_k, and `queries`
    images, which are classified. Without knowledge L is log `ways`.
    """

    ways: int = 5
    shots: int = 5
    queries: int = 5

    def __post_init__(self) -> None:
        _check_sizes(self.ways, self.shots, self.queries)

    @property
    def batch_size(self) -> int:
        """How many images an episode has."""
        return self.ways * (self.shots + self.queries)

    def __call__(
        self, features: Float[torch.Tensor, "image feature"], labels: Int64[torch.Tensor, " image"]
    ) -> Float[torch.Tensor, ""]:
        """Return the loss of one episode: of each class the first `shots` rows are its shots, in whatever order.

        `features`: z, before the classifier, with their gradient; the loss is float32 at least, also under autocast.
        Raises `InputError` naming the class with too few or too many images.
        """
        each = self.shots + self.queries
        classes, counts = torch.unique(labels, return_counts=True)
        if len(classes) != self.ways:
            raise InputError(
                f"episode: a batch of {len(classes)} classes for {self.ways} ways; draw it with episode_rows"
            )
        if bool((counts != each).any()):
            k = int((counts != each).nonzero()[0, 0])
            raise InputError(
                f"episode: class {int(classes[k])} has {int(counts[k])} images in the batch; it must have {self.shots} "
                f"shots + {self.queries} queries = {each}; draw it with episode_rows"
            )
        order = labels.argsort(stable=True)
        z = features[order].to(torch.promote_types(features.dtype, torch.float32)).reshape(self.ways, each, -1)
        prototype = z[:, : self.shots].mean(dim=1)
        query = z[:, self.shots :].flatten(0, 1)
        squared_distance = (query[:, None] - prototype).square().sum(dim=2)
        wanted = torch.arange(self.ways, device=features.device).repeat_interleave(self.queries)
        return F.cross_entropy(-squared_distance, wanted)


def episode_rows(
    labels: Int64[torch.Tensor, " image"], *, ways: int, shots: int, queries: int, random: torch.Generator
) -> Int64[torch.Tensor, " row"]:
    """Draw one episode: `ways` classes of `labels`, and `shots` + `queries` images of each, all without replacement.

    Returns rows of `labels`, class after class, shots before queries; what is drawn follows from `random` and `labels`.
    Raises `InputError` for fewer classes than `ways`, or naming a class (drawn or not) with too few images.
    """
    _check_sizes(ways, shots, queries)
    each = shots + queries
    classes, counts = torch.unique(labels, return_counts=True)
    if len(classes) < ways:
        raise InputError(f"episode: {len(classes)} classes for {ways} ways; lower ways, or add images of other classes")
    if bool((counts < each).any()):
        k = int(counts.argmin())
        raise InputError(
            f"episode: class {int(classes[k])} has {int(counts[k])} images for {shots} shots + {queries} queries; "
            "lower these, or leave the class out"
        )
    rows = []
    for drawn in classes[torch.randperm(len(classes), generator=random)[:ways]]:
        of_class = (labels == drawn).nonzero()[:, 0]
        rows.append(of_class[torch.randperm(len(of_class), generator=random)[:each]])
    return torch.cat(rows)


def _check_sizes(ways: int, shots: int, queries: int) -> None:
    if ways < 2 or shots < 1 or queries < 1:
        raise InputError(
            f"episode: ways {ways}, shots {shots}, queries {queries}; at least 2 ways, 1 shot and 1 query are needed"
        )
