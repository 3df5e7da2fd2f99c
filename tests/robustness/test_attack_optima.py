"""The attacks' distances: closed-form optima of linear networks, and each other's of a trained one."""

import pytest

from neuroprior.robustness.attacks import (
    DDN,
    FMN,
    JSMA,
    PGD,
    AdamPGD,
    BrendelBethge,
    CarliniWagner,
    SigmaZero,
    SparseFool,
)
from neuroprior.robustness.victim import Victim
from robustness.networks import attempted, solved


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("pixels", [64, 1024])
@pytest.mark.parametrize(
    ("attack", "norm"),
    [
        (PGD(), "linf"),
        (PGD(), "l2"),
        (AdamPGD(), "linf"),
        (DDN(), "l2"),
        (CarliniWagner(), "l2"),
        (BrendelBethge(), "l2"),
        (BrendelBethge(), "linf"),
        (FMN(), "l2"),
        (FMN(), "linf"),
    ],
    ids=str,
)
def test_a_linear_networks_optimum_is_reached_and_never_undercut(attack, norm, pixels, classes):
    exact = solved(pixels, classes, norm)
    attempt = attempted(attack, Victim(exact.net), exact.images, exact.labels, norm)
    ratio = attempt.found_length.double() / exact.optimum
    assert ratio.min() >= 1 - 1e-4
    assert ratio.median() <= 1.02
    assert (ratio <= 1.02).double().mean() >= 0.9, ratio  # the rest goes to the class that is nearest in another norm


@pytest.mark.parametrize("pixels", [64, 1024])
@pytest.mark.parametrize(
    ("attack", "norm", "classes", "most"),
    [
        (BrendelBethge(), "l1", 2, 1.01),
        (BrendelBethge(), "l1", 10, 1.05),
        (SparseFool(), "l1", 2, 1.01),
        (SparseFool(), "l1", 10, 1.10),
        (FMN(), "l1", 2, 1.03),
        (FMN(), "l1", 10, 1.05),
        (JSMA(), "l1", 2, 1.3),  # takes pixels by the product of both classes' slopes, not by their difference
    ],
    ids=str,
)
def test_the_least_sum_of_changes_of_a_linear_network_is_reached_and_never_undercut(
    attack, norm, classes, most, pixels
):
    """The optimum: pixels in the order of |w|, each to its bound, until the margin is crossed."""
    exact = solved(pixels, classes, norm)
    ratio = attempted(attack, Victim(exact.net), exact.images, exact.labels, norm).found_length.double() / exact.optimum
    assert ratio.min() >= 1 - 1e-4
    assert ratio.median() <= most


@pytest.mark.parametrize("pixels", [64, 1024])
@pytest.mark.parametrize(
    ("attack", "classes"),
    [(BrendelBethge(), 2), (BrendelBethge(), 10), (JSMA(), 2), (FMN(), 2), (SigmaZero(), 2)],
    ids=str,
)
def test_a_linear_networks_fewest_pixels_are_found_to_within_one(attack, classes, pixels):
    """The optimum: pixels in the order of |w| times their room; on classes far apart, so that it takes several."""
    exact = solved(pixels, classes, "l0", apart=6.0)
    assert exact.optimum.median() >= 3
    more = attempted(attack, Victim(exact.net), exact.images, exact.labels, "l0").found_length.double() - exact.optimum
    assert more.min() >= 0
    assert more.median() <= 1


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_boundary_attack_walks_from_noise_to_a_linear_networks_optimum(norm):
    """From the ascent's end it has nowhere to go on a linear network: this is the walk itself."""
    exact = solved(64, 10, norm)
    attack = BrendelBethge(lr=0.01)
    attempt = attempted(attack, Victim(exact.net), exact.images, exact.labels, norm, repetition=1)
    ratio = attempt.found_length.double() / exact.optimum
    assert ratio.min() >= 1 - 1e-4
    assert ratio.median() <= 1.02


def test_l2_attacks_agree_on_a_trained_network(trained):
    """Three methods with nothing in common but the start; the pairwise ratio's median."""
    images, labels = trained.images[:24], trained.labels[:24]
    found = [
        attempted(attack, Victim(trained.net), images, labels, "l2").found_length
        for attack in (DDN(), CarliniWagner(), BrendelBethge())
    ]
    for one in found:
        for other in found:
            assert (one / other).median() == pytest.approx(1, abs=0.05)


def test_l1_attacks_agree_on_a_trained_network(trained):
    images, labels = trained.images[:24], trained.labels[:24]
    boundary, fast, fool = (
        attempted(attack, Victim(trained.net), images, labels, "l1").found_length
        for attack in (BrendelBethge(), FMN(), SparseFool())
    )
    assert (boundary / fast).median() == pytest.approx(1, abs=0.05)
    assert 0.95 <= (fool / boundary).median() <= 1.2  # it stops where it has crossed, and is not refined


def test_l0_attacks_agree_on_a_trained_network(trained):
    images, labels = trained.images[:24], trained.labels[:24]
    boundary, fast, smooth, saliency = (
        attempted(attack, Victim(trained.net), images, labels, "l0").found_length
        for attack in (BrendelBethge(), FMN(), SigmaZero(), JSMA())
    )
    for other in (fast, smooth):
        assert (other - boundary).median().abs() <= 1
    assert 0 <= (saliency - boundary).median() <= 5  # greedy, and never takes a pixel back


def test_linf_attacks_agree_on_a_trained_network(trained):
    images, labels = trained.images[:24], trained.labels[:24]
    pgd, adam, boundary = (
        attempted(attack, Victim(trained.net), images, labels, "linf").found_length
        for attack in (PGD(), AdamPGD(), BrendelBethge())
    )
    assert (pgd / boundary).median() == pytest.approx(1, abs=0.05)
    assert (pgd / adam).median() == pytest.approx(1, abs=0.05)
