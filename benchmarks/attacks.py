"""The smallest perturbations of 200 images: our search against plain Foolbox with the same attacks.

    python benchmarks/attacks.py [--json] [--images 200] [--threads 2]

A small CNN is trained on the packaged digits; both attack the same test images, all of them rightly classified, in L2
and in Linf. Peer: Foolbox's PGD (3 step sizes, each with 30 and with 100 iterations; epsilon doubled or halved until it
is bracketed, then bisected to 1 %) and its Brendel & Bethge attack (2 step sizes, 100 steps), the whole batch at every
step, the least length of all eight. Ours: `minimal_perturbations` with the same eight settings. The CNN counts the
images that it is asked about with gradient, our fillers among them.

In the peer's favour: epsilon is each sample's own (of Foolbox's own search there is one for all), parameters want no
gradient, what numba compiles is compiled beforehand, and the trust region is that of one image, not of the batch. Where
Foolbox cannot find a start for every image, its attack starts from its own PGD's best. One turn of the peer takes
minutes, so it has one in each norm, between the three of ours.
"""

import os

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # Foolbox looks for git as it is imported
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch's threads do not spin where cores are shared

import argparse
import statistics
import time
import warnings
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import eagerpy as ep
import foolbox as fb
import numpy as np
import torch
from digits import trained_cnn
from measured import at_most, ratio, show, spread
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from neuroprior.robustness import DDN, PGD, BrendelBethge, Norm, minimal_perturbations

STEPS = (0.1, 0.025, 0.3)  # of PGD, relative to epsilon
ITERATIONS = (30, 100)
RATES = (1e-3, 1e-4)  # of Brendel & Bethge
FIRST_EPSILON: dict[Norm, float] = {"l2": 1.0, "linf": 0.1}
ORDER: dict[Norm, float] = {"l2": 2.0, "linf": np.inf}
NORMS: tuple[Norm, ...] = ("l2", "linf")

OURS = [
    *(BrendelBethge(rate, 100) for rate in RATES),
    *(PGD(step, steps) for steps in ITERATIONS for step in STEPS),
]


class Counted(nn.Module):
    """A network that counts the images it is asked about with gradient."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.asked = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        self.asked += len(images) * torch.is_grad_enabled()
        return self.network(images)


def multiply_adds(network: nn.Module, image: torch.Tensor) -> int:
    """Count the multiply-adds of one forward pass: of convolutions and dense layers, which are all there are."""
    total = 0

    def count(layer: nn.Module, _: object, answer: torch.Tensor) -> None:
        nonlocal total
        total += answer[0].numel() * layer.weight[0].numel()

    hooks = [part.register_forward_hook(count) for part in network.modules() if hasattr(part, "weight")]
    network(image[None])
    for hook in hooks:
        hook.remove()
    return total


class EachL2PGD(fb.attacks.L2PGD):
    """Foolbox's L2 PGD with one epsilon an image (as its Linf PGD takes already)."""

    def project(self, x: ep.Tensor, x0: ep.Tensor, epsilon: torch.Tensor) -> ep.Tensor:
        """Clip each image's perturbation to its own length."""
        return super().project(x, x0, ep.astensor(epsilon.flatten()))


PEER_PGD = {"l2": EachL2PGD, "linf": fb.attacks.LinfPGD}
PEER_BETHGE = {"l2": fb.attacks.L2BrendelBethgeAttack, "linf": fb.attacks.LinfinityBrendelBethgeAttack}


