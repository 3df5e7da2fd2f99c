"""Auto-PGD: closed-form optima, what each loss is, what it does not do, and the projection that l1 needs."""

import numpy as np
import pytest
import torch

from neuroprior.robustness.attacks import PGD
from neuroprior.robustness.attacks.apgd import (
    APGD,
    LOSSES,
    _checkpoints,
    _into_ball_and_box,
    ascend,
    start_within,
)
from neuroprior.robustness.attacks.geometry import length
from neuroprior.robustness.attacks.square import Square
from neuroprior.robustness.victim import Victim
from neuroprior.types import InputError
from robustness.networks import attempted, solved


class Within:
    """An ascent at a fixed radius, run as an attack is."""

    name, setting, most_gradients = "within", "", 0

    def __init__(self, norm, radius, start=False, **options):
        self.norms, self.radius, self.start, self.options = (norm,), radius, start, options

    def __call__(self, attempt):
        rows, radius = attempt.rows, self.radius.float()
        x = start_within(attempt, rows, radius, "start") if self.start else attempt.images
        self.best = ascend(attempt, rows, x, radius, **self.options)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    ("loss", "pixels", "classes"), [("margin", 64, 2), ("margin", 64, 10), ("margin", 1024, 10), ("dlr", 64, 10)]
)
def test_a_linear_networks_optimum_is_reached_and_never_undercut(loss, norm, pixels, classes):
    exact = solved(pixels, classes, norm)
    attempt = attempted(APGD(loss=loss), Victim(exact.net), exact.images, exact.labels, norm)
    ratio = attempt.found_length.double() / exact.optimum
    assert ratio.min() >= 1 - 1e-4
    assert ratio.median() <= 1.001
    assert (ratio <= 1.02).double().mean() >= 0.9, ratio


def test_cross_entropy_points_between_classes_where_logits_are_small():
    """The contrapositive: it is not the margin's optimum that it goes to, but with two classes it is the same."""
    ten, two = (solved(64, classes, "linf", n=20) for classes in (10, 2))
    found = attempted(APGD(loss="ce"), Victim(ten.net), ten.images, ten.labels, "linf").found_length
    assert (found.double() / ten.optimum).median() > 1.05
    found = attempted(APGD(loss="ce"), Victim(two.net), two.images, two.labels, "linf").found_length
    assert (found.double() / two.optimum).max() < 1.001


def linear_l1(exact):
    """min_j (z_y - z_j) / max_i |w_y - w_j|_i, and whether one pixel alone can go so far."""
    x, w = exact.images.double().flatten(1), exact.net.weight.detach().double()
    z = (x - 0.5) @ w.T
    between = w[exact.labels][:, None] - w[None]
    size, pixel = between.abs().max(2)
    gap = z.gather(1, exact.labels[:, None]) - z
    far, j = torch.where(size > 0, gap / size.clamp_min(1e-30), torch.inf).min(1)
    rows = torch.arange(len(x))
    at = pixel[rows, j]
    end = x[rows, at] - far * between[rows, j, at].sign()
    return far, (end >= 0) & (end <= 1)


def test_in_l1_one_pixel_is_the_linear_networks_optimum():
    exact = solved(64, 10, "l2", n=40)
    optimum, fit = linear_l1(exact)
    images, labels, optimum = exact.images[fit], exact.labels[fit], optimum[fit]
    assert len(images) > 10
    attempt = attempted(APGD(steps=50), Victim(exact.net), images, labels, "l1")
    ratio = attempt.found_length.double() / optimum
    assert ratio.min() >= 1 - 1e-4
    assert ratio.median() <= 1.1


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_at_a_radius_what_lies_within_falls_and_what_lies_beyond_stands(norm):
    exact = solved(64, 10, norm)
    for factor, falls in ((1.02, True), (0.98, False)):
        attack = Within(norm, factor * exact.optimum, steps=50)
        attempt = attempted(attack, Victim(exact.net), exact.images, exact.labels, norm, tighten=False)
        found = attempt.found_length < torch.inf
        assert float(found.double().mean()) >= 0.9 if falls else not bool(found.any())
        assert (attempt.found_length[found] <= factor * exact.optimum[found] * (1 + 1e-4)).all()
        assert ((attempt.found >= 0) & (attempt.found <= 1)).all()
        # A sample ends at its first wrong point: the others go on to the last step.
        assert (attempt.gradients[~found] == 51).all()
        assert (attempt.gradients[found] <= 51).all()


def test_the_best_point_is_returned_within_the_ball_and_no_worse_than_the_start(trained):
    images, labels = trained.images[:24], trained.labels[:24]
    victim = Victim(trained.net)
    for norm, radius in (("linf", 0.05), ("l2", 0.5), ("l1", 5.0)):
        attack = Within(norm, torch.full((24,), radius), start=True, steps=30, loss=LOSSES["ce"], stop=False)
        attempt = attempted(attack, victim, images, labels, norm, tighten=False)
        assert (attempt.gradients == 31).all()
        assert (length(attack.best - images, norm) <= radius * (1 + 1e-4)).all()
        clean, best = (LOSSES["ce"](victim.logits(x), labels) for x in (images, attack.best))
        assert (best > clean).all()


