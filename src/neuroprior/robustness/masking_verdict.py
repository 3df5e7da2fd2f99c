"""The record of what was measured to tell masked gradients, and what follows from it in words."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from neuroprior.robustness.attacks.geometry import Norm

FindingName = Literal[
    "random_answers",
    "gradients_inside",
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

LARGE_RADIUS: Final = 0.5
"""In linf: every image can be made gray."""

_SOME = 0.01  # of the images, or one of them: what a sound attack may miss
_OFTEN = 0.05  # of the images: the decision-based attack may be nearer on so many
_UNREPEATABLE = 1e-3  # of the logits' spread


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
    `gradients_inside`: the network takes gradients while it answers.
    """

    model: str
    norm: Norm
    radius: float
    n: int
    right: int
    classes: int
    repeatable: float
    gradients_inside: bool
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
            f"networks' points {100 * transfer:.1f}; nothing withstands {LARGE_RADIUS:g} in linf"
        )
        return "; but ".join([sound, *said])


def _gain(curve: tuple[tuple[int, float], ...]) -> str:
    return f"{100 * (curve[-2][1] - curve[-1][1]):.1f}"


def findings_of(seen: Masking, probabilities: bool) -> Iterator[Finding]:
    """What is out of the ordinary, most basic first."""
    some = max(_SOME, 1 / seen.n) * (1 + 1e-9)
    if seen.repeatable > _UNREPEATABLE:
        yield Finding(
            "random_answers",
            True,
            f"two passes over the same images differ by {seen.repeatable:.2g} of the logits' spread",
        )
    if seen.gradients_inside:
        yield Finding(
            "gradients_inside",
            False,
            "the network takes gradients while it answers, and may adapt to an attack: ask it with attacks of its own",
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
            f"{seen.large_radius_accuracy:.1%} withstand a radius of {LARGE_RADIUS:g} in linf, where nothing can",
        )
