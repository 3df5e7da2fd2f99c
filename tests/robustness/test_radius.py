"""Accuracy under the ensemble: a linear network's exact radii, published networks, and the published AutoAttack."""

import time

import numpy as np
import pytest
import torch
from torch import nn

from neuroprior.robustness.attacks.attempt import Attempt
from neuroprior.robustness.radius import ROBUSTBENCH_RADII, STAGES, accuracy_under_attack
from neuroprior.robustness.victim import Victim
from neuroprior.types import InputError
from robustness.networks import published, small_cnn, solved


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("classes", [2, 10])
def test_a_linear_network_falls_at_its_exact_radii(norm, classes):
    exact = solved(64, classes, norm, n=20)
    labels = exact.labels.clone()
    labels[:4] = (labels[:4] + 1) % classes
    optimum = exact.optimum[4:]
    radii = [0.0, *np.quantile(optimum, [0.22, 0.52, 0.81]).tolist()]
    found = accuracy_under_attack(exact.net, exact.images, labels, radii, norm=norm, strength="quick")
    assert found.radii == tuple(radii)
    for one in found.at:
        assert one.accuracy == pytest.approx(float((optimum > one.radius).double().sum()) / 20)
        assert (one.n, one.already_wrong, one.failed_checks) == (20, 4, 0)
        assert tuple(stage for stage, _ in one.fooled) == STAGES
        assert sum(count for _, count in one.fooled) == 16 - round(20 * one.accuracy)
        assert one.forwards >= one.gradients
    assert found.at[0].gradients == 0


@pytest.mark.slow
def test_every_stage_alone_fools_a_linear_network(monkeypatch):
    """Each stage left alone with images at 1.1 times their optimum: none is idle."""
    exact = solved(64, 10, "linf", n=20)
    radius = float(exact.optimum.max()) * 1.5
    for stage in STAGES:
        monkeypatch.setattr("neuroprior.robustness.radius.STAGES", (stage,))
        (one,) = accuracy_under_attack(exact.net, exact.images, exact.labels, [radius]).at
        assert dict(one.fooled)[stage] >= 18, stage


def test_company_order_batches_and_other_radii_change_nothing(trained):
    images, labels = trained.images[:20], trained.labels[:20]
    one = accuracy_under_attack(trained.net, images, labels, [0.02, 0.06], strength="quick")
    two = accuracy_under_attack(
        trained.net, images.flip(0), labels.flip(0), [0.06, 0.02], strength="quick", batch_size=8
    )
    assert two.accuracy.tolist() == one.accuracy.tolist()[::-1]
    halves = [
        accuracy_under_attack(trained.net, images[rows], labels[rows], [0.06], strength="quick").accuracy[0]
        for rows in (slice(0, 10), slice(10, 20))
    ]
    assert np.mean(halves) == pytest.approx(one.accuracy[1])
    assert 0 < one.accuracy[1] < one.accuracy[0] < 1


def test_the_network_is_left_as_it_was_and_progress_ends_at_one(trained):
    net = small_cnn().train()
    said = []
    images = trained.images[:8]
    labels = net(images).argmax(1)
    accuracy_under_attack(net, images, labels, [0.01], strength="quick", progress=lambda part, what: said.append(part))
    assert net.training
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert said == sorted(said)
    assert said[-1] == 1


def test_a_point_that_does_not_hold_is_counted_and_fools_nobody(monkeypatch, trained):
    """The check says no to everything: all images stand, and what was claimed is told."""
    monkeypatch.setattr(
        "neuroprior.robustness.radius.verified_lengths", lambda attempt: np.full(len(attempt.images), np.inf)
    )
    (one,) = accuracy_under_attack(trained.net, trained.images[:8], trained.labels[:8], [0.2], strength="quick").at
    assert one.accuracy == 1
    assert one.failed_checks >= 8
    assert sum(count for _, count in one.fooled) == 0


def test_points_counted_lie_within_the_radius_in_float64(monkeypatch, trained):
    """All that were said to be wrong at a radius, measured again without rounding."""
    seen = []
    inside = Attempt._keep

    def keep(self, x, rows, logits):
        value = inside(self, x, rows, logits)
        far = (x.double() - self.images[rows].double()).flatten(1).abs().amax(1)
        seen.append(far[value > 0])
        return value

    monkeypatch.setattr(Attempt, "_keep", keep)
    accuracy_under_attack(trained.net, trained.images[:16], trained.labels[:16], [0.1], strength="quick")
    assert any(len(far) for far in seen)
    ascents = torch.cat(seen)
    assert float(ascents[ascents < 0.1 * (1 + 1e-4)].max()) <= 0.1


def test_the_radii_of_robustbench():
    assert ROBUSTBENCH_RADII == {"linf": 8 / 255, "l2": 0.5, "l1": 12.0}


def test_l1_falls_and_has_no_square(trained):
    found = accuracy_under_attack(
        trained.net, trained.images[:16], trained.labels[:16], [0.5, 30.0], norm="l1", strength="quick"
    )
    assert found.accuracy[0] > found.accuracy[1] == 0
    assert dict(found.at[1].fooled)["square"] == 0


@pytest.mark.parametrize(("name", "at_most"), [("adv", 0.515), pytest.param("mix", 0.55, marks=pytest.mark.slow)])
def test_published_networks_are_no_stronger_than_known(data, name, at_most):
    net, images, labels = published(data, name)
    (one,) = accuracy_under_attack(net, images, labels, [2 / 255], strength="quick").at
    assert 0.4 < one.accuracy <= at_most + 1e-9
    assert one.already_wrong == {"adv": 60, "mix": 42}[name]
    assert one.failed_checks == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["adv", "mix"])
def test_no_weaker_than_the_published_autoattack_and_no_slower(data, name):
    published_attack = pytest.importorskip("pyautoattack")
    net, images, labels = published(data, name)
    begun = time.process_time()
    (one,) = accuracy_under_attack(net, images, labels, [2 / 255]).at
    ours = time.process_time() - begun
    begun = time.process_time()
    theirs = published_attack.AutoAttack(net, norm="Linf", eps=2 / 255, seed=0)
    found, _ = theirs.run_standard_evaluation(images, labels, batch_size=250)
    spent = time.process_time() - begun
    with torch.no_grad():
        left = float((net(found).argmax(1) == labels).float().mean())
    assert one.accuracy <= left + 0.005 + 1e-9
    assert ours <= spent


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"radii": []}, "at least one"),
        ({"radii": [-0.1]}, "none below 0"),
        ({"norm": "l0"}, "give linf, l2 or l1"),
        ({"strength": "endless"}, "quick or standard"),
        ({"images": torch.full((4, 1, 16, 16), 2.0)}, "scale pixels to"),
        ({"model": Victim(nn.Sequential(small_cnn(), nn.Softmax(1)))}, "audit: the network gives probabilities"),
    ],
)
def test_what_is_refused(shapes_unchecked, change, says):
    images = torch.rand(4, 1, 16, 16)
    arguments = {"model": small_cnn(), "images": images, "labels": torch.arange(4), "radii": [0.1], **change}
    with pytest.raises(InputError, match=says) as refused:
        accuracy_under_attack(**arguments)
    assert "\n" not in str(refused.value)
