"""One step of joint training at the paper's sizes: ours against the loop that a person would write.

    python benchmarks/joint_step.py [--json] [--width 64] [--repeats 5] [--device cpu|cuda]

Peer: eager fp32 in the standard memory format, a DataLoader over per-image augmentation, two forward passes for the two
halves of 32 pairs, the running mean and the loss as the code lineage has them. Both train on 64 images of 32x32 and 64
stimuli of 36x64 a step. Images a second count the task's images. Also: the regularised step against the plain one, what
the step's multiply-adds would take at the measured rate of matrix products, and where the time goes.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
import torch
from measured import at_least, in_turn, matrix_rate, show, spread, time_goes_to, wait_for
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from neuroprior import SimilarityRegularizer
from neuroprior.classifier import Classification, JointStep, Recorded, ResNet, Tape, as_written
from neuroprior.classifier.augmentation import Augmentation
from neuroprior.regularizer.drawn import on_device
from neuroprior.similarity import target_from_population
from neuroprior.types import Population, Precision, SimilarityTarget, Stimuli

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
    precision: Precision = "float32",
    tape: Tape | None = None,
    **options: object,
) -> Callable[[], None]:
    """Our loop's step, as `train` takes it, with or without the regulariser."""
    torch.manual_seed(0)
    network = ResNet(width=width).to(device, memory_format=torch.channels_last)
    reg = None if stimuli is None or target is None else SimilarityRegularizer(network, target, stimuli, **options)
    on_gpu = device == "cuda"
    rate = torch.tensor(0.01, device=device) if on_gpu else 0.01
    parameters = [*network.parameters(), *(reg.parameters() if reg else ())]
    optimizer = torch.optim.SGD(parameters, rate, momentum=0.9, fused=True if on_gpu else None)
    augment = Augmentation(images.pixels.to(device), "crop_flip")
    random = torch.Generator().manual_seed(0)
    step = JointStep(network, Classification(BATCH), augment, images.labels.to(device), reg, precision=precision)

    def take(given: Mapping[str, torch.Tensor]) -> None:
        loss = sum(step.losses(given))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    where = torch.device(device)
    taken = Recorded(take, where, tape) if on_gpu else lambda given: take(on_device(given, where))

    def whole() -> None:
        rows = torch.randperm(len(images), generator=random)[:BATCH]
        taken(step.draw(rows, random, random, slice(None)))
        wait_for(device)

    return whole


def multiply_adds(form: Callable[[], None]) -> float:
    """Of the convolutions and matrix products of one step, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        form()
    return counter.get_total_flops() / 2


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
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # as in a run
    ours = partial(our_steps, width, images, device=device)
    forms = {
        "obvious, 64 stimuli": obvious_steps(width, images, floats, matrix, device),
        "ours, 64 stimuli": ours(stimuli, target),
        "ours, 12 stimuli": ours(stimuli, target, **few),
        "ours, plain": ours(None, None),
        "ours in bfloat16, 64 stimuli": ours(stimuli, target, precision="bfloat16"),
        "ours in bfloat16, 12 stimuli": ours(stimuli, target, precision="bfloat16", **few),
        "ours in bfloat16, plain": ours(None, None, precision="bfloat16"),
    }
    if device == "cuda":  # the same without a recording: what it gains
        forms["ours in bfloat16, 12 stimuli, as written"] = ours(
            stimuli, target, precision="bfloat16", tape=as_written, **few
        )
        for form in forms.values():  # until all is recorded
            for _ in range(5):
                form()
    seconds = in_turn(forms, arguments.repeats)
    median = {name: statistics.median(taken) for name, taken in seconds.items()}
    fastest = min((f"{form}, 64 stimuli" for form in ("ours", "ours in bfloat16")), key=median.__getitem__)
    best = fastest.removesuffix(", 64 stimuli")
    rate = matrix_rate(2048, torch.bfloat16, device)
    work = {
        what: multiply_adds(our_steps(width, images, *given, device="cpu", **options))
        for what, given, options in (
            ("64 stimuli", (stimuli, target), {}),
            ("12 stimuli", (stimuli, target), few),
            ("plain", (None, None), {}),
        )
    }
    show(
        "joint_step",
        [
            at_least(
                "images/s against the obvious loop, 64 stimuli", median["obvious, 64 stimuli"] / median[fastest], 1.0
            )
        ],
        {
            "width, device": f"{width}, {device}",
            "matrix products in bfloat16": f"{2 * rate / 1e9:.0f} GFLOP/s (2048 x 2048)",
            **{f"seconds a step, {name}": spread(taken) for name, taken in seconds.items()},
            **{f"images/s, {name}": f"{BATCH / taken:.0f}" for name, taken in median.items()},
            **{
                f"{best}, {what}": f"{adds / 1e9:.1f} billion multiply-adds; "
                f"{100 * adds / rate / median[f'{best}, {what}']:.0f} % of the matrix rate in bfloat16; "
                f"{median[f'{best}, {what}'] / median[f'{best}, plain']:.2f} times the plain step"
                for what, adds in work.items()
            },
            f"where the time goes, {fastest}": time_goes_to(forms[fastest], device, most=10),
            "40 epochs of 50,000 images, minutes": ", ".join(
                f"{what} {40 * 50_000 / BATCH * median[f'{best}, {what}'] / 60:.1f}" for what in work
            ),
        },
        arguments.json,
        device,
    )


if __name__ == "__main__":
    main()
