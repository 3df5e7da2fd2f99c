"""One attack setting against one batch: it asks the network, counts what it asks, and keeps the nearest wrong point."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from neuroprior.robustness.attacks.geometry import Norm, length, over
from neuroprior.robustness.images import random_of
from neuroprior.robustness.victim import Loss, Victim, margin
from neuroprior.types import Bool, Float, Float32, Int64


@dataclass(slots=True, eq=False)
class Attempt:
    """All that an attack may know, and all that it finds.

    `images`, `labels`: the samples, every one classified rightly. `known`, `known_length`: adversarials that earlier
    attempts found (length inf where there is none); an attack may start from them, and need not come back with worse.
    `max_gradients`: how many gradients each sample may still cost. `tag`: what its random draws depend on beside the
    image itself, so that no sample's result depends on the others. `repetition` 0 begins where the attack's authors
    do; later ones begin elsewhere.

    Any point that an attack looks at counts: the nearest misclassified one of each sample stands in `found`, its
    length in `found_length`.
    """

    victim: Victim
    images: Float32[torch.Tensor, "image channel h w"]
    labels: Int64[torch.Tensor, " image"]
    norm: Norm
    known: Float32[torch.Tensor, "image channel h w"]
    known_length: Float32[torch.Tensor, " image"]
    max_gradients: Int64[torch.Tensor, " image"]
    tag: str
    repetition: int
    found: torch.Tensor = field(init=False)
    found_length: torch.Tensor = field(init=False)
    forwards: torch.Tensor = field(init=False)
    gradients: torch.Tensor = field(init=False)
    unsound: torch.Tensor = field(init=False)
    """Samples for which the network gave something not finite where the attack wanted to climb: it ends there."""
    improvements: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        n, device = len(self.images), self.images.device
        self.found = self.images.clone()
        self.found_length = torch.full((n,), torch.inf, device=device)
        self.forwards = torch.zeros(n, dtype=torch.int64, device=device)
        self.gradients = torch.zeros(n, dtype=torch.int64, device=device)
        self.unsound = torch.zeros(n, dtype=torch.bool, device=device)

    @classmethod
    def alone(
        cls,
        victim: Victim,
        images: Float32[torch.Tensor, "image channel h w"],
        labels: Int64[torch.Tensor, " image"],
        norm: Norm,
        tag: str,
    ) -> "Attempt":
        """One that knows of no others, and may cost what it costs."""
        unknown = torch.full((len(images),), torch.inf, device=images.device)
        unlimited = torch.full((len(images),), 2**62, device=images.device)
        return cls(victim, images, labels, norm, images, unknown, unlimited, tag, 0)

    @property
    def rows(self) -> Int64[torch.Tensor, " row"]:
        """All samples of the batch, to begin with."""
        return torch.arange(len(self.images), device=self.images.device)

    @property
    def bound(self) -> Float[torch.Tensor, " image"]:
        """The least length so far, of this attempt or of earlier ones."""
        return torch.minimum(self.found_length, self.known_length)

    def may_go_on(self, rows: Int64[torch.Tensor, " row"], gradients: int = 1) -> Bool[torch.Tensor, " row"]:
        """Which of these samples may still be asked for so many gradients, and were answered soundly so far."""
        return (self.gradients[rows] + gradients <= self.max_gradients[rows]) & ~self.unsound[rows]

    def look(
        self, x: Float[torch.Tensor, "row channel h w"], rows: Int64[torch.Tensor, " row"]
    ) -> Float[torch.Tensor, " row"]:
        """The margin (positive: wrong) at a point of each of these samples; one forward pass a sample.

        Where the network gives something not finite, the point is no adversarial, and that is all.
        """
        if not len(rows):
            return x.new_zeros(0)
        return self._keep(x, rows, self.ask(x, rows))

    def ask(
        self, x: Float[torch.Tensor, "row channel h w"], rows: Int64[torch.Tensor, " row"]
    ) -> Float[torch.Tensor, "row class"]:
        """The logits at a point of each of these samples, which is not kept; one forward pass a sample."""
        self.forwards[rows] += 1
        return self.victim.logits(x)

    def climb(
        self,
        x: Float[torch.Tensor, "row channel h w"],
        rows: Int64[torch.Tensor, " row"],
        *,
        loss: Loss = margin,
        against: Int64[torch.Tensor, " row"] | None = None,
    ) -> tuple[Float[torch.Tensor, " row"], Float[torch.Tensor, "row channel h w"]]:
        """The margin at a point of each of these samples, and the gradient of `loss` there.

        `loss` is called with the logits and `against`: by default the true labels, else a class for each sample.
        """
        value, (gradient,) = self.climbs(x, rows, losses=(loss,), against=against)
        return value, gradient

    def climbs(
        self,
        x: Float[torch.Tensor, "row channel h w"],
        rows: Int64[torch.Tensor, " row"],
        *,
        losses: Sequence[Loss],
        against: Int64[torch.Tensor, " row"] | None = None,
    ) -> tuple[Float[torch.Tensor, " row"], list[Float[torch.Tensor, "row channel h w"]]]:
        """As `climb`, with the gradients of several losses, each of which counts."""
        if not len(rows):
            return x.new_zeros(0), [torch.zeros_like(x) for _ in losses]
        logits, gradients = self.victim.ascents(x, self.labels[rows] if against is None else against, losses)
        self.forwards[rows] += 1
        self.gradients[rows] += len(losses)
        for gradient in gradients:
            self.unsound[rows] |= ~gradient.flatten(1).isfinite().all(1) | ~logits.isfinite().all(1)
        return self._keep(x, rows, logits), [gradient.nan_to_num(0.0, 0.0, 0.0) for gradient in gradients]

    def _keep(self, x: torch.Tensor, rows: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        labels = self.labels[rows]
        far = length(x - self.images[rows], self.norm)
        # The prediction decides, as it will for whoever checks: on a tie the margin alone does not say.
        wrong = (logits.argmax(1) != labels) & logits.isfinite().all(1)
        nearer = wrong & (far < self.found_length[rows])
        if bool(nearer.any()):
            which = rows[nearer]
            self.found[which] = x[nearer]
            self.found_length[which] = far[nearer]
            kept = (which, self.forwards[which], self.gradients[which], far[nearer])
            self.improvements.append(tuple(values.cpu().numpy() for values in kept))  # type: ignore[arg-type]
        found = margin(logits, labels)
        return torch.where(wrong, found.clamp_min(1e-12), found.clamp_max(0.0)).nan_to_num(0.0, 0.0, 0.0)

    def drawn(
        self, rows: Int64[torch.Tensor, " row"], part: str, draw: Callable[[np.random.Generator], np.ndarray]
    ) -> Float[torch.Tensor, "row channel h w"]:
        """What `draw` makes of a generator for each sample, seeded by its pixels and `tag`: no company matters."""
        pixels = self.images[rows].cpu().numpy()
        values = [draw(random_of(image, f"{self.tag}/{part}")) for image in pixels]
        return torch.from_numpy(np.stack(values).astype(np.float32)).to(self.images.device)

    def random_offset(
        self, rows: Int64[torch.Tensor, " row"], radius: Float[torch.Tensor, " row"]
    ) -> Float[torch.Tensor, "row channel h w"]:
        """A direction drawn for each sample, of l2 length `radius`."""
        shape = self.images.shape[1:]
        noise = self.drawn(rows, "offset", lambda random: random.standard_normal(shape, dtype=np.float32))
        return noise * over(radius / length(noise, "l2"), noise)

    def tighten(self) -> None:
        """Bisect the straight way from each image to the point found for it: the same direction, no farther."""
        if self.norm == "l0":
            return  # on the way as many pixels are changed as at its end
        rows = torch.nonzero(self.found_length < torch.inf).squeeze(1)
        # The points are mostly near the boundary already: first see whether 2 % less would do.
        self.bisect(rows, self.found[rows], steps=10, first=0.98)

    def bisect(
        self,
        rows: Int64[torch.Tensor, " row"],
        ends: Float[torch.Tensor, "row channel h w"],
        *,
        steps: int,
        first: float = 0.5,
    ) -> Float[torch.Tensor, "row channel h w"]:
        """The nearest wrong point seen on the straight way from each image to a wrong one, after `steps` looks or when
        the boundary is known to 0.05 % of its distance; `first`: how far along the way the first look is.
        """
        images = self.images[rows]
        near, far = torch.zeros(len(rows), device=images.device), torch.ones(len(rows), device=images.device)
        going = torch.arange(len(rows), device=images.device)
        for step in range(steps):
            if not len(going):
                break
            low, high = near[going], far[going]
            middle = first * high if step == 0 else (low + high) / 2
            way = ends[going] - images[going]
            wrong = self.look(images[going] + over(middle, way) * way, rows[going]) > 0
            far[going], near[going] = torch.where(wrong, middle, high), torch.where(wrong, low, middle)
            going = going[(far[going] - near[going]) > 5e-4 * far[going]]
        return images + over(far, images) * (ends - images)
