"""Is a network's robustness an artefact? What Carlini et al. 2019 and AutoAttack ask, measured and put into words."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import FrameType
from typing import Literal

import numpy as np
import torch
from torch import nn

from neuroprior.robustness.attacks.apgd import LOSSES, ascend, start_within
from neuroprior.robustness.attacks.attempt import Attempt
from neuroprior.robustness.attacks.boundary import Boundary
from neuroprior.robustness.attacks.brendel_bethge import BrendelBethge
from neuroprior.robustness.attacks.ddn import DDN
from neuroprior.robustness.attacks.geometry import Norm
from neuroprior.robustness.attacks.pgd import PGD
from neuroprior.robustness.attacks.registry import Attack
from neuroprior.robustness.attacks.square import Square
from neuroprior.robustness.audit import accept_gray
from neuroprior.robustness.images import Images, Labels, checked_images
from neuroprior.robustness.ledger import median
from neuroprior.robustness.masking_verdict import LARGE_RADIUS, Masking, findings_of
from neuroprior.robustness.verified import verified_lengths
from neuroprior.robustness.victim import Victim, margin
from neuroprior.types import InputError

_STEPS = (10, 30, 100, 300)
_RESTARTS = (1, 3, 10)
_RESTART_STEPS = 30
_NEARER = 0.99  # the decision-based attack is nearer by 1 %
_ROUNDING = 1e-5  # of a radius: sums of many float32 steps


def masking_report(
    models: Mapping[str, nn.Module | Victim],
    images: Images,
    labels: Labels,
    *,
    norm: Literal["linf", "l2"] = "linf",
    radius: float | int,
    queries: int = 2000,
    seed: int = 0,
    batch_size: int = 64,
    progress: Callable[[float, str], None] | None = None,
) -> tuple[Masking, ...]:
    """One `Masking` a network, in order: is what it withstands real, or only hidden from attacks by gradient?

    A network is flagged where an attack that sees less does better: decisions alone (`Boundary`) come nearer, scores
    alone (`Square`) or the adversarials of another network of `models` fool what gradients did not; where more steps or
    restarts still help by more than 1 point (or an image, if that is more); where gradients are exactly zero; where an
    linf radius of 0.5 leaves anything; where answers are random, or probabilities. Care is asked for where a network
    takes gradients while it answers. `radius`: of those that are asked at one, in `norm`. `queries`: of `Boundary` and
    of `Square`, for each image. Draws depend on the image and `seed`.
    Raises `InputError` for images, labels, a norm or radius that cannot be asked about.
    """
    if not isinstance(models, Mapping):
        raise InputError('masking: give the networks by name, {"mine": network}; several are compared with one another')
    images, labels = checked_images("masking", images, labels)
    if norm not in ("linf", "l2") or not radius > 0 or queries < 1 or not models:
        raise InputError(
            f"masking: {len(models)} networks, norm {norm!r}, radius {radius}, queries {queries}; give a network, "
            "linf or l2, a radius above 0, one query or more"
        )
    inquiries = [
        _Inquiry(name, model if isinstance(model, Victim) else Victim(model, batch_size=batch_size), norm, seed)
        for name, model in models.items()
    ]
    seen = list[_Seen]()
    for k, inquiry in enumerate(inquiries):

        def say(part: float, said: str, k: int = k, name: str = inquiry.name) -> None:
            if progress is not None:
                progress((k + part) / len(inquiries), f"{name}: {said}")

        with inquiry.victim.borrowed():
            seen.append(inquiry.see(images, labels, float(radius), queries, say))
    if progress is not None:
        progress(1.0, "done")
    return tuple(
        one.told(
            float(radius), inquiry.transfers(one, {i.name: s.points for i, s in zip(inquiries, seen, strict=True)})
        )
        for inquiry, one in zip(inquiries, seen, strict=True)
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """What was measured of one network by itself; arrays over all images."""

    name: str
    norm: Norm
    labels: torch.Tensor
    right: np.ndarray
    classes: int
    repeatable: float
    gradients_inside: bool
    probabilities: bool
    dead: np.ndarray
    white: np.ndarray
    decision: np.ndarray
    steps: tuple[tuple[int, float], ...]
    restarts: tuple[tuple[int, float], ...]
    standing: np.ndarray
    square: np.ndarray
    large: np.ndarray
    points: torch.Tensor

    def told(self, radius: float, transfer: tuple[tuple[str, float, float], ...]) -> Masking:
        """The record, with what follows from it."""
        right, n = self.right, len(self.right)
        of_right = max(1, int(right.sum()))
        nearer = right & (self.decision < _NEARER * self.white)
        fallen = self.standing & self.square
        record = Masking(
            model=self.name,
            norm=self.norm,
            radius=radius,
            n=n,
            right=int(right.sum()),
            classes=self.classes,
            repeatable=self.repeatable,
            gradients_inside=self.gradients_inside,
            zero_gradients=int((self.dead & right).sum()) / of_right,
            white_box_median=median(self.white[right]),
            decision_median=median(self.decision[right]),
            decision_nearer=int(nearer.sum()) / of_right,
            steps=self.steps,
            restarts=self.restarts,
            white_box_accuracy=float(self.standing.mean()),
            square_only=float(fallen.mean()),
            transfer=transfer,
            large_radius_accuracy=float(self.large.mean()),
            findings=(),
        )
        return replace(record, findings=tuple(findings_of(record, self.probabilities)))


@dataclass(frozen=True, slots=True, eq=False)
class _Inquiry:
    """One network, and how it is asked."""

    name: str
    victim: Victim
    norm: Norm
    seed: int

    def see(
        self, images: torch.Tensor, labels: torch.Tensor, radius: float, queries: int, say: Callable[[float, str], None]
    ) -> _Seen:
        """All that one network tells by itself."""
        victim = self.victim
        x, y = images.float().to(victim.device), labels.to(victim.device)
        say(0.0, "answers")
        logits = accept_gray(victim, x)
        if int(y.min()) < 0 or int(y.max()) >= logits.shape[1]:
            raise InputError(
                f"masking: labels span {int(y.min())} to {int(y.max())}, {self.name} has {logits.shape[1]} classes; "
                f"give labels 0 to {logits.shape[1] - 1}"
            )
        right = (logits.argmax(1) == y) & logits.isfinite().all(1)
        spread = float(logits[logits.isfinite()].std().nan_to_num(1.0).clamp_min(1e-12))
        _, gradient = victim.ascent(x, y, margin)
        dead = ~(gradient.flatten(1).abs().amax(1) > 0)
        rows = torch.nonzero(right).squeeze(1)
        asked, wanted = x[rows], y[rows]

        def of_all(values: np.ndarray, otherwise: float | bool) -> np.ndarray:
            whole = np.full(len(x), otherwise, dtype=values.dtype)
            whole[rows.cpu().numpy()] = values
            return whole

        def share(standing: np.ndarray) -> float:
            return int(standing.sum()) / len(x)

        first: Attack = PGD() if self.norm == "linf" else DDN()
        white = np.full(len(rows), np.inf)
        for k, (attack, repetition) in enumerate(((first, 0), (first, 1), (BrendelBethge(), 0))):
            say(0.05 + 0.08 * k, attack.name)
            white = np.minimum(white, self._lengths(attack, asked, wanted, attack.name, repetition))
        say(0.3, "boundary")
        decision = self._lengths(Boundary(queries), asked, wanted, "boundary")
        say(0.5, "steps")
        stands = white > radius
        steps = list[tuple[int, float]]()
        for count in _STEPS:
            left = self._left(asked, wanted, radius, count, "steps")
            steps.append((count, share(left)))
            stands &= left
        say(0.6, "restarts")
        left = np.ones(len(rows), dtype=bool)
        restarts = list[tuple[int, float]]()
        for k in range(_RESTARTS[-1]):
            still = np.flatnonzero(left)
            at = torch.from_numpy(still).to(x.device)
            left[still] = self._left(asked[at], wanted[at], radius, _RESTART_STEPS, f"restarts/{k}")
            if k + 1 in _RESTARTS:
                restarts.append((k + 1, share(left)))
        stands &= left
        say(0.7, "square")
        still = np.flatnonzero(stands)
        at = torch.from_numpy(still).to(x.device)
        square = np.zeros(len(rows), dtype=bool)
        square[still] = self._by_square(asked[at], wanted[at], radius, queries)
        say(0.8, "large radius")
        large = self._large(asked, wanted)
        say(0.9, "points for the other networks")
        points = self._points(x, y, radius)
        return _Seen(
            name=self.name,
            norm=self.norm,
            labels=y,
            right=right.cpu().numpy(),
            classes=logits.shape[1],
            repeatable=float((victim.logits(x) - logits).nan_to_num(0.0).abs().max()) / spread,
            gradients_inside=_takes_gradients(victim, x[:1]),
            probabilities=victim.outputs == "logits"
            and bool((logits >= 0).all() and ((logits.sum(1) - 1).abs() < 1e-3).all()),
            dead=dead.cpu().numpy(),
            white=of_all(white, 0.0),
            decision=of_all(decision, 0.0),
            steps=tuple(steps),
            restarts=tuple(restarts),
            standing=of_all(stands, False),
            square=of_all(square, False),
            large=of_all(large, False),
            points=points,
        )

    def transfers(self, mine: _Seen, points: Mapping[str, torch.Tensor]) -> tuple[tuple[str, float, float], ...]:
        """For each other network: the accuracy left at its points, and the share that falls to them alone."""
        given = []
        with self.victim.borrowed():
            for name, x in points.items():
                if name == self.name:
                    continue
                logits = self.victim.logits(x.to(mine.labels.device))
                wrong = ((logits.argmax(1) != mine.labels) & logits.isfinite().all(1)).cpu().numpy()
                given.append((name, float((mine.right & ~wrong).mean()), float((mine.standing & wrong).mean())))
        return tuple(given)

    def _attempt(self, images: torch.Tensor, labels: torch.Tensor, what: str, norm: Norm | None = None) -> Attempt:
        return Attempt.alone(self.victim, images, labels, norm or self.norm, f"{self.seed}/masking/{what}")

    def _lengths(
        self, attack: Attack, images: torch.Tensor, labels: torch.Tensor, what: str, repetition: int = 0
    ) -> np.ndarray:
        """The least verified length of each image by one attack; a batch at a time, for memory."""
        lengths = [np.zeros(0)]
        size = self.victim.batch_size
        for start in range(0, len(images), size):
            attempt = self._attempt(images[start : start + size], labels[start : start + size], what)
            attempt.repetition = repetition
            attack(attempt)
            attempt.tighten()
            lengths.append(verified_lengths(attempt))
        return np.concatenate(lengths)

    def _left(self, images: torch.Tensor, labels: torch.Tensor, radius: float, steps: int, what: str) -> np.ndarray:
        """Which images withstand an ascent of the margin from a drawn point."""
        if not len(images):
            return np.zeros(0, dtype=bool)
        attempt = self._attempt(images, labels, what)
        within = torch.full((len(images),), radius, device=images.device)
        ascend(attempt, attempt.rows, start_within(attempt, attempt.rows, within, "start"), within, steps=steps)
        return ~_fooled(attempt, radius)

    def _by_square(self, images: torch.Tensor, labels: torch.Tensor, radius: float, queries: int) -> np.ndarray:
        """Which images fall to scores alone."""
        if not len(images):
            return np.zeros(0, dtype=bool)
        attempt = self._attempt(images, labels, "square")
        Square(queries)(attempt, attempt.rows, torch.full((len(images),), radius, device=images.device))
        return _fooled(attempt, radius)

    def _large(self, images: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
        """Which images withstand what no image can: every loss in turn, from the image and from drawn points."""
        left = np.ones(len(images), dtype=bool)
        for loss in ("margin", "ce", "dlr"):
            for start in ("image", "drawn"):
                still = np.flatnonzero(left)
                if not len(still):
                    return left
                at = torch.from_numpy(still).to(images.device)
                attempt = self._attempt(images[at], labels[at], f"large/{loss}", "linf")
                within = torch.full((len(still),), LARGE_RADIUS, device=images.device)
                x = attempt.images if start == "image" else start_within(attempt, attempt.rows, within, "start")
                ascend(attempt, attempt.rows, x, within, loss=LOSSES[loss], steps=100)
                left[still] = ~_fooled(attempt, LARGE_RADIUS)
        return left

    def _points(self, images: torch.Tensor, labels: torch.Tensor, radius: float) -> torch.Tensor:
        """The worst point within the radius for this network, wrong or not."""
        attempt = self._attempt(images, labels, "points")
        within = torch.full((len(images),), radius, device=images.device)
        return ascend(attempt, attempt.rows, images, within, steps=100, stop=False)


def _fooled(attempt: Attempt, radius: float) -> np.ndarray:
    """For which images what was found holds when it is checked again, within the radius up to rounding."""
    fooled: np.ndarray = verified_lengths(attempt) <= radius * (1 + _ROUNDING)
    return fooled


def _takes_gradients(victim: Victim, images: torch.Tensor) -> bool:
    """Whether the network differentiates while it answers: AutoAttack's sign of a defence that adapts to its input."""
    engine = {torch.autograd.grad.__code__, torch.autograd.backward.__code__}
    taken = False

    def look(frame: FrameType, event: str, _: object) -> None:
        nonlocal taken
        taken |= event == "call" and frame.f_code in engine

    before = sys.getprofile()
    if before is not None and not callable(before):  # cProfile's, which could not be put back: its user goes first
        return False
    sys.setprofile(look)
    try:
        victim.logits(images)
    finally:
        sys.setprofile(before)
    return taken
