"""The decision-based attack: near the optimum from decisions alone, never below it, and blind to everything else."""

import pytest
import torch
from torch import nn

from neuroprior.robustness.attacks.boundary import Boundary
from neuroprior.robustness.attacks.geometry import length
from neuroprior.robustness.victim import Victim
from neuroprior.types import InputError
from robustness.networks import Combination, attempted, solved

every_norm = pytest.mark.parametrize("norm", ["l2", "linf"])


@every_norm
def test_two_classes_linear_optimum_is_neared_and_never_undercut(norm):
    exact = solved(64, 2, norm, n=16)
    few, many = (
        attempted(Boundary(queries), Victim(exact.net), exact.images, exact.labels, norm) for queries in (300, 1500)
    )
    ratio = many.found_length.double() / exact.optimum
    assert ratio.min() >= 1 - 1e-4
    assert ratio.median() <= (1.08 if norm == "l2" else 1.2)
    assert (many.found_length <= few.found_length * 1.001).all()  # more queries are never worse
    assert (many.gradients == 0).all()
    assert Boundary().most_gradients == 0


@every_norm
def test_the_budget_is_kept_and_what_is_found_holds(norm, trained):
    images, labels = trained.images[:12], trained.labels[:12]
    victim = Victim(trained.net)
    attempt = attempted(Boundary(150), victim, images, labels, norm, tighten=False)
    assert (attempt.forwards == 150).all()
    assert victim.gradients == 0
    x = attempt.found
    assert ((x >= 0) & (x <= 1)).all()
    assert (victim.logits(x).argmax(1) != labels).all()
    assert torch.allclose(length(x - images, norm), attempt.found_length)


class Decision(nn.Module):
    """Only the decision of another network: 1 at its class, 0 elsewhere."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        z = self.net(x)
        return nn.functional.one_hot(z.argmax(1), z.shape[1]).to(z.dtype)


@every_norm
def test_nothing_but_the_decision_counts(norm, trained):
    """Logits replaced by the decision alone: to the last bit the same points."""
    images, labels = trained.images[:6], trained.labels[:6]
    whole, bare = (
        attempted(Boundary(200), Victim(net), images, labels, norm) for net in (trained.net, Decision(trained.net))
    )
    assert torch.equal(whole.found, bare.found)
    assert not torch.equal(whole.found, images)


@every_norm
def test_company_order_and_batches_do_not_matter(norm, trained):
    images, labels = trained.images[:10], trained.labels[:10]

    def lengths(rows, batch_size=64):
        victim = Victim(trained.net, batch_size=batch_size)
        return attempted(Boundary(150), victim, images[rows], labels[rows], norm).found_length

    together = lengths(torch.arange(10))
    assert torch.allclose(lengths(torch.arange(10).flip(0), 8).flip(0), together, rtol=0.02)
    assert torch.allclose(lengths(torch.tensor([3])), together[3:4], rtol=0.02)
    assert torch.equal(lengths(torch.arange(10)), together)


@every_norm
def test_a_known_adversarial_is_where_it_begins(norm):
    """Noise cannot open this network; from a point that does, the boundary is walked."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.zeros(3, dtype=torch.int64)
    opened = 0.5 + Combination.signs * 0.3
    known = torch.rand(3, 1, 4, 4, generator=draw)
    known.flatten(1)[:, :12] = opened
    images = known.clone()
    images.flatten(1)[:, :3] = 0.5 - Combination.signs[:3] * 0.05
    lost = attempted(Boundary(300), Victim(Combination()), images, labels, norm)
    found = attempted(
        Boundary(300),
        Victim(Combination()),
        images,
        labels,
        norm,
        known=known,
        known_length=length(known - images, norm),
    )
    assert (lost.found_length == torch.inf).all()
    assert torch.equal(lost.found, images)
    optimum = 0.05 if norm == "linf" else 0.05 * 3**0.5
    assert (found.found_length >= optimum * (1 - 1e-4)).all()
    assert (found.found_length < 0.9 * length(known - images, norm)).all()


def test_what_is_refused(shapes_unchecked):
    with pytest.raises(InputError, match="give 1 and 2"):
        Boundary(queries=0)
