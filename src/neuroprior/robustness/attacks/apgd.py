"""Auto-PGD (Croce & Hein 2020, 2021): projected ascent whose step size looks after itself; linf, l2 and l1."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal, NamedTuple

import torch
from torch.nn import functional as F

from neuroprior.robustness.attacks.attempt import Attempt
from neuroprior.robustness.attacks.geometry import (
    Norm,
    into_ball,
    largest_length,
    length,
    linear_length,
    over,
    steepest,
)
from neuroprior.robustness.victim import Loss, margin
from neuroprior.types import Float, InputError, Int64

_MOMENTUM = 0.75  # of the step, the rest of the step before
_RISING = 0.75  # the share of steps since the last checkpoint that must have brought more, or steps are halved


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """log sum_j exp z_j - z_y."""
    return F.cross_entropy(logits, labels, reduction="none")


def logit_ratio(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """-(z_y - max_{j != y} z_j) / (z_(1) - z_(3)), z_(k) the k-th largest: the same for all multiples of z (DLR).

    With two classes only: the margin itself.
    """
    if logits.shape[1] < 3:
        return margin(logits, labels)
    largest = logits.topk(3, dim=1).values
    return margin(logits, labels) / (largest[:, 0] - largest[:, 2]).clamp_min(1e-12)


def targeted_ratio(logits: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """-(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2); `pairs`: y times the number of classes, plus t.

    With fewer than four classes: z_t - z_y itself.
    """
    true, target = pairs // logits.shape[1], pairs % logits.shape[1]
    ahead = (logits.gather(1, target[:, None]) - logits.gather(1, true[:, None])).squeeze(1)
    if logits.shape[1] < 4:
        return ahead
    largest = logits.topk(4, dim=1).values
    return ahead / (largest[:, 0] - (largest[:, 2] + largest[:, 3]) / 2).clamp_min(1e-12)


LOSSES: Final[Mapping[str, Loss]] = {
    "margin": margin,
    "ce": cross_entropy,
    "dlr": logit_ratio,
    "dlr_t": targeted_ratio,
}


@dataclass(slots=True, eq=False)
class Told:
    """A loss that keeps the values it gave, for whoever asked only for its gradient."""

    loss: Loss
    values: list[torch.Tensor] = field(default_factory=list)

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss."""
        value = self.loss(logits, labels)
        self.values.append(value.detach())
        return value

    def taken(self, n: int) -> torch.Tensor:
        """The values since the last call, fillers of the last batch left out."""
        value = torch.cat(self.values)[:n]
        self.values.clear()
        return value.nan_to_num(-torch.inf, torch.inf, -torch.inf)


class _Climb(NamedTuple):
    """What the ascent remembers of each sample that it still works on."""

    rows: torch.Tensor
    radius: torch.Tensor
    eta: torch.Tensor
    x: torch.Tensor
    before: torch.Tensor
    gradient: torch.Tensor
    value: torch.Tensor
    best: torch.Tensor
    best_gradient: torch.Tensor
    best_value: torch.Tensor
    rises: torch.Tensor
    halved: torch.Tensor
    best_then: torch.Tensor


