"""Fitting a twin: ours against the plain PyTorch way of the reference libraries, same architecture and data.

    python benchmarks/twin_fit.py [--json] [--images 2000]

Peer: the same separable core in the standard memory format, `grid_sample` of the whole map at a position drawn for
every trial and neuron, one batch of one scan's trials a step from a DataLoader, fp32, Adam, the same penalties. Ours
sees an image once for all scans that show it. Trials a step are the same. Two cases: four scans of the same images
(the paper's; 1,000 neurons each), and one scan alone. Speed: both forms in turn in one process, ratio of medians.
Memory: each form in a process of its own, peak above what it held before training (once all that both load is loaded).
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from measured import at_least, at_most, coarse_stimuli, in_turn, ratio, show, spread
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from neuroprior.recordings import simulate_scan
from neuroprior.twin import FitProgress, FitSettings, TwinArchitecture, fit_twin
from neuroprior.twin.core import SeparableConv
from neuroprior.twin.fit.penalties import readout_l1, roughness
from neuroprior.types import Scan, Stimuli

NEURONS, TRIALS_A_STEP, STEPS, REPEATS = 1000, 128, 4, 5
ARCHITECTURE = TwinArchitecture()


class PlainReadout(nn.Module):
    """The reference libraries' full-covariance Gaussian readout: all maps at every neuron's drawn position."""

    def __init__(self, n_neurons: int, n_features: int) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.rand(1, n_neurons, 1, 2) * 0.6 - 0.3)
        self.sigma = nn.Parameter(0.1 * torch.eye(2).expand(1, n_neurons, 2, 2).clone())
        self.features = nn.Parameter(torch.randn(n_neurons, n_features) / n_features)
        self.bias = nn.Parameter(torch.zeros(n_neurons))

    def forward(self, maps: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        """Sample, weight, sum."""
        normal = torch.randn(len(maps), *self.mu.shape[1:])
        drawn = (torch.einsum("ancd,bnid->bnic", self.sigma, normal) + self.mu).clamp(-1, 1)
        seen = F.grid_sample(maps, drawn + shift[:, None, None], align_corners=True)
        return (seen.squeeze(-1) * self.features.T[None]).sum(1) + self.bias


class PlainTwin(nn.Module):
    """One scan's readout, shifter and modulator on a core that all share."""

    def __init__(self, core: nn.Module, n_neurons: int, n_behavior: int) -> None:
        super().__init__()
        self.core = core
        self.readout = PlainReadout(n_neurons, ARCHITECTURE.n_features)
        self.shifter = ARCHITECTURE.new_shifter()
        self.modulator = ARCHITECTURE.new_modulator(n_behavior, n_neurons)

    def forward(self, images: torch.Tensor, behavior: torch.Tensor, pupil: torch.Tensor) -> torch.Tensor:
        """Predict."""
        return (F.elu(self.readout(self.core(images), self.shifter(pupil))) + 1) * self.modulator(behavior)


def plain_core() -> nn.Module:
    """The separable core as plain modules, one after another."""
    layers = []
    for conv, *rest in (layer.children() for layer in ARCHITECTURE.new_core(0).layers):
        layers.append(nn.Sequential(*conv.children()) if isinstance(conv, SeparableConv) else conv)
        layers += rest
    return nn.Sequential(*layers)


def plain_steps(scans: list[Scan]) -> Callable[[int], None]:
    """Return a function that takes so many steps of the plain training."""
    core = plain_core()
    twins = [PlainTwin(core, s.responses.shape[1], s.behavior.shape[1]) for s in scans]
    optimizer = torch.optim.Adam(nn.ModuleList(twins).parameters(), 5e-3)
    batches = []
    for scan in scans:
        kept = np.flatnonzero(scan.tier == "train")
        pixels = torch.from_numpy(scan.stimuli.pixels.astype(np.float32))
        images = ((pixels - pixels.mean()) / pixels.std())[:, None]
        parts = (scan.trial_image[kept], scan.responses[kept] / scan.responses[kept].std(0))
        conditions = (scaled(scan.behavior[kept]), scaled(scan.pupil_center[kept]))
        data = TensorDataset(images[parts[0]], *(torch.from_numpy(part) for part in (parts[1], *conditions)))
        batches.append(endless(DataLoader(data, batch_size=TRIALS_A_STEP, shuffle=True, drop_last=True)))

    def take(steps: int) -> None:
        for step in range(steps):
            twin = twins[step % len(twins)]
            images, responses, behavior, pupil = next(batches[step % len(twins)])
            rates = twin(images, behavior, pupil)
            loss = (rates - responses * torch.log(rates + 1e-6)).mean()
            loss = loss + 1e-2 * roughness(core[0].weight) + 1e-3 * readout_l1(twin.readout)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return take


