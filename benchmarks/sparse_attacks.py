"""Sparse attacks and accuracy under attack: ours against the libraries that they are tested against.

    python benchmarks/sparse_attacks.py [--json] [--images 100] [--threads 2]

A CNN of 10 MFLOP (5 million multiply-adds an image), trained on the packaged digits; all attack the same test images,
all of them rightly classified, and the network's answers cost both sides the same. Peers, each as it is published:
JSMA of the adversarial-robustness-toolbox (pixels go to white, at most a tenth of them, one class drawn at random; ours
aims at one too, and like it moves two pixels at a time), SparseFool of torchattacks (lambda 3), Foolbox's Brendel &
Bethge in l0 and l1 (100 steps of 0.001), and AutoAttack of pyautoattack (standard, at a radius that some of the images
withstand). SparseFool is left out where torchattacks is not installed (`pip install --no-deps torchattacks==3.5.1`).
What numba compiles is compiled beforehand. Each peer has one turn, ours three.
"""

import os

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # Foolbox looks for git as it is imported
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch's threads do not spin where cores are shared

import argparse
import contextlib
import importlib.util
import io
import math
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from digits import trained_cnn
from measured import at_most, show, spread
from torch import nn

from neuroprior.robustness import JSMA, Attack, BrendelBethge, Norm, SparseFool, accuracy_under_attack
from neuroprior.robustness import minimal_perturbations as search

CHANNELS = (72, 144)
RADIUS = 0.12  # in linf, of a network trained on clean digits
Rows = torch.Tensor


def art_jsma(network: nn.Module, images: Rows, labels: Rows) -> Rows:
    """JSMA of the adversarial-robustness-toolbox."""
    from art.attacks.evasion import SaliencyMapMethod
    from art.estimators.classification import PyTorchClassifier

    model = PyTorchClassifier(
        network, nn.CrossEntropyLoss(), input_shape=tuple(images.shape[1:]), nb_classes=10, clip_values=(0, 1)
    )
    attack = SaliencyMapMethod(model, theta=1.0, gamma=0.1, batch_size=len(images), verbose=False)
    return torch.from_numpy(attack.generate(images.numpy()))


def torchattacks_sparse_fool(network: nn.Module, images: Rows, labels: Rows) -> Rows:
    """SparseFool of torchattacks, one image after the other: it ends a batch with its slowest."""
    import torchattacks

    attack = torchattacks.SparseFool(network, steps=20, lam=3)
    return torch.cat([attack(images[k : k + 1], labels[k : k + 1]) for k in range(len(images))])


def foolbox_bethge(norm: Norm) -> Callable[[nn.Module, Rows, Rows], Rows]:
    """Brendel & Bethge of Foolbox."""

    def run(network: nn.Module, images: Rows, labels: Rows) -> Rows:
        import foolbox as fb

        kind = {"l0": fb.attacks.L0BrendelBethgeAttack, "l1": fb.attacks.L1BrendelBethgeAttack}[norm]
        model = fb.PyTorchModel(network, bounds=(0, 1), device="cpu")
        found: Rows = kind(steps=100, lr=1e-3).run(model, images, fb.criteria.Misclassification(labels))
        return found

    return run


def ours(attack: Attack, norm: Norm) -> Callable[[nn.Module, Rows, Rows], Rows]:
    """Our form in our search, its checks included: lengths."""

    def run(network: nn.Module, images: Rows, labels: Rows) -> Rows:
        ledger = search(network, images, labels, attacks=[attack], norm=norm)
        return torch.from_numpy(ledger.distances())

    return run


def lengths(network: nn.Module, images: Rows, labels: Rows, found: Rows, norm: Norm) -> Rows:
    """How far a library's points are; inf where one is no adversarial in [0, 1]."""
    wrong = (network(found).argmax(1) != labels) & ((found >= 0) & (found <= 1)).flatten(1).all(1)
    delta = (found - images).flatten(1).double()
    far = (delta != 0).sum(1).double() if norm == "l0" else delta.abs().sum(1)
    return torch.where(wrong, far, math.inf)


