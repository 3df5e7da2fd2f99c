"""Accuracy under an Linf attack of fixed radius: projected gradient ascent (Madry et al. 2018) on the margin."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from neuroprior.modes import evaluating, like
from neuroprior.robustness.images import Images, Labels, checked_images, logits_of, random_of
from neuroprior.robustness.victim import margin
from neuroprior.types import Float, Float64, InputError, Int64


@dataclass(frozen=True, slots=True, eq=False)
class LinfCurve:
    """Accuracy (0 to 1) that the attack left at each radius, over `n` images: an upper bound of the true one."""

    radii: tuple[float, ...]
    accuracy: Float64[np.ndarray, " radius"]
    n: int


def linf_accuracy(
    model: nn.Module,
    images: Images,
    labels: Labels,
    radii: Sequence[float | int] | float | int,
    *,
    steps: int = 50,
    restarts: int = 1,
    seed: int = 0,
    batch_size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> LinfCurve:
    """x <- x + 2 eps (1 - k / steps) sign(d margin / dx), cut to |x - x_0| <= eps and [0, 1]; untargeted, true label.

    margin = max_{j != y} z_j - z_y of the logits z; an image is lost once any point of any restart is misclassified,
    and is then lost at all larger radii too. Starts are uniform in the ball (the first at x_0), drawn from the image's
    own pixels and `seed`, so no image's result depends on the others. The model is evaluated in evaluation mode, with
    gradients for the images alone, and left as it was.
    Raises `InputError` for images outside [0, 1], labels that do not fit, negative radii, steps or restarts below 1.
    """
    images, labels = checked_images("pgd", images, labels)
    radii = [float(radius) for radius in np.atleast_1d(radii)]
    if not len(radii) or any(radius < 0 for radius in radii) or steps < 1 or restarts < 1:
        raise InputError(f"pgd: radii {list(radii)}, steps {steps}, restarts {restarts}; radii >= 0, the others >= 1")
    device = like(model).device
    ascending = sorted(float(radius) for radius in radii)
    right = dict.fromkeys(ascending, 0)
    with evaluating(model):
        for start in range(0, len(images), batch_size):
            clean = images[start : start + batch_size].float().cpu()
            wanted = labels[start : start + batch_size].cpu()
            held = torch.arange(len(clean))  # rows that nothing has fooled yet
            for radius in ascending:
                for restart in range(restarts):
                    x0 = clean[held]
                    first = x0 if restart == 0 else _in_ball(x0, radius, f"{seed}/pgd/{restart}")
                    fooled = _attack(model, x0.to(device), first.to(device), wanted[held].to(device), radius, steps)
                    held = held[~fooled.cpu()]
                right[radius] += len(held)
            if progress is not None:
                progress(min(start + batch_size, len(images)), len(images))
    accuracy = np.array([right[float(radius)] / len(images) for radius in radii])
    return LinfCurve(tuple(float(radius) for radius in radii), accuracy, len(images))


def pgd_perturbation(
    model: nn.Module,
    images: Float[torch.Tensor, "image channel h w"],
    labels: Int64[torch.Tensor, " image"],
    *,
    epsilon: float | int,
    steps: int,
    start: Float[torch.Tensor, "image channel h w"],
) -> Float[torch.Tensor, "image channel h w"]:
    """x <- x + (5/2) eps / steps sign(d cross-entropy / dx) from x_0 + eps start, cut to |x - x_0| <= eps and [0, 1].

    For adversarial training (Madry et al. 2018): the examples of one batch, in evaluation mode (so that batch norm
    does not learn from images on the way), without gradient for the weights. `start`: uniform in [-1, 1], times eps.
    Raises `InputError` for an epsilon not above 0, or no step.
    """
    if not epsilon > 0 or steps < 1:
        raise InputError(f"pgd: epsilon {epsilon}, steps {steps}; epsilon must be above 0, steps 1 or more")
    low, high = (images - epsilon).clamp(0, 1), (images + epsilon).clamp(0, 1)
    x = (images + epsilon * start).clamp(0, 1)
    with evaluating(model):
        for _ in range(steps):
            x = x.detach().requires_grad_(True)
            with torch.enable_grad():
                loss = F.cross_entropy(model(x), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, x)
            x = torch.clamp(x + 2.5 * epsilon / steps * gradient.sign(), low, high)
    return x.detach()


def _in_ball(images: torch.Tensor, radius: float, seed: str) -> torch.Tensor:
    moved = [radius * random_of(x, seed).uniform(-1, 1, x.shape).astype(np.float32) for x in images.numpy()]
    return (images + torch.from_numpy(np.array(moved)).reshape(images.shape)).clamp(0, 1)


def _attack(
    model: nn.Module, x0: torch.Tensor, first: torch.Tensor, labels: torch.Tensor, radius: float, steps: int
) -> torch.Tensor:
    """Return which images some point on the way fooled; those that are fooled are not looked at again."""
    fooled = torch.zeros(len(x0), dtype=torch.bool, device=x0.device)
    rows = torch.arange(len(x0), device=x0.device)
    dtype = like(model).dtype
    x = first
    for step in range(steps + 1):
        if not len(rows):
            break
        x = x.detach().requires_grad_(True)
        with torch.enable_grad():
            logits = logits_of("pgd", model, x.to(dtype))
            above = margin(logits, labels[rows])
        lost = logits.argmax(1) != labels[rows]
        fooled[rows[lost]] = True
        if step == steps or radius == 0:
            break
        (gradient,) = torch.autograd.grad(above.sum(), x)
        with torch.no_grad():
            # Long steps first: of constant ones those of 0.05 eps miss an image in 200 that these find.
            moved = x + 2 * radius * (1 - step / steps) * gradient.sign()
            near = x0[rows]
            x = moved.clamp(near - radius, near + radius).clamp(0, 1)[~lost]
        rows = rows[~lost]
    return fooled
