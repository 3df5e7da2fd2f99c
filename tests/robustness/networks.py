"""Networks small enough to attack in a test, and the way a test runs one attack."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from neuroprior.robustness.attacks import Attack, Attempt, Norm
from neuroprior.robustness.victim import Victim


class Linear(nn.Module):
    """z = 10 W (x - 1/2), rows of W of about unit length."""

    def __init__(self, pixels: int, classes: int, seed: int = 0):
        super().__init__()
        drawn = torch.randn(classes, pixels, generator=torch.Generator().manual_seed(seed))
        self.weight = nn.Parameter(10 * drawn / pixels**0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - 0.5).flatten(1) @ self.weight.T


@dataclass(frozen=True, slots=True)
class Solved:
    """Samples that a network classifies rightly, and the exact length of the shortest way to be wrong."""

    net: nn.Module
    images: torch.Tensor
    labels: torch.Tensor
    optimum: torch.Tensor


def solved(pixels: int, classes: int, norm: Norm, *, n: int = 40, seed: int = 0, apart: float = 1.0) -> Solved:
    """min_j (z_y - z_j) / |w_y - w_j|_q, q the dual norm; only samples whose nearest wrong point lies in [0, 1].

    For l0 and l1 the box counts: pixels go to their bounds in the order of |w_i| times their room (l0) or |w_i| (l1).
    `apart`: how far each image is moved towards its class, so that more of it has to change.
    Samples on the boundary already are left out: their optimum drowns in float32.
    """
    net = Linear(pixels, classes, seed)
    side = int(pixels**0.5)
    drawn = torch.randn(400, 1, side, side, generator=torch.Generator().manual_seed(seed + 1))
    images = 0.5 + 0.1 * drawn.clamp(-3, 3)
    if apart != 1:
        own = net.weight.detach()[net(images).argmax(1)].reshape(images.shape)
        images = (images + 0.02 * apart * own.sign() * (pixels / 64) ** -0.5).clamp(0.2, 0.8)
    x, w = images.double().flatten(1), net.weight.detach().double()
    z = (x - 0.5) @ w.T
    labels = z.argmax(1)
    between = w[labels][:, None] - w[None]  # sample, class, pixel
    gap = z.gather(1, labels[:, None]) - z
    if norm in ("l0", "l1"):
        optimum = sparse_optimum(x, between, gap, norm)
        fit = (optimum < torch.inf) & (optimum > 0.1 * optimum.median())
        chosen = torch.nonzero(fit).squeeze(1)[:n]
        assert len(chosen) == n
        return Solved(net, images[chosen], labels[chosen], optimum[chosen])
    if norm == "l2":
        size = between.norm(dim=2)
        ahead = between / size.clamp_min(1e-30)[:, :, None]
    else:
        size, ahead = between.abs().sum(2), between.sign()
    far = torch.where(size > 0, gap / size.clamp_min(1e-30), torch.inf)
    optimum, nearest = far.min(1)
    rows = torch.arange(len(x))
    wrong = x - optimum[:, None] * ahead[rows, nearest]
    fit = ((wrong >= 0) & (wrong <= 1)).all(1) & (optimum > 0.1 * optimum.median())
    chosen = torch.nonzero(fit).squeeze(1)[:n]
    assert len(chosen) == n
    return Solved(net, images[chosen], labels[chosen], optimum[chosen])


def sparse_optimum(x: torch.Tensor, between: torch.Tensor, gap: torch.Tensor, norm: Norm) -> torch.Tensor:
    """The fewest pixels, or the least sum of changes, by sorting; inf where no class can be reached in the box."""
    best = torch.full((len(x),), torch.inf, dtype=x.dtype)
    for image, (pixels, ways, gaps) in enumerate(zip(x, between, gap, strict=True)):
        for way, missing in zip(ways, gaps, strict=True):
            if not bool(way.any()):
                continue
            room = torch.where(way > 0, pixels, 1 - pixels)  # the margin rises against z_y - z_j
            worth = way.abs() * room
            order = (worth if norm == "l0" else way.abs()).argsort(descending=True)
            reached = worth[order].cumsum(0)
            if reached[-1] < missing:
                continue
            last = int((reached < missing).sum())
            before = reached[last - 1] if last else torch.zeros_like(missing)
            partly = (missing - before) / way.abs()[order[last]]
            far = torch.as_tensor(last + 1.0) if norm == "l0" else room[order[:last]].sum() + partly
            best[image] = torch.minimum(best[image], far.to(x.dtype))
    return best


class Combination(nn.Module):
    """Class 1 where each of the first twelve pixels is on its side of 1/2, by turns above and below; else class 0.

    z = (0, max(m, -0.05)) with m = min_i s_i (x_i - 1/2): flat wherever one pixel is clearly on the wrong side, and
    neither noise, nor black, white or gray opens it. Class 1 ends min_i s_i (x_i - 1/2) away, in l2 and in linf.
    """

    signs = torch.tensor([1.0, -1.0] * 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        open_by = (self.signs * (x.flatten(1)[:, :12] - 0.5)).amin(1)
        return torch.stack([torch.zeros_like(open_by), open_by.clamp_min(-0.05)], dim=1)


class NanNear(nn.Module):
    """Two classes by the mean of all pixels but the first; NaN near the boundary where the first pixel is bright."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(1)
        above = flat[:, 1:].mean(1) - 0.5
        broken = (flat[:, 0] > 0.8) & (above.abs() < 0.05)
        above = torch.where(broken, torch.nan, above)
        return torch.stack([-above, above], dim=1)


