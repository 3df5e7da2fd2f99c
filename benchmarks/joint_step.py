"""One step of joint training at the paper's sizes: ours against the loop that a person would write.

    python benchmarks/joint_step.py [--json] [--widths 64 16] [--repeats 9] [--device cpu|cuda]

Peer: eager fp32 in the standard memory format, a DataLoader over per-image augmentation, two forward passes for the two
halves of 32 pairs, the running mean and the loss as the code lineage has them. Both train on 64 images of 32x32 and 64
stimuli of 36x64 a step. Images a second count the task's images. Also: the regularised step against the plain one (9
stimuli have 36 pairs; `every: 2` compares in every other step), what the step's multiply-adds would take at the
measured rate of matrix products, where the time goes, and the most memory that a process with one such step holds.
"""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
import torch
from measured import at_least, at_most, in_turn, matrix_rate, most_held, show, spread, time_goes_to, wait_for
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
FEW = {"stimuli_per_step": 9, "pairs": "all"}  # 36 pairs, where the paper has 32
BOUNDS = {  # by width: images/s over the obvious loop's; the regularised step over the plain one; with every: 2
    64: (3.0, 1.5, 1.35),
    16: (2.0, 1.8, 1.8),
}
GB = 1e9


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
    checkpointing: bool = False,
    **options: object,
) -> Callable[[], None]:
    """Our loop's step, as `train` takes it, with or without the regulariser."""
    torch.manual_seed(0)
    network = ResNet(width=width, checkpointing=checkpointing).to(device, memory_format=torch.channels_last)
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


