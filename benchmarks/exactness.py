"""Attacks against optima that are known, against one another, and a sample alone against the same in company.

    python benchmarks/exactness.py [--json]

Linear networks (64 and 1,024 pixels, 2 and 10 classes): the length found over the exact one, of samples whose nearest
wrong point lies in [0, 1]; one setting an attack. A CNN trained on the packaged digits: the median of each attack over
the least median. These, and a deep network (ResNet18 of width 8, as it is drawn, on 40 of the digits and its own
answers): ten samples alone against the same in company.
"""

import argparse
import time
from collections.abc import Sequence

import numpy as np
import torch
from digits import trained_cnn
from measured import at_most, show
from torch import nn

from neuroprior.classifier import ResNet
from neuroprior.robustness import (
    DDN,
    PGD,
    AdamPGD,
    Attack,
    BrendelBethge,
    CarliniWagner,
    Norm,
    minimal_perturbations,
)

ATTACKS: dict[Norm, tuple[Attack, ...]] = {
    "l2": (DDN(), CarliniWagner(), BrendelBethge(), PGD()),
    "linf": (PGD(), AdamPGD(), BrendelBethge()),
}
SAMPLES, ALONE = 100, 10


class Linear(nn.Module):
    """z = 10 W (x - 1/2), W normal, rows of about unit length."""

    def __init__(self, pixels: int, classes: int) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(pixels + classes)
        self.weight = nn.Parameter(10 * torch.randn(classes, pixels, generator=random) / pixels**0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        return (x - 0.5).flatten(1) @ self.weight.T


def with_optimum(network: Linear, norm: Norm) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Images, labels and min_j (z_y - z_j) / |w_y - w_j|_q (q dual to the norm), where that point lies in [0, 1]."""
    pixels = network.weight.shape[1]
    drawn = torch.randn(600, 1, int(pixels**0.5), int(pixels**0.5), generator=torch.Generator().manual_seed(0))
    images = 0.5 + 0.1 * drawn.clamp(-3, 3)
    x, w = images.double().flatten(1), network.weight.detach().double()
    z = (x - 0.5) @ w.T
    labels = z.argmax(1)
    between = w[labels][:, None] - w
    gap = z.gather(1, labels[:, None]) - z
    size = between.norm(dim=2) if norm == "l2" else between.abs().sum(2)
    far, nearest = torch.where(size > 0, gap / size.clamp_min(1e-30), torch.inf).min(1)
    rows = torch.arange(len(x))
    ahead = between[rows, nearest]
    ahead = ahead / ahead.norm(dim=1, keepdim=True) if norm == "l2" else ahead.sign()
    there = x - far[:, None] * ahead
    # Those that lie on the boundary already are no test: their optimum drowns in float32.
    fit = torch.nonzero(((there >= 0) & (there <= 1)).all(1) & (far > 0.1 * far.median())).squeeze(1)[:SAMPLES]
    return images[fit], labels[fit], far[fit].numpy()


def found(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, attack: Attack, norm: Norm) -> np.ndarray:
    """The smallest verified length of each sample by one setting."""
    return minimal_perturbations(network, images, labels, attacks=[attack], norm=norm).distances()


def company(
    network: nn.Module, images: torch.Tensor, labels: torch.Tensor, attack: Attack, norm: Norm, whole: np.ndarray
) -> float:
    """The largest relative difference of a sample alone and in the batch."""
    rows = np.linspace(0, len(images) - 1, ALONE).astype(int)
    alone = [found(network, images[row : row + 1], labels[row : row + 1], attack, norm)[0] for row in rows]
    there = whole[rows] > 0
    return float(np.max(np.abs(np.array(alone)[there] / whole[rows][there] - 1)))


def spread_of(ratios: Sequence[float] | np.ndarray) -> str:
    """Say median, 90th percentile and largest."""
    return f"{np.median(ratios):.4f}, 90 % below {np.quantile(ratios, 0.9):.3f}, largest {np.max(ratios):.3f}"


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    arguments = parser.parse_args()
    begun = time.perf_counter()
    checks, details, apart = [], {}, dict[tuple[str, Norm], list[float]]()
    for pixels in (64, 1024):
        for classes in (2, 10):
            network = Linear(pixels, classes)
            for norm, attacks in ATTACKS.items():
                images, labels, optimum = with_optimum(network, norm)
                for attack in attacks:
                    lengths = found(network, images, labels, attack, norm)
                    ratios = lengths / optimum
                    name = f"{attack.name} {norm}, {pixels} pixels, {classes} classes"
                    checks.append(at_most(f"median over the optimum: {name}", float(np.median(ratios)), 1.02))
                    details[f"over the optimum, {name}, n = {len(ratios)}"] = spread_of(ratios)
                    if (pixels, classes) == (1024, 10):
                        apart[attack.name, norm] = [company(network, images, labels, attack, norm, lengths)]
    cnn, images, labels, accuracy = trained_cnn()
    images, labels = images[:SAMPLES], labels[:SAMPLES]
    for norm, attacks in ATTACKS.items():
        lengths_of = {attack.name: found(cnn, images, labels, attack, norm) for attack in attacks}
        least = min(float(np.median(lengths)) for lengths in lengths_of.values())
        for attack in attacks:
            lengths = lengths_of[attack.name]
            median = float(np.median(lengths))
            checks.append(at_most(f"CNN, median over the least: {attack.name} {norm}", median / least, 1.05))
            details[f"CNN, {attack.name} {norm}"] = f"median {median:.4f}, mean {lengths.mean():.4f}"
            apart[attack.name, norm].append(company(cnn, images, labels, attack, norm, lengths))
    deep = ResNet(width=8, classes=10, channels=1)
    shown = images[:40]
    with torch.no_grad():
        answered = deep.eval()(shown).argmax(1)
    for norm, attacks in ATTACKS.items():
        for attack in attacks:
            if attack.name in ("ddn", "brendel_bethge"):  # the others ask for ten times as many gradients
                lengths = found(deep, shown, answered, attack, norm)
                apart[attack.name, norm].append(company(deep, shown, answered, attack, norm, lengths))
    for (name, norm), differences in apart.items():
        checks.append(at_most(f"alone and in company: {name} {norm}", max(differences), 0.01))
    details["samples, of them alone"] = f"{SAMPLES}, {ALONE}"
    details["CNN's accuracy on digits"] = f"{accuracy:.1%}"
    details["seconds in all"] = f"{time.perf_counter() - begun:.0f}"
    show("exactness", checks, details, arguments.json)


if __name__ == "__main__":
    main()
