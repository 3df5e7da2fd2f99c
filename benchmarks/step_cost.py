"""What the regulariser's cost grows with: images, stimuli and taps, not the size of the target; and what saves some.

    python benchmarks/step_cost.py [--json] [--width 16] [--repeats 7]

Growth is the slope of log seconds over log size: 1 is linear. Targets of 5,000 and of 1,000,000 images are factored
(64 coordinates an image). Features left out: how far S of some places is from S of all, beside 1 / sqrt(features)
(Johnson and Lindenstrauss). Stacked: four networks as one, their convolutions grouped (`torch.func`), beside one after
the other.
"""

import argparse
import statistics
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from measured import at_most, in_turn, ratio, show, spread
from torch.func import functional_call, stack_module_state
from torch.nn import functional as F

from neuroprior import SimilarityRegularizer
from neuroprior.classifier import ResNet
from neuroprior.recordings import packaged_photographs
from neuroprior.regularizer.centred import at_places, channel_mean, layer_similarity, places_of
from neuroprior.regularizer.taps import Taps
from neuroprior.types import FactoredTarget, Stimuli

FEATURES = (64, 256, 1024, 4096)
NETWORKS = 4


def slope(sizes: Sequence[int], seconds: Sequence[Sequence[float]]) -> float:
    """Of log seconds over log size."""
    medians = [statistics.median(taken) for taken in seconds]
    return float(np.polyfit(np.log(sizes), np.log(medians), 1)[0])


def factored(n: int, shape: tuple[int, int] = (36, 64)) -> tuple[Stimuli, FactoredTarget]:
    """Return so many random stimuli and a factored target of them."""
    rng = np.random.default_rng(0)
    stimuli = Stimuli(np.arange(n).astype(str), rng.integers(0, 256, (n, *shape), dtype=np.uint8))
    e = rng.standard_normal((n, 64), dtype=np.float32)
    e /= np.linalg.norm(e, axis=1, keepdims=True)
    return stimuli, FactoredTarget(
        coordinates=e, image_ids=stimuli.ids, stimuli_digest=stimuli.digest, source="user", tolerance=0.0
    )


def second_loss(width: int, stimuli: Stimuli, target: FactoredTarget, **options: object) -> Callable[[], None]:
    """The second loss alone, forward and backward, in bfloat16."""
    network = new_network(width)
    reg = SimilarityRegularizer(network, target, stimuli, pairs="all", **options)

    def form() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = reg()
        loss.backward()

    return form


def first_loss(width: int, n: int) -> Callable[[], None]:
    """The classification loss of so many images, forward and backward, in bfloat16."""
    network, images = new_network(width), torch.rand(n, 1, 32, 32)

    def form() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(network(images), torch.zeros(n, dtype=torch.long))
        loss.backward()

    return form


def compared(n_taps: int) -> Callable[[], None]:
    """S of so many taps with the same features, forward and backward."""
    taps = [torch.randn(32, 32, 36, 64).to(memory_format=torch.channels_last).requires_grad_() for _ in range(n_taps)]

    def form() -> None:
        torch.stack([layer_similarity(tap, channel_mean(tap)) for tap in taps]).sum().backward()

    return form


def new_network(width: int) -> ResNet:
    """A network as training sets it up."""
    torch.manual_seed(0)
    return ResNet(width=width).to(memory_format=torch.channels_last)


def left_out(width: int) -> dict[str, str]:
    """How far S of some features is from S of all, at each tap, by root mean square over pairs."""
    stimuli = packaged_photographs(n_train=64, n_oracle=2)
    images = torch.from_numpy(stimuli.pixels[:64].copy())[:, None].float() / 255
    network = new_network(width)
    with torch.no_grad():
        taps = Taps(network, network.stages).features(network, images)
    said = {}
    for name, tap in zip(network.stages, taps, strict=True):
        whole = layer_similarity(tap, channel_mean(tap))
        i, j = torch.triu_indices(64, 64, 1)
        places, channels = places_of(tap)
        errors = []
        for features in FEATURES:
            few = -(-features // channels)
            if few >= places:
                continue
            off = []
            for _ in range(20):
                part = at_places(tap, torch.randperm(places)[:few])
                off.append((layer_similarity(part, channel_mean(part)) - whole)[i, j].square().mean())
            errors.append(
                f"{few * channels}: {float(torch.stack(off).mean().sqrt()):.3f} ({(few * channels) ** -0.5:.3f})"
            )
        said[f"error of S by features compared (1 / sqrt), {name}, {places * channels} features"] = ", ".join(errors)
    return said


def stacked(width: int) -> dict[str, Callable[[], None]]:
    """Training steps of several networks, one after the other, and as one."""
    networks = [ResNet(width=width).to(memory_format=torch.channels_last) for _ in range(NETWORKS)]
    images, labels = torch.rand(NETWORKS, 64, 1, 32, 32), torch.randint(10, (NETWORKS, 64))

    def in_a_row() -> None:
        for network, x, y in zip(networks, images, labels, strict=True):
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(network(x), y)
            loss.backward()

    parameters, buffers = stack_module_state(networks)

    def one(own: dict, kept: dict, x: torch.Tensor) -> torch.Tensor:
        return functional_call(networks[0], (own, kept), (x,))

    def at_once() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            logits = torch.vmap(one)(parameters, buffers, images)
            loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        loss.backward()

    return {f"width {width}, one after the other": in_a_row, f"width {width}, as one": at_once}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="end with one JSON object on a line")
    arguments = parser.parse_args()
    width, repeats = arguments.width, arguments.repeats
    warnings.filterwarnings("ignore", message="theta")  # nothing is trained here

    sizes = (16, 32, 64, 128)
    stimuli, target = factored(512)
    grown = {
        "images": {f"{n} images": first_loss(width, n) for n in sizes},
        "stimuli": {f"{n} stimuli": second_loss(width, stimuli, target, stimuli_per_step=n) for n in sizes},
        "taps": {f"{n} taps": compared(n) for n in (1, 2, 4, 8)},
    }
    checks, details = [], {}
    for what, forms in grown.items():
        seconds = in_turn(forms, repeats)
        found = slope([int(name.split()[0]) for name in forms], list(seconds.values()))
        checks.append(at_most(f"growth with {what}", found, 1.1))
        details |= {f"seconds, {name}": spread(taken) for name, taken in seconds.items()}
    large = {
        f"target of {n:,}": second_loss(width, *factored(n, (9, 16)), stimuli_per_step=64) for n in (5_000, 1_000_000)
    }
    for form in large.values():
        form()
    seconds = in_turn(large, 3 * repeats)
    few, many = seconds.values()
    checks.append(at_most("a step with a target of 1,000,000 images over one of 5,000", ratio(many, few), 1.1))
    details |= {f"seconds, {name}": spread(taken) for name, taken in seconds.items()}
    details |= left_out(width)
    for of_width in (4, width):
        seconds = in_turn(stacked(of_width), repeats)
        details |= {f"seconds, {NETWORKS} networks, {name}": spread(taken) for name, taken in seconds.items()}
    show("step_cost", checks, details, arguments.json)


if __name__ == "__main__":
    main()
