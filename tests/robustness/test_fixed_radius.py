"""Linf attacks of fixed radius: the closed form of a linear model, and published networks of known robustness."""

import numpy as np
import pytest
import torch
from torch import nn

from neuroprior import linf_accuracy
from neuroprior.types import InputError
from robustness.networks import published


@pytest.fixture(scope="module")
def linear():
    """A linear classifier of three classes, images far from black and white, and each one's exact smallest radius."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    images = 0.5 + 0.1 * (torch.rand(60, 1, 4, 4) - 0.5)
    weight, bias = model[1].weight.detach().double(), model[1].bias.detach().double()
    logits = images.flatten(1).double() @ weight.T + bias
    labels = logits.argmax(1)
    labels[:10] = (labels[:10] + 1) % 3  # ten are wrong from the start
    radius = torch.full((60,), torch.inf, dtype=torch.float64)
    for j in range(3):
        other = labels != j
        gap = logits.gather(1, labels[:, None])[:, 0] - logits[:, j]
        smallest = gap.clamp(min=0) / (weight[labels] - weight[j]).abs().sum(1)
        radius = torch.where(other, torch.minimum(radius, smallest), radius)
    return model, images, labels, radius


def test_a_linear_model_falls_at_its_exact_radius(linear):
    model, images, labels, radius = linear
    radii = [0.0, *np.quantile(radius[10:], [0.2, 0.5, 0.8]).tolist()]
    found = linf_accuracy(model, images, labels, radii)
    exact = [float((radius > r).double().mean()) for r in radii]
    assert found.n == 60
    assert exact[0] == pytest.approx(50 / 60)
    assert found.accuracy == pytest.approx(exact, abs=1.01 / 60)  # the one that lies on the quantile
    assert (np.diff(found.accuracy) <= 0).all()
    slack = linf_accuracy(model, images, labels, [0.97 * r for r in radii[1:]]).accuracy
    assert all(left >= float((radius > r).double().mean()) for left, r in zip(slack, radii[1:], strict=True))


def test_batches_order_and_other_images_change_nothing(linear):
    model, images, labels, _ = linear
    one = linf_accuracy(model, images, labels, [0.01, 0.03], restarts=2, steps=5)
    two = linf_accuracy(model, images.flip(0), labels.flip(0), [0.03, 0.01], restarts=2, steps=5, batch_size=7)
    assert one.accuracy.tolist() == two.accuracy.tolist()[::-1]


def test_the_model_is_left_as_it_was(linear):
    model, images, labels, _ = linear
    model.train()
    linf_accuracy(model, images, labels, [0.01], steps=2)
    assert model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(("name", "at_most"), [("adv", 0.515), ("mix", 0.55)])
def test_published_networks_are_no_stronger_than_known(data, name, at_most):
    """A margin PGD with 10 restarts of 50 steps leaves 51.5 % and 55.0 % at 2/255; one that leaves more is weaker."""
    net, images, labels = published(data, name)
    curve = linf_accuracy(net, images, labels, [0, 2 / 255], restarts=10)
    assert curve.accuracy[0] == pytest.approx({"adv": 0.70, "mix": 0.79}[name])
    assert 0.4 < curve.accuracy[1] <= at_most + 1e-9


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"radii": []}, "radii"),
        ({"radii": [-0.1]}, "radii >= 0"),
        ({"images": torch.full((60, 1, 4, 4), 2.0)}, "scale pixels to"),
        ({"labels": torch.zeros(3, dtype=torch.long)}, "one whole number an image"),
        ({"steps": 0}, "the others >= 1"),
    ],
)
def test_what_is_refused(linear, shapes_unchecked, change, says):
    model, images, labels, _ = linear
    arguments = {"images": images, "labels": labels, "radii": [0.1], **change}
    with pytest.raises(InputError, match=says):
        linf_accuracy(model, **arguments)
