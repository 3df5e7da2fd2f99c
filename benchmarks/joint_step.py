"""One step of joint training at the paper's sizes: ours against the loop that a person would write.

    python benchmarks/joint_step.py [--json] [--width 64] [--repeats 5] [--device cpu|cuda]

Peer: eager fp32 in the standard memory format, a DataLoader over per-image augmentation, two forward passes for the two
halves of 32 pairs, the running mean and the loss as the code lineage has them. Both train on 64 images of 32x32 and 64
stimuli of 36x64 a step. Images a second count the task's images. Also: the regularised step against the plain one.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator

import numpy as np
import torch
from measured import at_least, in_turn, ratio, show, spread
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from neuroprior import SimilarityRegularizer
from neuroprior.classifier import ResNet
from neuroprior.classifier.augmentation import Augmentation
from neuroprior.similarity import target_from_population
from neuroprior.types import Population, SimilarityTarget, Stimuli

BATCH, STIMULI = 64, 512


class Images(Dataset):
    """Images as a person would serve them: padded, cropped and flipped one by one."""

    def __init__(self, pixels: torch.Tensor, labels: torch.Tensor) -> None:
        self.pixels, self.labels = pixels, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = F.pad(self.pixels[row].float()[None] / 255, (4, 4, 4, 4), mode="reflect")[0]
        y, x = (int(torch.randint(9, ())) for _ in range(2))
        image = image[:, y : y + 32, x : x + 32]
        return (image.flip(-1) if torch.rand(()) < 0.5 else image), self.labels[row]


def endless(loader: DataLoader) -> Iterator:
    """Go through a loader again and again."""
    while True:
        yield from loader


def obvious_steps(
    width: int, images: Images, stimuli: torch.Tensor, target: torch.Tensor, device: str
) -> Callable[[], None]:
    """The plain loop, from the paper's text and its code lineage's choices."""
    torch.manual_seed(0)
    network = ResNet(width=width).to(device)
    theta = nn.Parameter(torch.zeros(5, device=device))
    stimuli, target = stimuli.to(device), target.to(device)
    optimizer = torch.optim.SGD([*network.parameters(), theta], 0.01, momentum=0.9)
    batches = endless(DataLoader(images, batch_size=BATCH, shuffle=True))
    means: list[torch.Tensor] = [torch.zeros((), device=device)] * 5

    def features(x: torch.Tensor) -> list[torch.Tensor]:
        found = [network.stem(network.scaling(x))]
        for stage in (network.stage1, network.stage2, network.stage3, network.stage4):
            found.append(stage(found[-1]))
        return found

    def step() -> None:
        x, y = (part.to(device) for part in next(batches))
        loss = F.cross_entropy(network(x), y)
        rows = torch.randperm(len(stimuli))[:64]
        left, right = rows[:32], rows[32:]
        f, g = features(stimuli[left]), features(stimuli[right])
        similarities = []
        for k in range(5):
            with torch.no_grad():
                means[k] = 0.9 * means[k] + 0.1 * torch.cat([f[k], g[k]]).mean((0, 2, 3))[:, None, None]
            similarities.append(F.cosine_similarity((f[k] - means[k]).flatten(1), (g[k] - means[k]).flatten(1)))
        mixed = (torch.stack(similarities, 1) * theta.softmax(0)).sum(1)
        limit = 1 - 1e-5
        gap = torch.atanh(mixed.clamp(-limit, limit)) - torch.atanh(target[left, right].clamp(-limit, limit))
        optimizer.zero_grad()
        (loss + 20 * gap.square().mean()).backward()
        optimizer.step()
        wait_for(device)

    return step


def our_steps(
    width: int,
    images: Images,
    stimuli: Stimuli | None,
    target: SimilarityTarget | None,
    device: str,
    **options: object,
) -> Callable[[], None]:
    """Our loop's step, with or without the regulariser."""
    torch.manual_seed(0)
    network = ResNet(width=width).to(device, memory_format=torch.channels_last)
    reg = None if stimuli is None or target is None else SimilarityRegularizer(network, target, stimuli, **options)
    optimizer = torch.optim.SGD([*network.parameters(), *(reg.parameters() if reg else ())], 0.01, momentum=0.9)
    augment, random = Augmentation(images.pixels.to(device), "crop_flip"), torch.Generator().manual_seed(0)
    labels = images.labels.to(device)

    def step() -> None:
        rows = torch.randperm(len(images), generator=random)[:BATCH]
        loss = F.cross_entropy(network(augment(rows, random)), labels[rows.to(device)])
        if reg is not None:
            loss = loss + reg()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        wait_for(device)

    return step


def wait_for(device: str) -> None:
    """Let a GPU finish what it was told to do."""
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=64, help="of the ResNet18; the paper's is 64")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true", help="end with one JSON object on a line")
    arguments = parser.parse_args()

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (STIMULI, 36, 64)).astype(np.uint8)
    stimuli = Stimuli(np.array([str(k) for k in range(STIMULI)]), pixels)
    responses = rng.gamma(1.0, size=(STIMULI, 100)).astype(np.float32)
    target = target_from_population(Population(stimuli.ids, responses, np.ones(100, np.float32), "recorded"), stimuli)
    images = Images(torch.randint(256, (2000, 1, 32, 32), dtype=torch.uint8), torch.randint(10, (2000,)))
    floats, matrix = torch.from_numpy(pixels)[:, None].float() / 255, torch.from_numpy(target.matrix.copy())
    few = {"stimuli_per_step": 12, "pairs": "all"}
    width, device = arguments.width, arguments.device
    seconds = in_turn(
        {
            "obvious, 64 stimuli": obvious_steps(width, images, floats, matrix, device),
            "ours, 64 stimuli": our_steps(width, images, stimuli, target, device),
            "ours, 12 stimuli": our_steps(width, images, stimuli, target, device, **few),
            "ours, plain": our_steps(width, images, None, None, device),
        },
        arguments.repeats,
    )
    obvious, full, short, plain = seconds.values()
    show(
        "joint_step",
        [at_least("images/s against the obvious loop, 64 stimuli", ratio(obvious, full), 1.0)],
        {
            "width, device": f"{width}, {device}",
            **{f"seconds a step, {name}": spread(taken) for name, taken in seconds.items()},
            "regularised step over plain, 64 stimuli": f"{ratio(full, plain):.2f}",
            "regularised step over plain, 12 stimuli and all pairs": f"{ratio(short, plain):.2f}",
            **{f"images/s, {name}": f"{BATCH / statistics.median(taken):.0f}" for name, taken in seconds.items()},
        },
        arguments.json,
        device,
    )


if __name__ == "__main__":
    main()
