"""The step of Brendel & Bethge 2019: the point of a local boundary that is nearest to the clean image, not too far off.

For each image, with x the present point, d = x_0 - x, b the boundary's normal and c how far (in logits) it is:

    min_delta |delta - d|_p   s.t.  b . delta = c,  low <= delta <= high,  |delta|_2 <= r        (p = 1, 2 or inf)

Without the last condition the optimum `delta*` comes from one monotone, piecewise linear equation, solved exactly by
Newton's method for all images at once. `delta_min`, the shortest step onto the boundary, likewise. Where delta* is too
long, the answer is the farthest point within r on the way from delta_min to delta*: both ends, so all points between
them, keep to the boundary and the box, and nearer to delta* is nearer to x_0. Where no box constraint holds and p = 2
this is the exact optimum (the ball cuts a disc from the plane, with delta_min its centre). Where the boundary is out of
reach, the step goes towards it as far as r allows.

p = 0 has no such way between: half-way home is not home. `fewest_changed` says what is done there.
"""

from typing import NamedTuple

import torch

from neuroprior.robustness.attacks.geometry import Norm
from neuroprior.types import Float

_ROUNDS = 60

Rows = Float[torch.Tensor, "row pixel"]
Each = Float[torch.Tensor, " row"]


def nearest_on_boundary(d: Rows, b: Rows, c: Each, low: Rows, high: Rows, r: Each, norm: Norm) -> Rows:
    """The step delta of each row, as the head of this file says; `low` <= 0 <= `high`.

    A row whose `b` is 0 stays where it is.
    """
    if norm == "l0":
        return fewest_changed(d, b, c, low, high, r)
    zero = torch.zeros_like(d)
    shortest, reached = shifted_projection(zero, b, c, low, high)
    length = shortest.norm(dim=1)
    near = reached & (length <= r)
    scaled = shortest * (r / length.clamp_min(1e-30)).clamp_max(1)[:, None]  # straight towards it, if it is too far
    best = projection(d, b, c, low, high, norm)
    # |shortest + t (best - shortest)| = r, the larger root; t = 1 where best itself is within r
    way = best - shortest
    a, h, k = (way * way).sum(1), (shortest * way).sum(1), length.square() - r.square()
    root = (-h + (h.square() - a * k).clamp_min(0).sqrt()) / a.clamp_min(1e-30)
    t = torch.where(best.norm(dim=1) <= r, 1.0, root.clamp(0, 1))
    return torch.where(near[:, None], shortest + t[:, None] * way, scaled)


def projection(d: Rows, b: Rows, c: Each, low: Rows, high: Rows, norm: Norm) -> Rows:
    """argmin |delta - d|_p s.t. b . delta = c, low <= delta <= high; the nearest corner where the plane is not reached.

    p = 0 asks only for b . delta >= c where c lies above b . d, and for d itself where it does not.
    """
    if norm == "l0":
        return cardinality_projection(d, b, c, low, high)
    if norm == "l1":
        return taxicab_projection(d, b, c, low, high)
    return shifted_projection(d, b, c, low, high)[0] if norm == "l2" else chebyshev_projection(d, b, c, low, high)


class _Open(NamedTuple):
    """What Newton's method still works on: rows leave as they are solved."""

    d: torch.Tensor
    b: torch.Tensor
    c: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    at: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor
    tolerance: torch.Tensor