class Peer:
    """Plain Foolbox on one batch: keeps the nearest misclassified point of each image, and its length."""

    def __init__(self, network: nn.Module, images: torch.Tensor, labels: torch.Tensor, norm: Norm) -> None:
        self.model = fb.PyTorchModel(network, bounds=(0, 1), device="cpu")
        self.images, self.labels, self.norm = images, labels, norm
        self.best, self.lengths = images.clone(), torch.full((len(images),), torch.inf)
        self.restarts = 0

    def search(self) -> torch.Tensor:
        """Run all eight settings; return the least lengths."""
        for steps in ITERATIONS:
            for step in STEPS:
                self._bisect(PEER_PGD[self.norm](rel_stepsize=step, steps=steps, random_start=False))
        for rate in RATES:
            self._follow_boundary(rate)
        return self.lengths

    def _bisect(self, attack: Any) -> None:
        """Find each image's smallest epsilon that succeeds, to 1 %; all images each time."""
        low, high = torch.zeros_like(self.lengths), torch.full_like(self.lengths, torch.inf)
        epsilon = torch.full_like(low, FIRST_EPSILON[self.norm])
        nearest, largest = self.images.clone(), len(self.images[0].flatten()) ** (1 / ORDER[self.norm])
        while bool(((high > 1.01 * low) & (low < largest)).any()):
            found = attack.run(
                self.model,
                self.images,
                fb.criteria.Misclassification(self.labels),
                epsilon=epsilon[:, None, None, None],
            )
            wrong = self.model(found).argmax(1) != self.labels
            high, low = torch.where(wrong, epsilon, high), torch.where(wrong, low, epsilon)
            nearest[wrong] = found[wrong]
            between = torch.where(low == 0, high / 2, (low * high).sqrt())
            epsilon = torch.where(high == torch.inf, 2 * low, between)
        self._keep(nearest)

    def _follow_boundary(self, rate: float) -> None:
        """Brendel & Bethge: its own start where it finds one for every image, else the nearest points so far."""
        attack = boundary_attack(self.norm, rate / len(self.images), 100)
        criterion = fb.criteria.Misclassification(self.labels)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it warns before it fails
                found = attack.run(self.model, self.images, criterion)
        except AssertionError:
            self.restarts += 1
            found = attack.run(self.model, self.images, criterion, starting_points=self.best)
        self._keep(found)

    def _keep(self, found: torch.Tensor) -> None:
        with torch.no_grad():
            wrong = self.model(found).argmax(1) != self.labels
        inside = ((found >= 0) & (found <= 1)).flatten(1).all(1)
        far = torch.linalg.vector_norm((found - self.images).flatten(1).double(), ORDER[self.norm], 1).float()
        nearer = wrong & inside & (far < self.lengths)
        self.best[nearer], self.lengths[nearer] = found[nearer], far[nearer]