def material() -> tuple[Images, Stimuli, SimilarityTarget]:
    """Return random images, stimuli and a target of the paper's sizes."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (STIMULI, 36, 64)).astype(np.uint8)
    stimuli = Stimuli(np.array([str(k) for k in range(STIMULI)]), pixels)
    responses = rng.gamma(1.0, size=(STIMULI, 100)).astype(np.float32)
    target = target_from_population(Population(stimuli.ids, responses, np.ones(100, np.float32), "recorded"), stimuli)
    return Images(torch.randint(256, (2000, 1, 32, 32), dtype=torch.uint8), torch.randint(10, (2000,))), stimuli, target


def bytes_held(form: str) -> int:
    """The most memory of a process of its own that takes three of our steps at width 64."""
    done = subprocess.run([sys.executable, __file__, "--held", form], stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout)


def held(form: str) -> int:
    """Take three steps, and return the most bytes that this process ever held."""
    images, stimuli, target = material()
    options = {"precision": "float32" if "float32" in form else "bfloat16", "checkpointing": "checkpointed" in form}
    step = our_steps(64, images, stimuli, target, "cpu", **options)
    for _ in range(3):
        step()
    return most_held()


def of_width(width: int, device: str, repeats: int) -> tuple[list[dict], dict[str, str]]:
    """Return the checks and the details of one width."""
    images, stimuli, target = material()
    floats, matrix = (
        torch.from_numpy(stimuli.pixels.copy())[:, None].float() / 255,
        torch.from_numpy(target.matrix.copy()),
    )
    ours = partial(our_steps, width, images, device=device)
    half = partial(ours, precision="bfloat16")
    forms = {
        "obvious, 64 stimuli": obvious_steps(width, images, floats, matrix, device),
        "float32, 64 stimuli": ours(stimuli, target),
        "float32, 9 stimuli": ours(stimuli, target, **FEW),
        "float32, plain": ours(None, None),
        "bfloat16, 64 stimuli": half(stimuli, target),
        "bfloat16, 9 stimuli": half(stimuli, target, **FEW),
        "bfloat16, 9 stimuli, every 2": twice(half(stimuli, target, **FEW, every=2)),
        "bfloat16, 9 stimuli, 512 features": half(stimuli, target, **FEW, features_per_tap=512),
        "bfloat16, plain": half(None, None),
    }
    if device == "cuda":  # the same without a recording: what it gains
        forms["bfloat16, 9 stimuli, as written"] = half(stimuli, target, tape=as_written, **FEW)
    for form in forms.values():  # until all is compiled, or recorded
        for _ in range(5 if device == "cuda" else 1):
            form()
    seconds = in_turn(forms, repeats)
    seconds["bfloat16, 9 stimuli, every 2"] = [taken / 2 for taken in seconds["bfloat16, 9 stimuli, every 2"]]
    median = {name: statistics.median(taken) for name, taken in seconds.items()}
    best = min(("float32", "bfloat16"), key=lambda kind: median[f"{kind}, 64 stimuli"])
    rate = matrix_rate(2048, torch.bfloat16, device)
    work = {
        what: multiply_adds(our_steps(width, images, *given, device="cpu", **options))
        for what, given, options in (
            ("64 stimuli", (stimuli, target), {}),
            ("9 stimuli", (stimuli, target), FEW),
            ("plain", (None, None), {}),
        )
    }
    checks = []
    if width in BOUNDS:
        gain, few, fewest = BOUNDS[width]
        plain = median[f"{best}, plain"]
        checks = [
            at_least(
                f"width {width}: images/s over the obvious loop's, 64 stimuli",
                median["obvious, 64 stimuli"] / median[f"{best}, 64 stimuli"],
                gain,
            ),
            at_most(f"width {width}: regularised over plain step, 36 pairs", median[f"{best}, 9 stimuli"] / plain, few),
            at_most(
                f"width {width}: the same in every other step",
                median["bfloat16, 9 stimuli, every 2"] / median["bfloat16, plain"],
                fewest,
            ),
        ]
    details = {
        **{f"width {width}, seconds a step, {name}": spread(taken) for name, taken in seconds.items()},
        f"width {width}, images/s": ", ".join(f"{name} {BATCH / taken:.0f}" for name, taken in median.items()),
        **{
            f"width {width}, {best}, {what}": f"{adds / 1e9:.1f} billion multiply-adds; "
            f"{100 * adds / rate / median[f'{best}, {what}']:.0f} % of the rate of matrix products in bfloat16, "
            f"{2 * rate / 1e9:.0f} GFLOP/s; {median[f'{best}, {what}'] / median[f'{best}, plain']:.2f} plain steps "
            f"({adds / work['plain']:.2f} by multiply-adds)"
            for what, adds in work.items()
        },
        f"width {width}, where the time goes, {best}, 64 stimuli": time_goes_to(
            forms[f"{best}, 64 stimuli"], device, most=10
        ),
        f"width {width}, 40 epochs of 50,000 images, minutes": ", ".join(
            f"{what} {40 * 50_000 / BATCH * median[f'{best}, {what}'] / 60:.1f}" for what in work
        ),
    }
    return checks, details


def twice(form: Callable[[], None]) -> Callable[[], None]:
    """Two steps, where they differ."""

    def steps() -> None:
        form()
        form()

    return steps


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 16], help="of the ResNet18; the paper's is 64")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--held", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="end with one JSON object on a line")
    arguments = parser.parse_args()
    if arguments.held:
        print(held(arguments.held))
        return
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # as in a run
    checks: list[dict] = []
    details: dict[str, str] = {}
    for width in arguments.widths:
        more, said = of_width(width, arguments.device, arguments.repeats)
        checks, details = checks + more, details | said
    if arguments.device == "cpu":
        most = {form: bytes_held(form) for form in ("bfloat16", "float32", "bfloat16, checkpointed")}
        checks.append(at_most("GB of a process with a step of 64 + 64, width 64, bfloat16", most["bfloat16"] / GB, 2.0))
        details["GB held at most, width 64, libraries included"] = ", ".join(
            f"{form} {count / GB:.2f}" for form, count in most.items()
        )
    show("joint_step", checks, details, arguments.json, arguments.device)


if __name__ == "__main__":
    main()