def shifted_projection(d: Rows, b: Rows, c: Each, low: Rows, high: Rows) -> tuple[Rows, torch.Tensor]:
    """argmin |delta - d|_2 s.t. b . delta = c, low <= delta <= high: delta = clip(d + lambda b), and whether it exists.

    b . clip(d + lambda b) rises with lambda, in straight pieces: Newton's method, kept inside a shrinking bracket.
    Where the equation has no solution, the nearest corner is given.
    """
    square = (b * b).clamp_min(1e-30)
    # Where each coordinate leaves its bounds: outside [least, most] of these lambda nothing moves any more.
    from_low, from_high = (low - d) * b / square, (high - d) * b / square
    least = torch.minimum(from_low, from_high).amin(1)
    most = torch.maximum(from_low, from_high).amax(1)
    most_reached = (b * torch.where(b > 0, high, low)).sum(1)
    least_reached = (b * torch.where(b > 0, low, high)).sum(1)
    exists = (least_reached <= c) & (c <= most_reached) & (b != 0).any(1)
    delta = torch.where((b > 0) == (c > 0)[:, None], high, low) * (b != 0)  # the corner, where there is no solution
    at = (c - (b * d.clamp(low, high)).sum(1)) / square.sum(1)
    at = at.clamp(least, most)
    tolerance = 1e-6 * (b.abs() * torch.maximum(high, -low)).sum(1)
    rows = torch.nonzero(exists).squeeze(1)
    open_rows = _Open(*(part[rows] for part in (d, b, c, low, high, at, least, most, tolerance)))
    for _ in range(_ROUNDS):
        if not len(rows):
            break
        d, b, c, low, high, at, left, right, tolerance = open_rows
        free_point = d + at[:, None] * b
        here = free_point.clamp(low, high)
        delta[rows] = here
        short = c - (b * here).sum(1)
        left, right = torch.where(short > 0, at, left), torch.where(short > 0, right, at)
        slope = (b * b * ((free_point > low) & (free_point < high))).sum(1)
        newton = at + short / slope.clamp_min(1e-30)
        at = torch.where((newton > left) & (newton < right), newton, (left + right) / 2)
        going = short.abs() > tolerance
        rows = rows[going]
        open_rows = _Open(*(part[going] for part in (d, b, c, low, high, at, left, right, tolerance)))
    return delta, exists


def chebyshev_projection(d: Rows, b: Rows, c: Each, low: Rows, high: Rows) -> Rows:
    """argmin |delta - d|_inf s.t. b . delta = c, low <= delta <= high.

    Within eps of d, b . delta reaches at most g(eps) = sum_i max over [max(low, d - eps), min(high, d + eps)] of b_i
    delta_i, which is concave: Newton's method from eps = 0 climbs to g(eps) = c and never passes it. (Mirrored where
    c lies below b . d.)
    """
    start = d.clamp(low, high)
    mirrored = c < (b * start).sum(1)
    b = torch.where(mirrored[:, None], -b, b)
    c = torch.where(mirrored, -c, c)
    room = torch.where(b > 0, high - d, d - low).clamp_min(0)  # how far each coordinate can go the useful way
    weight = b.abs()
    # d itself may lie outside the box by rounding; what it must come back by is counted from the start
    eps = torch.zeros_like(c)
    base = (b * start).sum(1)
    tolerance = 1e-6 * (weight * torch.maximum(high, -low)).sum(1)
    for _ in range(_ROUNDS):
        short = c - base - (weight * torch.minimum(room, eps[:, None])).sum(1)
        slope = (weight * (room > eps[:, None])).sum(1)
        going = (short > tolerance) & (slope > 0)
        if not bool(going.any()):
            break
        eps = torch.where(going, eps + short / slope.clamp_min(1e-30), eps)
    return start + b.sign() * torch.minimum(room, eps[:, None])


def taxicab_projection(d: Rows, b: Rows, c: Each, low: Rows, high: Rows) -> Rows:
    """argmin |delta - d|_1 s.t. b . delta = c, low <= delta <= high.

    A unit of length buys |b_i|: coordinates go to their bounds in the order of |b_i|, the last one as far as is needed.
    """
    start, b, missing, room = _from_home(d, b, c, low, high)
    weight, order = b.abs().sort(dim=1, descending=True)
    worth = weight * room.gather(1, order)
    left = missing[:, None] - (worth.cumsum(1) - worth)
    moved = (left / weight.clamp_min(1e-30)).clamp_min(0)
    moved = torch.minimum(moved, room.gather(1, order)) * (weight > 0)
    return start + b.sign() * torch.zeros_like(d).scatter(1, order, moved)


def cardinality_projection(d: Rows, b: Rows, c: Each, low: Rows, high: Rows) -> Rows:
    """argmin |delta - d|_0 s.t. b . delta >= c, low <= delta <= high (mirrored where c lies below b . d).

    Coordinates go to their bounds in the order of what they can bring, |b_i| times the room that they have.
    """
    start, b, missing, room = _from_home(d, b, c, low, high)
    worth, order = (b.abs() * room).sort(dim=1, descending=True)
    needed = (worth.cumsum(1) - worth < missing[:, None]) & (worth > 0)
    moved = room.gather(1, order) * needed
    return start + b.sign() * torch.zeros_like(d).scatter(1, order, moved)