def small_cnn() -> nn.Sequential:
    """A gray 16x16 network of ten classes, trained in about a second."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 4, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 4, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)
    )  # fmt: skip


def published(data, name):
    """A network of a certified-robustness library, its scaling in front, and 200 test images of CIFAR-10."""
    with np.load(data("robust/cifar10_test200_rgb.npz")) as kept:
        pixels = next(kept[key] for key in kept.files if kept[key].ndim == 4)
        labels = next(kept[key] for key in kept.files if kept[key].ndim == 1 and kept[key].dtype.kind in "iu")

    class Scale(nn.Module):
        def forward(self, x):
            mean, std = (torch.tensor(v).view(1, 3, 1, 1) / 255 for v in ([125.3, 123.0, 113.9], [63.0, 62.1, 66.7]))
            return (x - mean) / std

    body = nn.Sequential(
        nn.Conv2d(3, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(2048, 100), nn.ReLU(), nn.Linear(100, 10),
    )  # fmt: skip
    kept = torch.load(data(f"robust/cifar_cnn_a_{name}.pth"), weights_only=True)
    body.load_state_dict(kept.get("state_dict", kept))
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float() / 255
    return nn.Sequential(Scale(), body).eval(), images, torch.from_numpy(labels).long()


def attempted(
    attack: Attack,
    victim: Victim,
    images: torch.Tensor,
    labels: torch.Tensor,
    norm: Norm,
    *,
    repetition: int = 0,
    max_gradients: torch.Tensor | None = None,
    known: torch.Tensor | None = None,
    known_length: torch.Tensor | None = None,
    tighten: bool = True,
) -> Attempt:
    """Run one attack setting as a search does; without `known`, from the images alone."""
    attempt = Attempt(
        victim=victim,
        images=images,
        labels=labels,
        norm=norm,
        known=images.clone() if known is None else known,
        known_length=torch.full((len(images),), torch.inf) if known_length is None else known_length,
        max_gradients=torch.full((len(images),), 2**62) if max_gradients is None else max_gradients,
        tag="test",
        repetition=repetition,
    )
    with victim.borrowed():
        attack(attempt)
        if tighten:
            attempt.tighten()
    return attempt
