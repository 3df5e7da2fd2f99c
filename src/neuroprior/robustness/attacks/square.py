"""Square attack (Andriushchenko et al. 2020): random search with squares at a fixed radius, by the margin alone."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from neuroprior.robustness.attacks.attempt import Attempt
from neuroprior.robustness.attacks.geometry import into_ball, length, over
from neuroprior.robustness.images import random_of
from neuroprior.types import Float, InputError, Int64

_BLOCK = 100  # queries whose draws are made at once
_FALLS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries: where the share of pixels is halved
_STANDS = 1e-30


@dataclass(frozen=True, slots=True)
class Square:
    """x <- x' where the margin is greater at x', which differs from x in a square of a share p of the pixels.

    linf: each channel of the square is `radius` above or below the image; it begins with stripes one pixel wide. l2:
    the change of one square is taken away, and another gets it, and what is left of the radius, as a bump of pyramids;
    it begins with a grid of bumps. p begins at `share` and is halved nine times. No gradient is asked for. A sample
    ends at its first wrong point. Where a square lies depends on the image and the attempt's tag, not on its company.
    """

    queries: int = 5000
    share: float = 0.8

    def __post_init__(self) -> None:
        if self.queries < 1 or not 0 < self.share <= 1:
            raise InputError(f"square: queries {self.queries}, share {self.share}; give 1 or more, and within (0, 1]")

    def __call__(
        self, attempt: Attempt, rows: Int64[torch.Tensor, " row"], radius: Float[torch.Tensor, " row"]
    ) -> None:
        """Run it on these samples, each within its radius; `attempt` keeps what is wrong."""
        if attempt.norm not in ("linf", "l2"):
            raise InputError(f"square: works in linf and l2, not {attempt.norm}; leave it out")
        channels, height, width = attempt.images.shape[1:]
        draws = [random_of(x, f"{attempt.tag}/square") for x in attempt.images[rows].cpu().numpy()]
        search = _LinfSearch if attempt.norm == "linf" else _L2Search
        state = search(attempt.images[rows], radius, draws)
        best = attempt.look(state.x, rows)
        going = torch.nonzero(best <= 0).squeeze(1)
        drawn = torch.empty(0)
        for query in range(self.queries - 1):
            if not len(going):
                return
            if query % _BLOCK == 0:
                values = [draws[row].random((_BLOCK, 4 + 2 * channels), dtype=np.float32) for row in going.tolist()]
                drawn = torch.from_numpy(np.stack(values)).to(rows.device)
                among = torch.arange(len(going), device=rows.device)
            side = self._side(query, height, width, attempt.norm)
            x = state.proposed(going, drawn[among, query % _BLOCK], side)
            value = attempt.look(x, rows[going])
            better = value > best[going]
            state.x[going[better]], best[going[better]] = x[better], value[better]
            on = value <= 0
            going, among = going[on], among[on]

    def _side(self, query: int, height: int, width: int, norm: str) -> int:
        """The side of the square of that query: a share p of the pixels, at least one (in l2 three, and odd)."""
        p = self.share / 2 ** sum(query * 10_000 / self.queries > fall for fall in _FALLS)
        side = max(1, min(round(math.sqrt(p * height * width)), min(height, width) - 1))
        return side if norm == "linf" else max(3, side + 1 - side % 2)


class _LinfSearch:
    """Where each sample stands, and what it tries next."""

    def __init__(self, clean: torch.Tensor, radius: torch.Tensor, draws: list[np.random.Generator]) -> None:
        channels, _, width = clean.shape[1:]
        signs = np.stack([random.integers(0, 2, (channels, 1, width)) for random in draws]) * 2.0 - 1
        self.clean, self.radius = clean, radius
        self.rows = torch.arange(clean.shape[2], device=clean.device)
        self.columns = torch.arange(width, device=clean.device)
        self.x = (clean + over(radius, clean) * torch.from_numpy(signs).to(clean)).clamp(0, 1)

    def proposed(self, going: torch.Tensor, drawn: torch.Tensor, side: int) -> torch.Tensor:
        """A square of each sample, every channel of it at one end of its range."""
        clean, channels = self.clean[going], self.clean.shape[1]
        signs = (drawn[:, 4 : 4 + channels] < 0.5).to(clean) * 2 - 1
        inside = _inside(self.rows, drawn[:, 0], side)[:, None, :, None]
        inside = inside & _inside(self.columns, drawn[:, 1], side)[:, None, None, :]
        end = clean + (signs * self.radius[going, None])[:, :, None, None]
        return torch.where(inside, end.clamp(0, 1), self.x[going])


class _L2Search:
    """Where each sample stands, and what it tries next."""

    def __init__(self, clean: torch.Tensor, radius: torch.Tensor, draws: list[np.random.Generator]) -> None:
        channels, height, width = clean.shape[1:]
        self.clean, self.radius = clean, radius
        side = max(3, min(height, width) // 5)
        delta = torch.zeros_like(clean)
        for top in range(0, height - side + 1, side):
            for left in range(0, width - side + 1, side):
                signs = np.stack([random.integers(0, 2, (channels, 1, 1)) for random in draws]) * 2.0 - 1
                delta[:, :, top : top + side, left : left + side] = torch.from_numpy(signs).to(clean) * _bump(side).to(
                    clean
                )
        self.x = self._at_the_end(clean, delta, radius)

    def proposed(self, going: torch.Tensor, drawn: torch.Tensor, side: int) -> torch.Tensor:
        """The change of one square moved to another, shaped as a bump, with what the radius still allows."""
        clean = self.clean[going]
        n, channels, height, width = clean.shape
        side = min(side, height, width)
        delta = self.x[going] - clean
        here, there = (_window(drawn[:, k : k + 2], side, height, width) for k in (0, 2))
        images = torch.arange(n, device=clean.device)[:, None, None, None]
        each = torch.arange(channels, device=clean.device)[None, :, None, None]
        new, old = (images, each, *here), (images, each, *there)
        kept = delta[new]
        outside = delta.clone()
        outside[new] = 0
        outside[old] = 0
        unused = (self.radius[going].square() - delta.flatten(1).square().sum(1)).clamp_min(0)
        signs = (drawn[:, 4 : 4 + channels] < 0.5).to(clean) * 2 - 1
        bump = _bump(side).to(clean).expand(n, channels, side, side)
        turned = (drawn[:, 4 + channels] < 0.5)[:, None, None, None]
        bump = torch.where(turned, bump.transpose(2, 3), bump) * signs[:, :, None, None]
        size = kept.flatten(2).norm(dim=2)[:, :, None, None]
        shape = bump + torch.where(size > 0, kept / size.clamp_min(_STANDS), 0)
        shape = shape / shape.flatten(2).norm(dim=2)[:, :, None, None].clamp_min(_STANDS)
        of_channel = (delta - outside).flatten(2).square().sum(2) + (unused / channels)[:, None]
        outside[new] = shape * of_channel.sqrt()[:, :, None, None]
        return self._at_the_end(clean, outside, self.radius[going])

    def _at_the_end(self, clean: torch.Tensor, delta: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
        """As long as the radius, then cut to [0, 1]."""
        delta = delta * over(radius / length(delta, "l2").clamp_min(_STANDS), delta)
        return (clean + into_ball(delta, radius, "l2")).clamp(0, 1)


def _inside(places: torch.Tensor, drawn: torch.Tensor, side: int) -> torch.Tensor:
    """Which rows (or columns) of each sample its square covers; drawn in [0, 1)."""
    first = (drawn * (len(places) - side + 1)).long()[:, None]
    return (places >= first) & (places < first + side)


def _window(drawn: torch.Tensor, side: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of the rows and the columns of each sample's square, shaped to index images."""
    within = torch.arange(side, device=drawn.device)
    top = (drawn[:, 0] * (height - side + 1)).long()[:, None] + within
    left = (drawn[:, 1] * (width - side + 1)).long()[:, None] + within
    return top[:, None, :, None], left[:, None, None, :]


def _bump(side: int) -> torch.Tensor:
    """Two halves of opposite sign, each of nested rectangles, the k-th from the middle worth 1 / k^2; of length 1."""
    upper = side // 2
    halves = torch.cat([_pyramid(upper, side), -_pyramid(side - upper, side)])
    length_one: torch.Tensor = halves / halves.norm()
    return length_one


def _pyramid(height: int, width: int) -> torch.Tensor:
    """sum_k 1 / k^2 over the rectangles around the middle that hold a pixel, k = 1 the least."""
    levels = height // 2 + 1
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None, :]
    value = torch.zeros(height, width)
    for k in range(1, levels + 1):
        far = levels - k
        up, left = min(far, (height - 1) // 2), far
        inside = (rows >= up) & (rows < height - up) & (columns >= left) & (columns < width - left)
        value += inside / k**2
    return value