def _from_home(d: Rows, b: Rows, c: Each, low: Rows, high: Rows) -> tuple[Rows, Rows, Each, Rows]:
    """d brought into the box; b mirrored so that more of it is wanted; how much, and each coordinate's way to go."""
    start = d.clamp(low, high)
    missing = c - (b * start).sum(1)
    b = torch.where((missing < 0)[:, None], -b, b)
    room = torch.where(b > 0, high - start, start - low).clamp_min(0)
    return start, b, missing.abs(), room


def fewest_changed(d: Rows, b: Rows, c: Each, low: Rows, high: Rows, r: Each) -> Rows:
    """A step to b . delta >= c within the box and |delta|_2 <= r that leaves few coordinates changed (delta_i != d_i).

    Coordinates are kept in the order of what they can bring, |b_i| times their way from home to the bound, those
    already changed before the others; all but the first m go home, and the first m take the shortest step (in l2) that
    makes up for it. m is the least for which this stays within r, by bisection: with fewer sent home everything is
    easier. Where no m does, nothing goes home and the step, of as few as can reach the boundary, is cut to r.
    """
    worth = b.abs() * torch.where(b > 0, high - d, d - low).clamp_min(0)
    # Ranks: the changed ones first; a worth is at most its row's largest, so adding that puts them ahead.
    ahead = (worth.amax(1, keepdim=True) + 1) * (d != 0)
    rank = (worth + ahead).argsort(dim=1, descending=True).argsort(dim=1)
    n = d.shape[1]

    def kept(m: torch.Tensor, rows: torch.Tensor) -> tuple[Rows, torch.Tensor, torch.Tensor]:
        """The step that keeps the first m, whether it reaches the boundary, and whether within r."""
        keep = rank[rows] < m[:, None]
        home = d[rows] * ~keep
        wanted = c[rows] - (b[rows] * home).sum(1)
        free = b[rows] * keep
        step, reached = shifted_projection(
            torch.zeros_like(home), free, wanted.clamp_min(0), low[rows] * keep, high[rows] * keep
        )
        reached = reached | (wanted <= 0)
        step = torch.where((wanted <= 0)[:, None], 0.0, step) + home
        return step, reached, reached & (step.norm(dim=1) <= r[rows])

    def least(passes: int) -> torch.Tensor:
        """The least m for which `kept` passes (1: reaches the boundary, 2: within r too); n + 1 where none does."""
        every = torch.arange(len(d), device=d.device)
        most = torch.full_like(every, n)
        under, upto = torch.full_like(every, -1), torch.where(kept(most, every)[passes], most, n + 1)
        rows = every[upto == n]
        while len(rows):
            middle = (under[rows] + upto[rows]) // 2
            good = kept(middle, rows)[passes]
            upto[rows], under[rows] = torch.where(good, middle, upto[rows]), torch.where(good, under[rows], middle)
            rows = rows[upto[rows] - under[rows] > 1]
        return upto

    every = torch.arange(len(d), device=d.device)
    m = least(2)
    step, _, _ = kept(m.clamp_max(n), every)
    lost = torch.nonzero(m > n).squeeze(1)
    if len(lost):
        changed = (d[lost] != 0).sum(1)
        far, _, _ = kept(torch.maximum(changed, least(1)[lost]).clamp_max(n), lost)
        far = far * (r[lost] / far.norm(dim=1).clamp_min(1e-30)).clamp_max(1)[:, None]
        step[lost] = far
    return step


def linear_optimum(images: torch.Tensor, value: Each, gradient: torch.Tensor, norm: Norm) -> torch.Tensor:
    """argmin |delta|_p s.t. value + gradient . delta = 0, images + delta in [0, 1]: the linear model's own optimum.

    The farthest corner where the model has no crossing in the box.
    """
    flat = images.flatten(1)
    found = projection(torch.zeros_like(flat), gradient.flatten(1), -value, -flat, 1 - flat, norm)
    return found.reshape_as(images)
