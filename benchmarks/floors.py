"""Where the time of the whole line goes, and how far each part stands from its floor.

    python benchmarks/floors.py [--json] [--repeats 5]

Of each part: seconds, multiply-adds and what they would take at the measured rate of a matrix product in its precision,
bytes and what they would take at the measured rate of a copy. Bytes are those that torch operations read and write,
counted where the part is done in torch operations alone (so what a fused loop saves shows as less time than its bytes
would take). The floor is the longer of the two where nothing is fused.
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from joint_step import FEW, material, our_steps
from measured import coarse_stimuli, in_turn, matrix_rate, show, time_goes_to
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from twin_fit import ARCHITECTURE, TRIALS_A_STEP, recorded
from twin_predict import CHECKPOINT

from neuroprior.classifier import ResNet
from neuroprior.robustness import minimal_perturbations, noise_accuracy
from neuroprior.similarity import target_from_population
from neuroprior.sources import data_folder
from neuroprior.twin import FitSettings, fit_twin, load_twin, predict_population
from neuroprior.types import Population, Stimuli

_VIEWS = (
    "view",
    "reshape",
    "permute",
    "transpose",
    "expand",
    "slice",
    "select",
    "detach",
    "alias",
    "as_strided",
    "aten.t.",
)
_COPIED = 64 << 20  # bytes, for the rate of a copy


@dataclass(frozen=True)
class Part:
    """A part of the line: what is done once, in which precision, and how many of what that is."""

    form: Callable[[], Any]
    precision: torch.dtype
    of: str


class Work(TorchDispatchMode):
    """Adds up multiply-adds, and the bytes that operations read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.adds, self.bytes = 0.0, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        if not any(view in str(function) for view in _VIEWS):
            tensors = [leaf for leaf in tree_leaves((args, kwargs, found)) if isinstance(leaf, torch.Tensor)]
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        if function is torch.ops.aten.conv2d.default:  # a convolution without gradient; the registry lacks it
            self.adds += found.numel() * args[1][0].numel()
        elif (flops := flop_registry.get(function._overloadpacket)) is not None:
            self.adds += flops(*args, **(kwargs or {}), out_val=found) / 2
        return found


def copy_rate() -> float:
    """Bytes a second, read and written, of a copy that does not fit a core's cache."""
    source, to = torch.ones(_COPIED, dtype=torch.uint8), torch.empty(_COPIED, dtype=torch.uint8)
    return 2 * _COPIED / statistics.median(in_turn({"copy": lambda: to.copy_(source)}, 15)["copy"])


def steps_of(width: int, **options: object) -> Part:
    """A step of joint training."""
    images, stimuli, target = material()
    form = our_steps(width, images, stimuli, target, "cpu", "bfloat16", **options)
    n = options.get("stimuli_per_step", 64)
    return Part(form, torch.bfloat16, f"width {width}, 64 images and {n} stimuli")


def prediction() -> Part:
    """A twin looks at photographs."""
    stimuli = coarse_stimuli(192)
    twin = load_twin(data_folder() / CHECKPOINT)
    return Part(lambda: predict_population(twin, stimuli), torch.float32, "192 photographs, a real mouse's twin")


def fit() -> Part:
    """Steps of a twin's fit."""
    scans = recorded(1, 4 * TRIALS_A_STEP)
    settings = FitSettings(batch_images=TRIALS_A_STEP, max_epochs=1)
    of = f"{len(scans[0].trial_image)} trials, one epoch"
    return Part(lambda: fit_twin(scans, ARCHITECTURE, settings), torch.float32, of)


def target() -> Part:
    """The similarity matrix of a scan."""
    rng = np.random.default_rng(0)
    stimuli = Stimuli(np.arange(5000).astype(str), rng.integers(0, 256, (5000, 8, 8), dtype=np.uint8))
    responses = rng.gamma(1.0, size=(5000, 8000)).astype(np.float32)
    population = Population(stimuli.ids, responses, np.ones(8000, np.float32), "recorded")
    return Part(lambda: target_from_population(population, stimuli), torch.float32, "5,000 images, 8,000 neurons")


def noise(precision: str) -> Part:
    """Accuracy at four levels of noise."""
    torch.manual_seed(0)
    network = ResNet(width=16).to(memory_format=torch.channels_last).eval()
    with torch.no_grad():
        network.head.weight.mul_(50)  # as sure as one that has learnt
    images, labels = torch.rand(2048, 1, 32, 32), torch.zeros(2048, dtype=torch.long)

    def form() -> None:
        noise_accuracy(network, images, labels, [0.0, 0.05, 0.1, 0.15], precision=precision)

    return Part(form, getattr(torch, precision), "width 16, 2,048 images, 4 levels")


def attack() -> Part:
    """The smallest L2 perturbations of a few images."""
    torch.manual_seed(0)
    network = ResNet(width=16).to(memory_format=torch.channels_last).eval()
    images = torch.rand(32, 1, 32, 32)
    with torch.no_grad():
        labels = network(images).argmax(1)
    return Part(
        lambda: minimal_perturbations(network, images, labels, attacks=["ddn"], norm="l2"),
        torch.float32,
        "width 16, 32 images, DDN",
    )


def measured(name: str, part: Part, rates: dict[torch.dtype, float], copying: float, repeats: int) -> dict[str, str]:
    """Say where one part stands."""
    with Work() as work:
        part.form()
    seconds = statistics.median(in_turn({name: part.form}, repeats)[name])
    by_adds, by_bytes = work.adds / rates[part.precision], work.bytes / copying
    kind = str(part.precision).removeprefix("torch.")
    return {
        f"{name} ({part.of}, {kind})": f"{seconds:.3g} s; "
        f"{work.adds / 1e9:.3g} billion multiply-adds: {by_adds:.3g} s; "
        f"{work.bytes / 1e9:.3g} GB in torch operations: {by_bytes:.3g} s; "
        f"{seconds / max(by_adds, by_bytes):.2f} times the longer",
        f"{name}, where the time goes": time_goes_to(part.form),
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="end with one JSON object on a line")
    arguments = parser.parse_args()

    rates = {kind: matrix_rate(2048, kind) for kind in (torch.float32, torch.bfloat16)}
    copying = copy_rate()
    details = {
        "matrix products (2048 x 2048)": ", ".join(
            f"{2 * rate / 1e9:.0f} GFLOP/s in {str(kind).removeprefix('torch.')}" for kind, rate in rates.items()
        ),
        "copies": f"{copying / 1e9:.1f} GB/s, read and written",
    }
    parts: dict[str, Callable[[], Part]] = {
        "joint step": lambda: steps_of(64),
        "joint step, few stimuli": lambda: steps_of(64, **FEW),
        "joint step, narrow": lambda: steps_of(16),
        "joint step, narrow, few stimuli": lambda: steps_of(16, **FEW),
        "a twin's prediction": prediction,
        "a twin's fit": fit,
        "similarity target": target,
        "noise sweep": lambda: noise("float32"),
        "noise sweep, close calls in float32": lambda: noise("bfloat16"),
        "attack search": attack,
    }
    for name, part in parts.items():
        details |= measured(name, part(), rates, copying, arguments.repeats)
    show("floors", [], details, arguments.json)


if __name__ == "__main__":
    main()