def ascend(
    attempt: Attempt,
    rows: Int64[torch.Tensor, " row"],
    start: Float[torch.Tensor, "row channel h w"],
    radius: Float[torch.Tensor, " row"],
    *,
    loss: Loss = margin,
    against: Int64[torch.Tensor, " row"] | None = None,
    steps: int = 100,
    stop: bool = True,
) -> Float[torch.Tensor, "row channel h w"]:
    """x+ = P(x + a (P(x + eta s(g)) - x) + (1 - a) (x - x-)), a = 3/4, P onto ball and [0, 1], s(g) the steepest way.

    eta begins at 2 `radius`. At checkpoints (0.22 of all `steps`, each interval 0.03 shorter than the last, 0.06 at
    least) it is halved, and x goes back to the best point, if fewer than 3/4 of the steps since raised the loss, or if
    neither eta nor the best value changed since the last one. In l1 see `_ascend_sparsely`.

    Points looked at are kept by `attempt`. `stop`: a sample ends at its first wrong point. Returns the point of
    greatest loss of each sample.
    """
    if attempt.norm == "l1":
        return _ascend_sparsely(attempt, rows, start, radius, loss, against, steps, stop)
    norm, told, checkpoints = attempt.norm, Told(loss), _checkpoints(steps)
    found = start.clone()
    place = torch.arange(len(rows), device=rows.device)  # of each sample still worked on among those given
    last = 0
    now: _Climb | None = None
    x, before = start, start
    for k in range(steps + 1):
        going = rows[place]
        margins, gradient = attempt.climb(x, going, loss=told, against=None if against is None else against[place])
        if not len(going):
            break
        value = told.taken(len(going))
        if now is None:
            zero = torch.zeros_like(place)
            now = _Climb(
                going, radius, 2 * radius, x, before, gradient, value, x, gradient, value, zero, zero > 0, value
            )
        else:
            better = value > now.best_value
            now = now._replace(
                x=x,
                before=before,
                gradient=gradient,
                rises=now.rises + (value > now.value),
                value=value,
                best=torch.where(over(better, x), x, now.best),
                best_gradient=torch.where(over(better, x), gradient, now.best_gradient),
                best_value=torch.where(better, value, now.best_value),
            )
        if k in checkpoints:
            now = _looked_back(now, k - last)
            last = k
        on = attempt.may_go_on(going) & ~((margins > 0) & stop)
        if k == steps or not bool(on.all()):
            left = ~on | (k == steps)
            found[place[left]] = now.best[left]
            place, now = place[~left], _Climb(*(part[~left] for part in now))
        clean = attempt.images[now.rows]
        wide = now.radius

        def inside(point: torch.Tensor, clean: torch.Tensor = clean, wide: torch.Tensor = wide) -> torch.Tensor:
            return (clean + into_ball(point - clean, wide, norm)).clamp(0, 1)

        ahead = inside(now.x + over(now.eta, clean) * steepest(now.gradient, norm))
        if k:
            ahead = inside(now.x + _MOMENTUM * (ahead - now.x) + (1 - _MOMENTUM) * (now.x - now.before))
        x, before = ahead, now.x
    return found


def _checkpoints(steps: int) -> frozenset[int]:
    at, interval = 0, 22  # hundredths of the steps, whole ones so that no rounding moves a checkpoint
    found = set()
    while at + interval <= 100:
        at += interval
        found.add(math.ceil(at * steps / 100))
        interval = max(interval - 3, 6)
    return frozenset(found)


def _looked_back(now: _Climb, steps: int) -> _Climb:
    few = now.rises < _RISING * steps
    stuck = ~now.halved & (now.best_value <= now.best_then)
    halve = few | stuck
    back = over(halve, now.x)
    return now._replace(
        eta=torch.where(halve, now.eta / 2, now.eta),
        x=torch.where(back, now.best, now.x),
        before=torch.where(back, now.best, now.before),
        gradient=torch.where(back, now.best_gradient, now.gradient),
        value=torch.where(halve, now.best_value, now.value),
        rises=torch.zeros_like(now.rises),
        halved=halve,
        best_then=now.best_value,
    )


