"""Jacobian-based saliency maps (Papernot et al. 2016): one pixel after the other; l0 and l1."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from neuroprior.robustness.attacks.attempt import Attempt
from neuroprior.robustness.attacks.geometry import Norm, length
from neuroprior.robustness.attacks.setting import setting_of

_LEAST = 0.02  # of the pixel range: shorter steps, where the model is wrong again and again, would use up all


@dataclass(frozen=True, slots=True)
class JSMA:
    """argmax_p s a_p * s b_p over pixels with s a_p > 0, s b_p > 0; that one moves by `theta`, then the next.

    a = d z_t / d x, b = -d (sum_{j != t} z_j) / d x, z the logits, t the class aimed at, s = +1 (brighter) or -1
    (darker). So many pixels `at_once` (published: two, which is faster, and coarser); a class is given up after
    `most_pixels`, where no pixel helps, or where a nearer adversarial is known. The `targets` classes that are
    likeliest for the clean image are aimed at in turn (a repetition: the next ones, round again, with some pixels
    favoured by up to two times, drawn for the image).
    Departures from what is published: pixels go both ways in one run; for l0 what counts is the whole change that a
    pixel can still make, a_p and b_p times its room; for l1 a step is no longer than the linear model of z_t less the
    others' mean needs.
    """

    name: ClassVar[str] = "jsma"
    norms: ClassVar[tuple[Norm, ...]] = ("l0", "l1")
    theta: float = 1.0
    targets: int = 3
    most_pixels: int = 100
    at_once: int = 1

    @property
    def setting(self) -> str:
        """As the ledger names it."""
        return setting_of(self, "theta", "targets")

    @property
    def most_gradients(self) -> int:
        """What a sample costs at most."""
        return self.targets * 2 * self._most_steps

    @property
    def _most_steps(self) -> int:
        return max(1, round(self.most_pixels / min(self.theta, 1.0) / self.at_once))

    def __call__(self, attempt: Attempt) -> None:
        """Run it on every sample of the batch."""
        everyone = attempt.rows
        logits = attempt.ask(attempt.images, everyone)
        ranked = logits.scatter(1, attempt.labels[:, None], -torch.inf).argsort(dim=1, descending=True)
        classes = logits.shape[1] - 1  # the true one stands last
        for k in range(min(self.targets, classes)):
            self._toward(attempt, ranked[:, (attempt.repetition * self.targets + k) % classes], classes)

    def _toward(self, attempt: Attempt, target: torch.Tensor, others: int) -> None:
        clean, norm = attempt.images, attempt.norm
        x, rows = clean.clone(), attempt.rows
        favour = torch.ones_like(clean).flatten(1)
        if attempt.repetition:
            drawn = attempt.drawn(rows, "favour", lambda random: random.uniform(0.5, 1.0, clean.shape[1:]))
            favour = drawn.flatten(1)
        for _ in range(self._most_steps):
            far = length(x[rows] - clean[rows], norm)
            rows = rows[attempt.may_go_on(rows, 2) & (far < attempt.bound[rows])]
            if not len(rows):
                return
            value, (toward, away) = attempt.climbs(x[rows], rows, losses=(_logit, _others), against=target[rows])
            on = value <= 0
            rows, value, toward, away = rows[on], value[on], toward[on], away[on]
            here = x[rows].flatten(1)
            up, down = toward.flatten(1), away.flatten(1)
            room = torch.where(up > 0, 1 - here, here).clamp_max(self.theta)
            fit = (up * down > 0) & (room > 0)
            worth = up * down * (room.square() if norm == "l0" else 1.0)
            best = torch.where(fit, worth * favour[rows], -1.0).topk(self.at_once, dim=1).indices
            helps = fit.gather(1, best)
            step = room.gather(1, best)
            if norm == "l1":
                # The slope of z_t less the others' mean: of two classes, just what has to cross zero.
                rise = (up + down / others).gather(1, best).abs()
                needed = -1.001 * value[:, None] / rise.clamp_min(1e-30)
                step = torch.minimum(step, needed.clamp_min(_LEAST))
            moved = here.gather(1, best) + up.gather(1, best).sign() * step * helps
            x[rows] = here.scatter(1, best, moved.clamp(0, 1)).reshape_as(x[rows])
            rows = rows[helps.any(1)]
        attempt.look(x[rows], rows)


def _logit(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """z_t."""
    return logits.gather(1, target[:, None]).squeeze(1)


def _others(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """-sum_{j != t} z_j."""
    return _logit(logits, target) - logits.sum(1)
