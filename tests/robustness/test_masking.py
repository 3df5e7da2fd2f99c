"""Masked on purpose: each way is seen and named; an honest network is not accused."""

import cProfile
import sys

import pytest
import torch
from torch import nn

from neuroprior.robustness.masking import masking_report
from neuroprior.robustness.masking_verdict import Masking
from neuroprior.types import InputError
from robustness.networks import small_cnn

RADIUS = 0.06


class Rounded(nn.Module):
    """Sixteen levels of gray in front of a network: nothing of its robustness is new, and its gradient is zero."""

    def forward(self, x):
        return (16 * x).round() / 16


class Saturated(nn.Module):
    """The same decisions, behind a step: flat but within a hair of the boundary."""

    def forward(self, z):
        first, second = z.topk(2, dim=1).values.unbind(1)
        return torch.tanh(200 * (z - (first + second)[:, None] / 2))


class Dropping(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, 0.2, training=True)


def names(record: Masking) -> set[str]:
    return {finding.name for finding in record.findings if finding.masks}


@pytest.fixture(scope="module")
def report(trained):
    networks = {
        "honest": trained.net,
        "rounded": nn.Sequential(Rounded(), trained.net),
    }
    return masking_report(networks, trained.images[:12], trained.labels[:12], radius=RADIUS, queries=200)


def test_an_honest_network_is_not_accused(report):
    honest, _ = report
    assert honest.findings == ()
    assert not honest.masked
    assert honest.verdict.startswith("no sign of masking on 12 rightly classified images of 12: ")
    assert (honest.model, honest.n, honest.right, honest.classes) == ("honest", 12, 12, 10)
    assert honest.decision_median > honest.white_box_median > 0
    assert honest.square_only == honest.large_radius_accuracy == honest.zero_gradients == 0
    assert honest.decision_nearer <= 1 / 12
    assert [count for count, _ in honest.steps] == [10, 30, 100, 300]
    assert [count for count, _ in honest.restarts] == [1, 3, 10]
    left = [share for _, share in honest.restarts]
    assert left == sorted(left, reverse=True)
    assert 0 < honest.white_box_accuracy <= min(left)
    assert all(alone == 0 for _, _, alone in honest.transfer)


def test_rounding_the_input_is_seen_in_four_ways(report):
    _, rounded = report
    assert rounded.masked
    assert rounded.verdict.startswith("masking: ")
    assert {"zero_gradients", "decision_based_nearer", "transfer_better", "large_radius_withstood"} <= names(rounded)
    assert rounded.zero_gradients == 1
    assert rounded.decision_median < rounded.white_box_median
    ((other, share, alone), *_) = rounded.transfer
    assert other == "honest"
    assert share < rounded.white_box_accuracy - alone / 2


@pytest.mark.slow
def test_a_saturated_end_hides_gradients_and_not_the_boundary(trained):
    networks = {"honest": trained.net, "saturated": nn.Sequential(trained.net, Saturated())}
    honest, saturated = masking_report(networks, trained.images[:16], trained.labels[:16], radius=RADIUS, queries=250)
    assert saturated.masked
    assert "transfer_better" in names(saturated) or "zero_gradients" in names(saturated)
    assert saturated.white_box_accuracy > honest.white_box_accuracy
    assert saturated.decision_median == pytest.approx(honest.decision_median, rel=0.05)


def test_probabilities_and_random_answers_are_named(trained):
    networks = {
        "soft": nn.Sequential(trained.net, nn.Softmax(1)),
        "drops": nn.Sequential(Dropping(), trained.net),
    }
    soft, drops = masking_report(networks, trained.images[:3], trained.labels[:3], radius=0.3, queries=20)
    assert "probabilities" in names(soft)
    assert "random_answers" in names(drops)
    assert soft.repeatable == 0


