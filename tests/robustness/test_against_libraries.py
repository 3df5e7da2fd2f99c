"""Ours beside other people's forms of the same attacks, on a small trained network: as often found, never farther."""

import warnings

import pytest
import torch

from neuroprior.robustness import JSMA, BrendelBethge, SparseFool, Victim
from neuroprior.robustness.attacks.geometry import length
from robustness.networks import attempted


def lengths(found: torch.Tensor, trained, n: int, norm: str) -> torch.Tensor:
    """inf where what a library gives is no adversarial in [0, 1]."""
    images, labels = trained.images[:n], trained.labels[:n]
    wrong = trained.net(found).argmax(1) != labels
    inside = ((found >= 0) & (found <= 1)).flatten(1).all(1)
    return torch.where(wrong & inside, length(found - images, norm), torch.inf)


@pytest.mark.parametrize("theta", [1.0, -1.0])
def test_jsma_beside_the_adversarial_robustness_toolbox(trained, theta):
    """It moves pixels by twos, one way, towards a class drawn at random; ours both ways, towards the likeliest."""
    pytest.importorskip("art")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it imports
        from art.attacks.evasion import SaliencyMapMethod
        from art.estimators.classification import PyTorchClassifier

        model = PyTorchClassifier(
            trained.net, torch.nn.CrossEntropyLoss(), input_shape=(1, 16, 16), nb_classes=10, clip_values=(0, 1)
        )
        attack = SaliencyMapMethod(model, theta=theta, gamma=0.1, verbose=False)
        theirs = torch.from_numpy(attack.generate(trained.images[:20].numpy()))
    images, labels = trained.images[:20], trained.labels[:20]
    for norm in ("l0", "l1"):
        ours = attempted(JSMA(), Victim(trained.net), images, labels, norm).found_length
        reference = lengths(theirs, trained, 20, norm)
        assert (ours < torch.inf).sum() >= (reference < torch.inf).sum()
        assert ours.median() <= reference.median()


@pytest.mark.slow
def test_sparse_fool_beside_torchattacks(trained):
    """With lambda 3, as published; ours with 1, and with 3: both find all, and nearer."""
    torchattacks = pytest.importorskip("torchattacks")
    images, labels = trained.images[:20], trained.labels[:20]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attack = torchattacks.SparseFool(trained.net, steps=20, lam=3)
        theirs = torch.cat([attack(images[k : k + 1], labels[k : k + 1]) for k in range(20)])
    reference = lengths(theirs, trained, 20, "l1")
    for setting in (SparseFool(1.0), SparseFool(3.0)):
        ours = attempted(setting, Victim(trained.net), images, labels, "l1").found_length
        assert (ours < torch.inf).sum() >= (reference < torch.inf).sum()
        assert ours.median() <= reference.median()


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["l0", "l1"])
def test_sparse_brendel_bethge_beside_foolbox(trained, norm, monkeypatch):
    monkeypatch.setenv("GIT_PYTHON_REFRESH", "quiet")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numba and Foolbox say what they do
        foolbox = pytest.importorskip("foolbox")
        kind = {"l0": foolbox.attacks.L0BrendelBethgeAttack, "l1": foolbox.attacks.L1BrendelBethgeAttack}[norm]
        model = foolbox.PyTorchModel(trained.net, bounds=(0, 1), device="cpu")
        images, labels = trained.images[:20], trained.labels[:20]
        theirs = kind(steps=100, lr=1e-3).run(model, images, foolbox.criteria.Misclassification(labels))
    reference = lengths(theirs, trained, 20, norm)
    ours = attempted(BrendelBethge(), Victim(trained.net), images, labels, norm).found_length
    assert ours.median() <= reference.median() * (1 + 1e-3)
    assert ours.mean() <= reference.mean() * (1 + 1e-3)
