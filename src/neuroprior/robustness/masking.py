"""Is a network's robustness an artefact? What Carlini et al. 2019 and AutoAttack ask, measured and put into words."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
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
from neuroprior.robustness.search import verified_lengths
from neuroprior.robustness.victim import Victim, margin
from neuroprior.types import InputError

FindingName = Literal[
    "random_answers",
    "probabilities",
    "few_classes",
    "zero_gradients",
    "decision_based_nearer",
    "more_steps_help",
    "more_restarts_help",
    "score_based_better",
    "transfer_better",
    "large_radius_withstood",
    "radius_tells_nothing",
]

_STEPS = (10, 30, 100, 300)
_RESTARTS = (1, 3, 10)
_RESTART_STEPS = 30
_SOME = 0.01  # of the images, or one of them: what a sound attack may miss
_NEARER, _OFTEN = 0.99, 0.05  # the decision-based attack nearer by 1 %, on more than so many images
_LARGE = 0.5  # linf: every image can be made gray
_UNREPEATABLE = 1e-3  # of the logits' spread
_ROUNDING = 1e-5  # of a radius: sums of many float32 steps


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was seen. `masks`: it says that gradients are masked; else only that results need care."""

    name: FindingName
    masks: bool
    says: str


@dataclass(frozen=True, slots=True)
class Masking:
    """What was measured of one network on `n` images, of which it classifies `right` rightly.

    `white_box_median`, `decision_median`: medians over those of the least verified length, by attacks with gradients
    and by `Boundary`, each from the image alone; inf where nothing was found. `decision_nearer`: the share of them for
    which the latter is nearer by more than 1 %. At `radius`: `steps`, `restarts`, what is left of accuracy after so
    many; `white_box_accuracy`, after all attacks with gradients together; `square_only`: the share of all images that
    withstand these and fall to Square. `transfer`: for each other network, accuracy on the points made on it, and the
    share of images that fall to them alone. `zero_gradients`: share of right images whose margin has none.
    `large_radius_accuracy`: at 0.5 in linf. `repeatable`: how far two passes differ, in spreads of the logits.
    """

    model: str
    norm: Norm
    radius: float
    n: int
    right: int
    classes: int
    repeatable: float
    zero_gradients: float
    white_box_median: float
    decision_median: float
    decision_nearer: float
    steps: tuple[tuple[int, float], ...]
    restarts: tuple[tuple[int, float], ...]
    white_box_accuracy: float
    square_only: float
    transfer: tuple[tuple[str, float, float], ...]
    large_radius_accuracy: float
    findings: tuple[Finding, ...]

    @property
    def masked(self) -> bool:
        """Whether anything found says so."""
        return any(finding.masks for finding in self.findings)

    @property
    def verdict(self) -> str:
        """In words, with the numbers behind them."""
        if not self.right:
            return f"cannot be judged: none of {self.n} images is classified rightly"
        said = [finding.says for finding in self.findings if finding.masks == self.masked]
        if self.masked:
            return "masking: " + "; ".join(said)
        transfer = max((alone for _, _, alone in self.transfer), default=0.0)
        sound = (
            f"no sign of masking on {self.right} rightly classified images of {self.n}: medians "
            f"{self.decision_median:.3g} by decisions alone, {self.white_box_median:.3g} by gradients (nearer by "
            f"decisions on {self.decision_nearer:.0%}); at {self.radius:.3g} the last steps bring {_gain(self.steps)} "
            f"points, the last restarts {_gain(self.restarts)}, scores alone {100 * self.square_only:.1f}, other "
            f"networks' points {100 * transfer:.1f}; nothing withstands {_LARGE:g} in linf"
        )
        return "; but ".join([sound, *said])


def _gain(curve: tuple[tuple[int, float], ...]) -> str:
    return f"{100 * (curve[-2][1] - curve[-1][1]):.1f}"


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
    linf radius of 0.5 leaves anything; where answers are random, or probabilities. `radius`: of those that are asked at
    one, in `norm`. `queries`: of `Boundary` and of `Square`, for each image. Draws depend on the image and `seed`.
    Raises `InputError` for images, labels, a norm or radius that cannot be asked about.
    """
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
        return replace(record, findings=tuple(_findings(record, self.probabilities)))


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
                within = torch.full((len(still),), _LARGE, device=images.device)
                x = attempt.images if start == "image" else start_within(attempt, attempt.rows, within, "start")
                ascend(attempt, attempt.rows, x, within, loss=LOSSES[loss], steps=100)
                left[still] = ~_fooled(attempt, _LARGE)
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


def _findings(seen: Masking, probabilities: bool) -> Iterator[Finding]:
    """What is out of the ordinary, most basic first."""
    some = max(_SOME, 1 / seen.n) * (1 + 1e-9)
    if seen.repeatable > _UNREPEATABLE:
        yield Finding(
            "random_answers",
            True,
            f"two passes over the same images differ by {seen.repeatable:.2g} of the logits' spread",
        )
    if probabilities:
        yield Finding("probabilities", True, "the network gives probabilities, whose gradients vanish: give its logits")
    if seen.classes < 4:
        yield Finding("few_classes", False, f"with {seen.classes} classes the DLR loss of AutoAttack is not defined")
    if seen.zero_gradients * seen.right > max(1, _SOME * seen.right):
        yield Finding(
            "zero_gradients", True, f"the margin's gradient is zero on {seen.zero_gradients:.0%} of the right images"
        )
    if seen.decision_nearer > max(_OFTEN, 1 / max(1, seen.right)):
        yield Finding(
            "decision_based_nearer",
            True,
            f"decisions alone come nearer than gradients on {seen.decision_nearer:.0%} of the right images (medians "
            f"{seen.decision_median:.3g} and {seen.white_box_median:.3g})",
        )
    saturating: tuple[tuple[FindingName, tuple[tuple[int, float], ...], str], ...] = (
        ("more_steps_help", seen.steps, "steps"),
        ("more_restarts_help", seen.restarts, "restarts"),
    )
    for name, of, what in saturating:
        (few, before), (many, after) = of[-2:]
        if before - after > some:
            told = f"{many} {what} leave {after:.1%} where {few} leave {before:.1%}: the attack has not come to its end"
            yield Finding(name, True, told)
    if seen.square_only > some:
        yield Finding(
            "score_based_better", True, f"scores alone fool another {seen.square_only:.1%} that withstand gradients"
        )
    for other, _, alone in seen.transfer:
        if alone > some:
            yield Finding(
                "transfer_better", True, f"points made on {other} fool another {alone:.1%} that withstand gradients"
            )
    if seen.right and seen.white_box_accuracy in (0.0, seen.right / seen.n):
        falls = "everything falls" if seen.white_box_accuracy == 0 else "nothing falls"
        yield Finding(
            "radius_tells_nothing",
            False,
            f"at a radius of {seen.radius:.3g} {falls}: steps, restarts, scores and transfer say nothing there",
        )
    if seen.large_radius_accuracy > 0:
        yield Finding(
            "large_radius_withstood",
            True,
            f"{seen.large_radius_accuracy:.1%} withstand a radius of {_LARGE:g} in linf, where nothing can",
        )