class Purifying(nn.Module):
    """A step against the gradient of its own certainty, before it answers."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        with torch.enable_grad():
            own = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.net(own).amax(1).sum(), own)
        return self.net(x + 1e-3 * slope.sign())


def test_who_measures_time_with_cprofile_goes_on_measuring(trained):
    """Its profiler is no function: taken away, it could not be put back."""
    profile = cProfile.Profile()
    profile.enable()
    try:
        (found,) = masking_report(
            {"plain": trained.net}, trained.images[:2], trained.labels[:2], radius=RADIUS, queries=20
        )
        assert sys.getprofile() is profile
    finally:
        profile.disable()
    assert not found.gradients_inside


def test_a_network_that_takes_gradients_while_it_answers_is_told_and_not_accused(trained):
    networks = {"plain": trained.net, "purifies": Purifying(trained.net)}
    plain, purifies = masking_report(networks, trained.images[:3], trained.labels[:3], radius=RADIUS, queries=20)
    assert not plain.gradients_inside
    assert purifies.gradients_inside
    assert {finding.name for finding in purifies.findings if not finding.masks} >= {"gradients_inside"}
    assert not any(finding.masks for finding in purifies.findings if finding.name == "gradients_inside")


def test_few_classes_are_told_and_no_accusation(trained):
    two = nn.Sequential(trained.net, nn.Linear(10, 2))
    (record,) = masking_report(
        {"two": two}, trained.images[:4], two(trained.images[:4]).argmax(1), radius=0.5, queries=20
    )
    found = {finding.name for finding in record.findings}
    assert found == {"few_classes", "radius_tells_nothing"}  # everything falls at half the range
    assert not record.masked


def test_no_verdict_where_nothing_was_asked(trained):
    wrong = (trained.labels[:4] + 1) % 10
    (record,) = masking_report({"net": trained.net}, trained.images[:4], wrong, radius=RADIUS, queries=20)
    assert record.verdict == "cannot be judged: none of 4 images is classified rightly"


def test_a_network_that_gives_nan_is_not_fooled_by_it(trained):
    """Answers that are not finite, away from its own images, are no adversarials of other networks' points."""

    class Breaks(nn.Module):
        def forward(self, x):
            logits = trained.net(x)
            known = (x[:, None] - trained.images[None, :4]).abs().flatten(2).amax(2).amin(1) < 1e-6
            return torch.where(known[:, None], logits, torch.nan)

    both = {"sound": trained.net, "breaks": Breaks()}
    _, broken = masking_report(both, trained.images[:4], trained.labels[:4], radius=RADIUS, queries=20)
    assert "transfer_better" not in names(broken)


def test_gray_images_are_shown_three_times_to_a_network_that_wants_colour(trained):
    colour = nn.Sequential(Mean(), trained.net)
    gray, rgb = masking_report(
        {"gray": trained.net, "colour": colour}, trained.images[:3], trained.labels[:3], radius=RADIUS, queries=20
    )
    assert rgb.white_box_median == pytest.approx(gray.white_box_median, rel=1e-3)


class Mean(nn.Module):
    """Three channels, and no others, to their mean."""

    def forward(self, x):
        return (x * torch.ones(1, 3, 1, 1)).mean(1, keepdim=True) if x.shape[1] == 3 else x @ torch.ones(7)


@pytest.mark.slow
def test_in_l2_the_same_verdicts(trained):
    networks = {"honest": trained.net, "rounded": nn.Sequential(Rounded(), trained.net)}
    honest, rounded = masking_report(
        networks, trained.images[:8], trained.labels[:8], norm="l2", radius=0.5, queries=150
    )
    assert not honest.masked
    assert "zero_gradients" in names(rounded)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"radius": 0}, "a radius above 0"),
        ({"models": {}}, "give a network"),
        ({"norm": "l1"}, "linf or l2"),
        ({"labels": torch.tensor([0, 1, 2, 30])}, "small has 10 classes"),
    ],
)
def test_what_is_refused(shapes_unchecked, change, says):
    images = torch.rand(4, 1, 16, 16)
    arguments = {"models": {"small": small_cnn()}, "images": images, "labels": torch.arange(4), "radius": 0.1, **change}
    with pytest.raises(InputError, match=says):
        masking_report(**arguments)