def _ascend_sparsely(
    attempt: Attempt,
    rows: torch.Tensor,
    start: torch.Tensor,
    radius: torch.Tensor,
    loss: Loss,
    against: torch.Tensor | None,
    steps: int,
    stop: bool,
) -> torch.Tensor:
    """x <- P(x + eta s(g)), s(g) the signs of the k largest |g_i|, of l1 length 1; P onto ball and box at once.

    After every 25th part of the steps k becomes what the best point has changed / 1.5; where that moved k by less than
    5 %, eta is divided by 1.5 (to a tenth of the radius at least) and x goes back to the best point, else eta is the
    radius again. The first 3/10 of the steps are in a ball three times as wide, the next in one twice as wide.
    """
    clean, told = attempt.images[rows], Told(loss)
    n = clean[0].numel()
    stages = [round(part * steps) for part in (0.3, 0.6)]
    period = max(1, round(0.04 * steps))
    x, best = start.clone(), start.clone()
    best_value = torch.full_like(radius, -torch.inf)
    changed, eta, wide = torch.full_like(radius, 0.2 * n), 3 * radius, 3 * radius
    going = torch.arange(len(rows), device=rows.device)
    for k in range(steps + 1):
        if k in (0, *stages):
            wide = radius * (3 - (0, *stages).index(k))
            eta = wide.clone()
            x[going] = best[going] = _into_ball_and_box(best[going], clean[going], wide[going])
            best_value[going] = -torch.inf
        asked = None if against is None else against[going]
        margins, gradient = attempt.climb(x[going], rows[going], loss=told, against=asked)
        if not len(going):
            break
        value = told.taken(len(going))
        better = value > best_value[going]
        best[going[better]], best_value[going[better]] = x[going[better]], value[better]
        far = length(x[going] - clean[going], "l1")
        on = attempt.may_go_on(rows[going]) & ~((margins > 0) & stop & (far <= radius[going] * (1 + 1e-6)))
        going, gradient = going[on], gradient[on]
        if k and k % period == 0:
            now = (best[going] != clean[going]).flatten(1).sum(1) / 1.5
            alike = (now / changed[going] - 1).abs() < 0.05
            eta[going] = torch.where(alike, torch.maximum(eta[going] / 1.5, wide[going] / 10), wide[going])
            x[going[alike]] = best[going[alike]]
            changed[going] = now.clamp_min(1)
        size = gradient.flatten(1).abs()
        count = (changed[going].long().clamp(1, n) - 1)[:, None]
        least = size.sort(dim=1, descending=True).values.gather(1, count)
        signs = (gradient.flatten(1).sign() * (size >= least)).reshape_as(gradient)
        ahead = signs * over(eta[going] / length(signs, "l1").clamp_min(1e-30), signs)
        x[going] = _into_ball_and_box(x[going] + ahead, clean[going], wide[going])
    return best