def endless(loader: DataLoader):
    """Yield batches again and again."""
    while True:
        yield from loader


def scaled(values: np.ndarray) -> np.ndarray:
    """Standardise."""
    return ((values - values.mean(0)) / values.std(0)).astype(np.float32)


def our_seconds(scans: list[Scan], steps: int) -> float:
    """Seconds that `steps` steps of our fit take, without what comes before the first."""
    ticks: list[float] = []

    class Enough(Exception):
        pass

    def tell(_: FitProgress) -> None:
        ticks.append(time.perf_counter())
        if len(ticks) > steps + 1:
            raise Enough

    settings = FitSettings(batch_images=TRIALS_A_STEP // len(scans))
    try:
        fit_twin(scans, ARCHITECTURE, settings, progress=tell)
    except Enough:
        return ticks[-1] - ticks[1]
    raise SystemExit("too few images for so many steps; raise --images")


def keep(rounds: list[float], scans: list[Scan]) -> None:
    """Take our steps, and keep how long they took: setting up a fit is not part of a step."""
    rounds.append(our_seconds(scans, STEPS))


def warm_up() -> None:
    """Compile the loops on a mouse so small that hardly any memory stays with the process."""
    rng = np.random.default_rng(0)
    shown = Stimuli(np.array([str(k) for k in range(12)]), rng.integers(0, 256, (12, 20, 20), np.uint8))
    scan = simulate_scan(shown, shown.ids[-2:], n_neurons=4, n_repeats=2).scan
    fit_twin(scan, TwinArchitecture(channels=2), FitSettings(batch_images=4, max_epochs=1, validation_fraction=0.4))


def recorded(n_scans: int, n_images: int) -> list[Scan]:
    """Scans of so many images and 20 more that are repeated."""
    shown = coarse_stimuli(n_images + 20)
    made = [
        simulate_scan(shown, shown.ids[-20:], n_neurons=NEURONS, n_repeats=2, animal=k, name=f"mouse{k}")
        for k in range(n_scans)
    ]
    return [one.scan for one in made]


def peak_mb(form: str, n_scans: int, n_images: int) -> float:
    """Peak memory of a form in a process of its own, above what it held before training."""
    command = [sys.executable, __file__, "--memory", form, "--scans", str(n_scans), "--images", str(n_images)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(json.loads(done.stdout.splitlines()[-1])["mb"])


def say_memory(form: str, n_scans: int, n_images: int) -> None:
    """Print the peak of this process above what it held before training."""
    scans = recorded(n_scans, n_images)
    warm_up()  # compiles the loops and loads the optimiser, which is not the training's memory
    with open("/proc/self/clear_refs", "w") as kernel:
        kernel.write("5")  # the peak begins anew
    before = status_mb("VmRSS")
    if form == "ours":
        our_seconds(scans, STEPS)
    else:
        plain_steps(scans)(STEPS)
    print(json.dumps({"mb": status_mb("VmHWM") - before}))


def status_mb(field: str) -> float:
    """A figure of this process's memory."""
    with open("/proc/self/status") as status:
        return next(float(line.split()[1]) for line in status if line.startswith(field)) / 1024


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--json", action="store_true", help="end with one JSON object on a line")
    parser.add_argument("--memory", choices=["ours", "plain"], help=argparse.SUPPRESS)
    parser.add_argument("--scans", type=int, default=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        say_memory(arguments.memory, arguments.scans, arguments.images)
        return

    checks, details = [], {}
    for n_scans, case in ((4, "four scans of the same images"), (1, "one scan")):
        scans = recorded(n_scans, arguments.images)
        plain = plain_steps(scans)
        rounds: list[float] = []
        forms = {"plain": partial(plain, STEPS), "ours": partial(keep, rounds, scans)}
        theirs, ours = in_turn(forms, REPEATS)["plain"], rounds[1:]  # the first round is not kept
        rate = {"plain": [STEPS * TRIALS_A_STEP / s for s in theirs], "ours": [STEPS * TRIALS_A_STEP / s for s in ours]}
        peak = {form: peak_mb(form, n_scans, arguments.images) for form in ("plain", "ours")}
        checks += [
            at_least(f"trials a second against the plain way, {case}", ratio(theirs, ours), 3.0),
            at_most(f"peak memory against the plain way, {case}", peak["ours"] / peak["plain"], 0.5),
        ]
        for name in ("plain", "ours"):
            details[f"trials a second, {case}, {name}"] = spread(rate[name])
            details[f"peak memory, {case}, {name}"] = f"{peak[name]:.0f} MB"
    details |= {
        "neurons of a scan": NEURONS,
        "trials a step": TRIALS_A_STEP,
        "core": f"{ARCHITECTURE.channels} channels",
    }
    show("twin_fit", checks, details, arguments.json)


if __name__ == "__main__":
    main()