def test_the_ratios_are_what_is_printed_and_blind_to_scale():
    z = torch.tensor([[3.0, 1.0, 0.5, -1.0, 0.0], [0.2, 0.1, 2.0, 1.5, 0.4]])
    y, t = torch.tensor([0, 3]), torch.tensor([2, 0])
    pairs = 5 * y + t
    # -(3 - 1) / (3 - 0.5), -(1.5 - 2) / (2 - 0.4)
    assert LOSSES["dlr"](z, y).tolist() == pytest.approx([-0.8, 0.5 / 1.6])
    # -(3 - 0.5) / (3 - (0.5 + 0) / 2), -(1.5 - 0.2) / (2 - (0.4 + 0.2) / 2)
    assert LOSSES["dlr_t"](z, pairs).tolist() == pytest.approx([-2.5 / 2.75, -1.3 / 1.7])
    assert LOSSES["ce"](z, y).tolist() == pytest.approx((z.logsumexp(1) - z[[0, 1], y]).tolist())
    for name, against in (("dlr", y), ("dlr_t", pairs)):
        assert torch.allclose(LOSSES[name](100 * z, against), LOSSES[name](z, against))
    assert not torch.allclose(LOSSES["margin"](100 * z, y), LOSSES["margin"](z, y))
    few = z[:, :2]
    assert torch.equal(LOSSES["dlr"](few, torch.tensor([0, 1])), LOSSES["margin"](few, torch.tensor([0, 1])))
    assert LOSSES["dlr_t"](z[:, :3], 3 * torch.tensor([0, 1]) + 2).tolist() == pytest.approx([-2.5, 1.9])


def test_checkpoints_are_those_of_the_paper():
    """0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99 of the steps."""
    assert sorted(_checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]


def test_the_projection_is_the_nearest_point_of_ball_and_box():
    """Against a slow twin: the same shrinkage found by bisection; and inside both nothing moves."""
    draw = torch.Generator().manual_seed(0)
    clean = torch.rand(40, 1, 5, 5, generator=draw)
    point = clean + torch.randn(40, 1, 5, 5, generator=draw)
    radius = 0.1 + 8 * torch.rand(40, generator=draw)
    found = _into_ball_and_box(point, clean, radius)
    for row in range(40):
        x0, p, r = clean[row].double().numpy(), point[row].double().numpy(), float(radius[row])
        low, high = 0.0, 10.0
        for _ in range(60):
            s = (low + high) / 2
            x = np.clip(x0 + np.sign(p - x0) * np.maximum(np.abs(p - x0) - s, 0), 0, 1)
            low, high = (s, high) if np.abs(x - x0).sum() > r else (low, s)
        assert np.abs(found[row].numpy() - x).max() < 1e-4
    again = _into_ball_and_box(found, clean, radius * 1.01)
    assert torch.allclose(again, found, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_company_and_order_do_not_matter_and_budgets_are_kept(norm, trained):
    images, labels = trained.images[:16], trained.labels[:16]
    attack = APGD(steps=10)

    def run(rows, batch_size=64, **options):
        victim = Victim(trained.net, batch_size=batch_size)
        return attempted(attack, victim, images[rows], labels[rows], norm, repetition=1, **options)

    together = run(torch.arange(16)).found_length
    assert torch.allclose(run(torch.arange(16).flip(0), 16).found_length.flip(0), together, rtol=0.01)
    assert torch.allclose(run(torch.tensor([7])).found_length, together[7:8], rtol=0.01)
    may = torch.tensor([1, 2, 5, 12, 30, 10_000])
    some = run(torch.arange(6), max_gradients=may, tighten=False)
    assert (some.gradients <= may).all()
    assert (some.gradients[:4] == may[:4]).all()
    assert int(some.gradients[5]) <= attack.most_gradients


def test_it_agrees_with_pgd_on_a_trained_network(trained):
    images, labels = trained.images[:12], trained.labels[:12]
    ours, pgd = (
        attempted(attack, Victim(trained.net), images, labels, "linf").found_length for attack in (APGD(), PGD())
    )
    assert (ours / pgd).median() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_square_fools_by_scores_alone_what_lies_well_within_and_nothing_beyond(norm):
    exact = solved(64, 2, norm, n=16)

    class Search:
        name, norms, setting, most_gradients = "search", (norm,), "", 0

        def __init__(self, factor):
            self.factor = factor

        def __call__(self, attempt):
            Square(1000)(attempt, attempt.rows, (self.factor * exact.optimum).float())

    for factor, share in ((3.0, 0.9), (0.99, 0.0)):
        attempt = attempted(Search(factor), Victim(exact.net), exact.images, exact.labels, norm, tighten=False)
        found = attempt.found_length < torch.inf
        assert (attempt.gradients == 0).all()
        assert float(found.double().mean()) >= share
        assert share or not bool(found.any())
        assert (attempt.found_length[found] <= factor * exact.optimum[found] * (1 + 1e-5)).all()
        assert (attempt.forwards[~found] == 1000).all()


@pytest.mark.parametrize("made", [lambda: APGD(steps=0), lambda: APGD(loss="dlr_t"), lambda: Square(0)])
def test_what_is_refused(shapes_unchecked, made):
    with pytest.raises(InputError, match="give"):
        made()