def clocked(form: Callable[[], Any]) -> tuple[Any, float]:
    """Return what it gives, and its seconds; silent."""
    start = time.perf_counter()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        given = form()
    return given, time.perf_counter() - start


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="end with one JSON object on a line")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    network, images, labels, accuracy = trained_cnn(CHANNELS)
    images, labels = images[: arguments.images], labels[: arguments.images]

    pairs: list[tuple[str, Norm, Callable[..., Rows], Attack]] = [
        ("JSMA, l0", "l0", art_jsma, JSMA(targets=1, at_once=2)),
        ("Brendel & Bethge, l0", "l0", foolbox_bethge("l0"), BrendelBethge(1e-3, 100)),
        ("Brendel & Bethge, l1", "l1", foolbox_bethge("l1"), BrendelBethge(1e-3, 100)),
    ]
    if importlib.util.find_spec("torchattacks") is not None:
        pairs.append(("SparseFool, l1", "l1", torchattacks_sparse_fool, SparseFool(1.0)))
    checks, details = [], {"images": f"{len(images)}, all rightly classified", "accuracy": f"{accuracy:.1%}"}
    for name, norm, peer, attack in pairs:
        mine = ours(attack, norm)
        clocked(lambda peer=peer: peer(network, images[:2], labels[:2]))  # numba compiles here, and both warm up
        clocked(lambda mine=mine: mine(network, images[:2], labels[:2]))
        theirs, their_seconds = clocked(lambda peer=peer: peer(network, images, labels))
        turns = [clocked(lambda mine=mine: mine(network, images, labels)) for _ in range(3)]
        seconds = [turn[1] for turn in turns]
        their_far, far = lengths(network, images, labels, theirs, norm), turns[0][0]
        checks += [
            at_most(f"seconds over the library's, {name}", statistics.median(seconds) / their_seconds, 1.0),
            at_most(f"median over the library's, {name}", float(far.median() / their_far.median()), 1.0),
        ]
        details |= {
            f"median (not found), ours, {name}": f"{far.median():.4g} ({int(far.isinf().sum())})",
            f"median (not found), library, {name}": f"{their_far.median():.4g} ({int(their_far.isinf().sum())})",
            f"seconds, ours, {name}": spread(seconds),
            f"seconds, library, {name}": f"{their_seconds:.3g}",
        }
        print(f"  {name}: {statistics.median(seconds):.2f} s, library {their_seconds:.2f} s", flush=True)

    left, seconds = clocked(lambda: accuracy_under_attack(network, images, labels, [RADIUS], norm="linf"))
    theirs, their_seconds = clocked(lambda: autoattack(network, images, labels))
    checks += [
        at_most("seconds over AutoAttack's, standard", seconds / their_seconds, 1.0),
        at_most("accuracy left beyond AutoAttack's, points", 100 * (left.at[0].accuracy - theirs), 0.5),
    ]
    details |= {
        f"accuracy at {RADIUS} in linf, ours": f"{left.at[0].accuracy:.1%}, fooled by {dict(left.at[0].fooled)}",
        f"accuracy at {RADIUS} in linf, AutoAttack": f"{theirs:.1%}",
        "seconds, ours; AutoAttack": f"{seconds:.1f}; {their_seconds:.1f}",
    }
    show("sparse_attacks", checks, details, arguments.json)


def autoattack(network: nn.Module, images: Rows, labels: Rows) -> float:
    """Accuracy that the published AutoAttack leaves."""
    from pyautoattack import AutoAttack

    attack = AutoAttack(network, norm="Linf", eps=RADIUS, seed=0)
    found, _ = attack.run_standard_evaluation(images.contiguous(), labels, batch_size=len(images))
    return float((network(found).argmax(1) == labels).float().mean())


if __name__ == "__main__":
    main()