def _into_ball_and_box(point: torch.Tensor, clean: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """argmin |x - point|_2 s.t. |x - clean|_1 <= radius, 0 <= x <= 1: all changes less the same s, then cut to the box.

    The length left falls with s in straight pieces: Newton's method inside a shrinking bracket.
    """
    delta = (point - clean).flatten(1)
    size, room = delta.abs(), torch.where(delta > 0, 1 - clean.flatten(1), clean.flatten(1))
    low, high = torch.zeros_like(radius), size.amax(1)
    s = low
    for _ in range(60):
        less = size - s[:, None]
        excess = torch.minimum(less.clamp_min(0), room).sum(1) - radius
        low, high = torch.where(excess > 0, s, low), torch.where(excess > 0, high, s)
        going = (high > low) & (excess.abs() > 3e-6 * radius)
        if not bool(going.any()):
            break
        newton = s + excess / ((less > 0) & (less < room)).sum(1).clamp_min(1)
        ahead = torch.where((newton > low) & (newton < high), newton, (low + high) / 2)
        s = torch.where(going, ahead, s)
    left = torch.minimum((size - s[:, None]).clamp_min(0), room)
    return (clean + (delta.sign() * left).reshape_as(clean)).clamp(0, 1)


def start_within(
    attempt: Attempt, rows: Int64[torch.Tensor, " row"], radius: Float[torch.Tensor, " row"], part: str
) -> Float[torch.Tensor, "row channel h w"]:
    """A point drawn for each sample, on the ball's surface but for what [0, 1] cuts off."""
    clean = attempt.images[rows]
    if attempt.norm == "linf":
        noise = attempt.drawn(rows, part, lambda random: random.uniform(-1, 1, clean.shape[1:]))
    else:
        noise = attempt.drawn(rows, part, lambda random: random.standard_normal(clean.shape[1:]))
    moved = noise * over(radius / length(noise, attempt.norm).clamp_min(1e-30), noise)
    return (clean + moved).clamp(0, 1)


@dataclass(frozen=True, slots=True)
class APGD:
    """Auto-PGD (see `ascend`) at radii searched for each sample: the least at which something wrong is found.

    The radius begins where the margin's linear model says, is doubled or halved until one fails and a larger one
    succeeds, and then bisected (geometrically) until they are `tolerance` apart. A radius succeeds at its first wrong
    point, whose own length becomes the upper end; it fails after `steps` steps. Each ascent begins at the best point of
    the last, brought into the new ball. Where an adversarial is known, the first question is whether anything lies
    `tolerance` nearer. `loss`: `margin`, cross-entropy `ce`, or `dlr`, which is that of Croce & Hein.
    """

    name: ClassVar[str] = "apgd"
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2", "l1")
    steps: int = 50
    loss: Literal["margin", "ce", "dlr"] = "margin"
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        if self.loss not in ("margin", "ce", "dlr") or self.steps < 1 or not 0 < self.tolerance < 1:
            raise InputError(
                f"apgd: loss {self.loss!r}, steps {self.steps}, tolerance {self.tolerance}; give a loss of margin, ce "
                "or dlr, one step or more, a tolerance between 0 and 1"
            )

    @property
    def setting(self) -> str:
        """As the ledger names it."""
        finer = "" if self.tolerance == 0.01 else f",tolerance={self.tolerance:g}"
        return f"steps={self.steps},loss={self.loss}{finer}"

    @property
    def most_gradients(self) -> int:
        """What a sample costs at worst: 24 radii from the largest to the least, and those inside a bracket of two."""
        inside = math.ceil(math.log2(math.log(2) / math.log1p(self.tolerance)))
        return (24 + max(1, inside)) * (self.steps + 1) + 1

    def __call__(self, attempt: Attempt) -> None:
        """Run it on every sample of the batch."""
        rows, norm, clean = attempt.rows, attempt.norm, attempt.images
        largest = largest_length(clean, norm)
        least = 1e-7 * largest
        low = torch.zeros(len(clean), device=clean.device)
        warm = attempt.bound < torch.inf
        loss = LOSSES[self.loss]
        value, gradient = attempt.climb(clean, rows)
        linear = 1.5 * linear_length(value, gradient, norm)
        stride = torch.full_like(low, self.tolerance)
        radius = torch.where(warm, attempt.bound * (1 - stride), linear).clamp(least, largest)
        x = start_within(attempt, rows, radius, "start") if attempt.repetition else clean.clone()
        rows = rows[attempt.may_go_on(rows)]
        while len(rows):
            inside = into_ball(x[rows] - clean[rows], radius[rows], norm)
            before = attempt.bound[rows]
            x[rows] = ascend(
                attempt, rows, (clean[rows] + inside).clamp(0, 1), radius[rows], loss=loss, steps=self.steps
            )
            high = attempt.bound[rows]
            reached = high < before
            low[rows] = torch.where(reached, low[rows], torch.maximum(low[rows], radius[rows]))
            stride[rows] = torch.where(reached, (2 * stride[rows]).clamp_max(0.5), stride[rows])
            below = torch.where(warm[rows], high * (1 - stride[rows]), high / 2)
            above = torch.where(high < torch.inf, (low[rows] * high).sqrt(), 2 * low[rows])
            radius[rows] = torch.where(low[rows] > 0, above, below).clamp(least, largest)
            done = (high <= low[rows] * (1 + self.tolerance) / (1 - 1e-6)) | (low[rows] >= largest) | (high <= least)
            rows = rows[~done & attempt.may_go_on(rows)]