def boundary_attack(norm: Norm, rate: float, steps: int) -> Any:
    """Return Foolbox's Brendel & Bethge attack, without what it says of compiling."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PEER_BETHGE[norm](lr=rate, steps=steps)


class LiveBytes(TorchDispatchMode):
    """Follow the bytes alive in tensors made while it is on, and the most that there ever were.

    `before`: tensors made earlier, which do not count.
    """

    def __init__(self, before: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.alive, self.most = 0, 0
        self._known = weakref.WeakSet(part.untyped_storage() for part in before)

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = operation(*args, **(kwargs or {}))
        for part in tree_leaves(answer):
            if isinstance(part, torch.Tensor):
                self._follow(part.untyped_storage())
        return answer

    def _follow(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        self.alive += storage.nbytes()
        self.most = max(self.most, self.alive)
        weakref.finalize(storage, self._let_go, storage.nbytes())

    def _let_go(self, bytes_: int) -> None:
        self.alive -= bytes_


def most_bytes(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> int:
    """Return the most bytes that our search, with cheap attacks, ever holds in tensors beside the images."""
    images, labels = images.clone(), labels.clone()
    with LiveBytes([images, labels, *network.parameters()]) as live:
        minimal_perturbations(network, images, labels, attacks=[DDN(8), BrendelBethge(1e-3, 3)], norm="l2")
    return live.most


def clocked(what: str, form: Callable[[], torch.Tensor], network: Counted) -> tuple[torch.Tensor, float, float, int]:
    """Return what it gives, its seconds, its processor seconds, and the images asked about with gradient."""
    network.asked = 0
    start, busy = time.perf_counter(), time.process_time()
    given = form()
    seconds = time.perf_counter() - start
    print(f"  {what}: {seconds:.1f} s, {network.asked} images asked about with gradient", flush=True)
    return given, seconds, time.process_time() - busy, network.asked


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="end with one JSON object on a line")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    begun = time.perf_counter()

    cnn, right_images, right_labels, accuracy = trained_cnn()
    n = arguments.images
    images, labels = right_images[:n], right_labels[:n]
    network = Counted(cnn).eval()
    training_seconds = time.perf_counter() - begun

    def ours(norm: Norm, rows: int = n) -> torch.Tensor:
        ledger = minimal_perturbations(network, images[:rows], labels[:rows], attacks=OURS, norm=norm)
        return torch.from_numpy(ledger.distances())

    for norm in NORMS:  # numba compiles here, and both warm up
        Peer(network, images[:2], labels[:2], norm)._follow_boundary(1e-3)
        ours(norm, 2)
    warm_seconds = time.perf_counter() - begun - training_seconds

    mine: dict[Norm, list[Any]] = {norm: [] for norm in NORMS}
    theirs: dict[Norm, Any] = {}
    restarts = 0
    for turn in (*NORMS, None):  # three of ours, the peer's two between them
        for norm in NORMS:
            mine[norm].append(clocked(f"ours, {norm}", lambda norm=norm: ours(norm), network))
        if turn is not None:
            peer = Peer(network, images, labels, turn)
            theirs[turn] = clocked(f"Foolbox, {turn}", peer.search, network)
            restarts += peer.restarts

    few, many = (most_bytes(network, right_images[:k], right_labels[:k]) for k in (200, 800))
    checks, details = [], {}
    for norm in NORMS:
        found, seconds, busy, asked = zip(*mine[norm], strict=True)
        their_found, their_seconds, their_busy, their_asked = theirs[norm]
        checks += [
            at_most(f"median over Foolbox's, {norm}", ratio(found[0].tolist(), their_found.tolist()), 1.0),
            at_most(f"seconds over Foolbox's, {norm}", statistics.median(seconds) / their_seconds, 0.2),
            at_most(f"gradient evaluations over Foolbox's, {norm}", asked[0] / their_asked, 0.2),
        ]
        share = (found[0] <= their_found * (1 + 1e-3)).double().mean()
        details |= {
            f"median {norm} (mean), ours": f"{found[0].median():.5g} ({found[0].mean():.5g})",
            f"median {norm} (mean), Foolbox": f"{their_found.median():.5g} ({their_found.mean():.5g})",
            f"images where ours is no more than 0.1 % longer, {norm}": f"{share:.1%}",
            f"seconds, ours, {norm}": spread(seconds),
            f"seconds, Foolbox, {norm}": spread([their_seconds]),
            f"processor seconds, ours, {norm}": spread(busy),
            f"processor seconds, Foolbox, {norm}": spread([their_busy]),
            f"gradient evaluations an image, ours, {norm}": f"{asked[0] / n:.0f}",
            f"gradient evaluations an image, Foolbox, {norm}": f"{their_asked / n:.0f}",
        }
    checks.append(at_most("most bytes in tensors, 800 images over 200", many / few, 1.1))
    show(
        "attacks",
        checks,
        {
            "images": f"{n}, all rightly classified",
            "multiply-adds of the CNN": f"{multiply_adds(cnn, images[0]):,}",
            "accuracy of the CNN": f"{accuracy:.1%}",
            **details,
            "most bytes in tensors, 200 images": f"{few / 2**20:.2f} MiB",
            "most bytes in tensors, 800 images": f"{many / 2**20:.2f} MiB",
            "Foolbox's boundary attacks that lacked a start": f"{restarts} of {2 * len(RATES)}",
            "seconds to train; to compile numba's and warm up": f"{training_seconds:.0f}; {warm_seconds:.0f}",
            "seconds in all": f"{time.perf_counter() - begun:.0f}",
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
