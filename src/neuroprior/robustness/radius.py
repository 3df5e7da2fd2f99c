"""Accuracy under attack at given radii, by attacks of several kinds one after the other, as AutoAttack's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

import numpy as np
import torch
from torch import nn

from neuroprior.robustness.attacks.apgd import LOSSES, ascend, start_within
from neuroprior.robustness.attacks.attempt import Attempt
from neuroprior.robustness.attacks.brendel_bethge import BrendelBethge
from neuroprior.robustness.attacks.ddn import DDN
from neuroprior.robustness.attacks.geometry import Norm, largest_length
from neuroprior.robustness.attacks.square import Square
from neuroprior.robustness.audit import audit
from neuroprior.robustness.images import Images, Labels, checked_images
from neuroprior.robustness.verified import verified_lengths
from neuroprior.robustness.victim import Victim
from neuroprior.types import Float64, InputError

ROBUSTBENCH_RADII: Final = {"linf": 8 / 255, "l2": 0.5, "l1": 12.0}
"""The radii at which RobustBench ranks networks on CIFAR."""

Strength = Literal["quick", "standard"]
Stage = Literal["margin", "apgd_ce", "nearest", "apgd_targeted", "square"]

STAGES: Final[tuple[Stage, ...]] = get_args(Stage)

_AHEAD = 16  # batches of images that are attacked together, so that batches stay full as images fall
_ROUNDING = 6e-8  # of a value in [0, 1], in float32


@dataclass(frozen=True, slots=True)
class Effort:
    """How long each stage goes on; `targets` and `queries` may be 0."""

    margin_steps: int
    ce_steps: int
    targeted_steps: int
    targets: int
    nearest_steps: int
    queries: int


EFFORTS: Final[dict[str, Effort]] = {
    "quick": Effort(20, 30, 30, 3, 30, 0),
    "standard": Effort(20, 100, 100, 9, 100, 5000),
}


@dataclass(frozen=True, slots=True)
class AtRadius:
    """What the attacks left at one radius, of `n` images.

    `already_wrong`: without any attack, or answered with something not finite. `fooled`: how many others each stage has
    fooled (the one that came nearest, where an image has met several), stages in their order.
    `failed_checks`: wrong points that did not hold when they were looked at again; such an image goes on to the next
    stage. `forwards`, `gradients`: images asked at this radius, the checks among them.
    """

    radius: float
    accuracy: float
    n: int
    already_wrong: int
    fooled: tuple[tuple[Stage, int], ...]
    failed_checks: int
    forwards: int
    gradients: int


@dataclass(frozen=True, slots=True, eq=False)
class RadiusAccuracy:
    """`at`: one a radius, in the order asked for. Accuracies are upper bounds of the true ones."""

    norm: Norm
    strength: Strength
    at: tuple[AtRadius, ...]

    @property
    def radii(self) -> tuple[float, ...]:
        """As asked for."""
        return tuple(one.radius for one in self.at)

    @property
    def accuracy(self) -> Float64[np.ndarray, " radius"]:
        """0 to 1, at each radius."""
        return np.array([one.accuracy for one in self.at], dtype=np.float64)


def accuracy_under_attack(
    model: nn.Module | Victim,
    images: Images,
    labels: Labels,
    radii: Sequence[float | int] | float | int,
    *,
    norm: Norm = "linf",
    seed: int = 0,
    batch_size: int = 64,
    strength: Strength = "standard",
    progress: Callable[[float, str], None] | None = None,
) -> RadiusAccuracy:
    """The share of images for which no attack finds a wrong x', |x' - x|_p <= radius, x' in [0, 1]; true label.

    The attacks are of AutoAttack's kinds (Croce & Hein 2020), each on the images that still stand: APGD on the margin
    for 20 steps (which settles most images at a fiftieth of the cost), on cross-entropy for 100, Brendel & Bethge (in
    l2 DDN too) in FAB's place, APGD on targeted DLR for 100 steps at each of the 9 likeliest other classes, Square with
    5,000 queries (not in l1). An image is dropped at its first wrong point; one lost at a radius is lost at larger
    ones. Networks of fewer classes have fewer targets; below 4 DLR is not defined, and z_t - z_y stands for it.

    What is found counts once it was checked: finite, in [0, 1], within the radius in float64, wrong in another batch
    size. Random draws depend on the image and `seed` alone. A `Victim` brings its own batch size.
    Raises `InputError` for images, labels, radii or a network that no attack could be believed on (`audit`).
    """
    images, labels = checked_images("radius", images, labels)
    radii = [float(radius) for radius in np.atleast_1d(radii)]
    if not len(radii) or any(not radius >= 0 for radius in radii):
        raise InputError(f"radius: radii {list(radii)}; give at least one, none below 0")
    if norm not in ("linf", "l2", "l1") or strength not in EFFORTS:
        raise InputError(
            f"radius: norm {norm!r}, strength {strength!r}; give linf, l2 or l1, and {' or '.join(EFFORTS)}"
        )
    victim = model if isinstance(model, Victim) else Victim(model, batch_size=batch_size)
    audit(victim, images, labels)
    ascending = sorted({float(radius) for radius in radii})
    siege = _Siege(victim, norm, f"{seed}/radius", EFFORTS[strength])
    tally = {radius: _Tally() for radius in ascending}
    size = _AHEAD * victim.batch_size
    with victim.borrowed():
        for first in range(0, len(images), size):
            x = images[first : first + size].float().to(victim.device)
            y = labels[first : first + size].to(victim.device)

            def say(part: float, said: str, first: int = first, some: int = len(x)) -> None:
                if progress is not None:
                    progress((first + part * some) / len(images), said)

            siege.lay(x, y, tally, say)
    if progress is not None:
        progress(1.0, "done")
    return RadiusAccuracy(norm, strength, tuple(tally[float(r)].told(float(r), len(images)) for r in radii))


@dataclass(slots=True)
class _Tally:
    """What is counted at one radius, chunk by chunk."""

    standing: int = 0
    already_wrong: int = 0
    failed_checks: int = 0
    forwards: int = 0
    gradients: int = 0
    fooled: list[int] = field(default_factory=lambda: [0] * len(STAGES))

    def told(self, radius: float, n: int) -> AtRadius:
        """As a record."""
        return AtRadius(
            radius=radius,
            accuracy=self.standing / n,
            n=n,
            already_wrong=self.already_wrong,
            fooled=tuple(zip(STAGES, self.fooled, strict=True)),
            failed_checks=self.failed_checks,
            forwards=self.forwards,
            gradients=self.gradients,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Siege:
    """What is the same for all images and radii."""

    victim: Victim
    norm: Norm
    tag: str
    effort: Effort

    def lay(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        tally: dict[float, _Tally],
        say: Callable[[float, str], None],
    ) -> None:
        """Attack some images at every radius of the tally, the least first, and count."""
        victim = self.victim
        asked, climbed = victim.forwards, victim.gradients
        logits = victim.logits(images)
        right = (logits.argmax(1) == labels) & logits.isfinite().all(1)
        nearest = np.where(right.cpu().numpy(), np.inf, 0.0)  # the least verified length, and the stage that found it
        finder = np.full(len(images), -1)
        sought = np.zeros(len(images), dtype=bool)  # by the stage that works at all radii at once
        for k, (radius, now) in enumerate(tally.items()):
            for place, stage in enumerate(STAGES if radius > 0 else ()):
                say((k + place / len(STAGES)) / len(tally), f"radius {radius:.4g}: {stage}")
                standing = (nearest > radius) & ~sought if stage == "nearest" else nearest > radius
                sought |= standing & (stage == "nearest")
                for part in self._parts(stage, len(logits[0])):
                    rows = np.flatnonzero(standing & (nearest > radius))
                    if not len(rows):
                        break
                    at = torch.from_numpy(rows).to(images.device)
                    attempt = self._attempt(images[at], labels[at], f"{stage}/{part}/{radius!r}")
                    self._run(stage, part, attempt, radius, logits[at])
                    exact = verified_lengths(attempt)
                    claimed = attempt.found_length.cpu().numpy() <= radius
                    now.failed_checks += int((claimed & ~(exact <= radius)).sum())
                    nearer = exact < nearest[rows]
                    nearest[rows[nearer]], finder[rows[nearer]] = exact[nearer], place
            now.standing += int((nearest > radius).sum())
            now.already_wrong += int((~right).sum())
            for place in finder[(nearest <= radius) & (finder >= 0)]:
                now.fooled[place] += 1
            now.forwards += victim.forwards - asked
            now.gradients += victim.gradients - climbed
            asked, climbed = victim.forwards, victim.gradients

    def _parts(self, stage: Stage, classes: int) -> range:
        """A stage in its parts: targets, the likeliest first; after each the fooled images are dropped."""
        if stage == "apgd_targeted":
            return range(min(self.effort.targets, classes - 1))
        return range(0 if stage == "square" and (self.norm == "l1" or not self.effort.queries) else 1)

    def _attempt(self, images: torch.Tensor, labels: torch.Tensor, what: str) -> Attempt:
        return Attempt.alone(self.victim, images, labels, self.norm, f"{self.tag}/{what}")

    def _run(self, stage: Stage, part: int, attempt: Attempt, radius: float, logits: torch.Tensor) -> None:
        effort, rows = self.effort, attempt.rows
        # By so much a point on the surface may be outside once it is rounded.
        inner = max(0.5 * radius, radius - _ROUNDING * largest_length(attempt.images, self.norm))
        within = torch.full((len(rows),), inner, device=rows.device)
        if stage == "nearest":
            if self.norm == "l2":
                DDN(effort.nearest_steps)(attempt)
            BrendelBethge(steps=effort.nearest_steps)(attempt)
            attempt.tighten()
        elif stage == "square":
            Square(effort.queries)(attempt, rows, within)
        elif stage == "margin":
            ascend(attempt, rows, attempt.images, within, steps=effort.margin_steps)
        elif stage == "apgd_ce":
            start = start_within(attempt, rows, within, "start")
            ascend(attempt, rows, start, within, loss=LOSSES["ce"], steps=effort.ce_steps)
        else:
            others = logits.scatter(1, attempt.labels[:, None], -torch.inf)
            target = others.topk(part + 1, dim=1).indices[:, part]
            pairs = attempt.labels * logits.shape[1] + target
            start = start_within(attempt, rows, within, "start")
            loss = LOSSES["dlr_t"]
            ascend(attempt, rows, start, within, loss=loss, against=pairs, steps=effort.targeted_steps)
