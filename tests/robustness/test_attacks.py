"""The attacks: what is found holds, no company, no overspending, and one bad sample's harm."""

import pytest
import torch
from torch import nn

from neuroprior.robustness.attacks import (
    ATTACKS,
    DDN,
    FMN,
    JSMA,
    PGD,
    AdamPGD,
    Attack,
    BrendelBethge,
    CarliniWagner,
    SigmaZero,
    SparseFool,
)
from neuroprior.robustness.attacks.geometry import length, over
from neuroprior.robustness.attacks.registry import chosen
from neuroprior.robustness.attacks.starts import starting_points
from neuroprior.robustness.victim import Victim, margin
from neuroprior.types import InputError
from robustness.networks import Combination, NanNear, attempted, solved

QUICK = [
    (PGD(step=0.2, steps=10), "linf"),
    (PGD(step=0.2, steps=10), "l2"),
    (AdamPGD(step=0.2, steps=10), "linf"),
    (DDN(steps=50), "l2"),
    (CarliniWagner(searches=3, steps=60), "l2"),
    (BrendelBethge(lr=0.01, steps=60), "l2"),
    (BrendelBethge(lr=0.01, steps=60), "linf"),
    (BrendelBethge(steps=60), "l1"),
    (BrendelBethge(steps=60), "l0"),
    (JSMA(targets=2), "l0"),
    (JSMA(targets=2), "l1"),
    (SparseFool(), "l1"),
    (FMN(steps=60), "l0"),
    (FMN(steps=60), "l1"),
    (FMN(steps=60), "l2"),
    (FMN(steps=60), "linf"),
    (SigmaZero(steps=60), "l0"),
]
NAMES = [f"{attack.name}-{norm}" for attack, norm in QUICK]
every_attack = pytest.mark.parametrize(("attack", "norm"), QUICK, ids=NAMES)


@every_attack
@pytest.mark.parametrize("repetition", [0, 1])
def test_what_is_found_holds(attack, norm, repetition, trained):
    """In [0, 1], misclassified, as long as is said; the length never grows on the way; each look is counted."""
    images, labels = trained.images[:16], trained.labels[:16]
    victim = Victim(trained.net)
    attempt = attempted(attack, victim, images, labels, norm, repetition=repetition)
    found = attempt.found_length < torch.inf
    x = attempt.found[found]
    assert int(found.sum()) >= 10
    assert ((x >= 0) & (x <= 1)).all()
    # wrong up to rounding: here they stand in other batches than where they were found
    assert (margin(victim.logits(x), labels[found]) > -1e-4).all()
    assert torch.allclose(length(x - images[found], norm), attempt.found_length[found])
    assert (attempt.found_length[~found] == torch.inf).all()
    assert torch.equal(attempt.found[~found], images[~found])
    assert (int(attempt.forwards.sum()), int(attempt.gradients.sum())) == (victim.forwards - len(x), victim.gradients)
    best = torch.full((16,), torch.inf)
    for rows, forwards, gradients, far in attempt.improvements:
        assert (torch.from_numpy(far) < best[rows]).all()
        assert (forwards <= attempt.forwards.numpy()[rows]).all()
        assert (gradients <= attempt.gradients.numpy()[rows]).all()
        best[rows] = torch.from_numpy(far)
    assert torch.equal(best, attempt.found_length)


@every_attack
@pytest.mark.parametrize("repetition", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_company_and_order_do_not_matter(attack, norm, repetition, trained):
    images, labels = trained.images, trained.labels

    def lengths(rows: torch.Tensor, batch_size: int) -> torch.Tensor:
        victim = Victim(trained.net, batch_size=batch_size)
        return attempted(attack, victim, images[rows], labels[rows], norm, repetition=repetition).found_length

    everyone = torch.arange(100)
    together = lengths(everyone, 128)
    assert torch.allclose(lengths(everyone.flip(0), 48).flip(0), together, rtol=0.01)
    for row in (0, 50, 99):
        assert torch.allclose(lengths(everyone[row : row + 1], 128), together[row : row + 1], rtol=0.01)


@every_attack
def test_another_repetition_is_another_attempt_and_the_same_one_is_the_same(attack, norm, trained):
    images, labels = trained.images[:16], trained.labels[:16]
    first, second, again = (
        attempted(attack, Victim(trained.net), images, labels, norm, repetition=k).found for k in (1, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


@every_attack
def test_what_is_known_is_bettered_or_left(attack, norm):
    """Known adversarials 30 % too far: found are nearer ones (never the same again as if new), or none."""
    exact = solved(64, 2, norm)
    known_in = "l2" if norm == "l0" else norm  # too many pixels, not the same ones a little farther
    start = attempted(BrendelBethge(), Victim(exact.net), exact.images, exact.labels, known_in)
    known = exact.images + 1.3 * (start.found - exact.images)
    inside = ((known >= 0) & (known <= 1)).flatten(1).all(1)
    images, labels, known = exact.images[inside], exact.labels[inside], known[inside]
    known_length = length(known - images, norm)
    attempt = attempted(attack, Victim(exact.net), images, labels, norm, known=known, known_length=known_length)
    assert int(inside.sum()) > 20
    most = 1.2 if isinstance(attack, JSMA) else 1.02
    assert (attempt.found_length.double() / exact.optimum[inside]).median() <= most


@every_attack
@pytest.mark.parametrize("repetition", [0, 1])
def test_no_sample_costs_more_gradients_than_it_may(attack, norm, repetition, trained):
    may = torch.tensor([1, 2, 3, 5, 8, 13, 26, 40, 70, 10_000])
    images, labels = trained.images[:10], trained.labels[:10]
    attempt = attempted(
        attack, Victim(trained.net), images, labels, norm, repetition=repetition, max_gradients=may, tighten=False
    )
    assert (attempt.gradients <= may).all()
    at_once = 2 if isinstance(attack, JSMA) else 1
    assert (attempt.gradients[:5] > may[:5] - at_once).all()  # a sample's budget is not cut short by another's
    assert int(attempt.gradients[-1]) > 8
    free = attempted(attack, Victim(trained.net), images[9:], labels[9:], norm, repetition=repetition, tighten=False)
    assert float(attempt.found_length[9]) == pytest.approx(float(free.found_length[0]), rel=0.01)
    assert int(free.gradients[0]) == pytest.approx(int(attempt.gradients[9]), abs=2)  # rounding may end it sooner
    assert int(attempt.gradients[9]) <= attack.most_gradients


@pytest.fixture
def combinations():
    """Ten samples of class 1, of which each knows the way out, and in their midst one that nothing can open."""
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(11, 1, 4, 4, generator=draw)
    depth = 0.1 + 0.3 * torch.rand(11, 12, generator=draw)
    images.flatten(1)[:, :12] = 0.5 + Combination.signs * depth
    labels = torch.ones(11, dtype=torch.int64)
    images[5].flatten()[:12] = 0.4  # six pixels are on the wrong side
    labels[5] = 0
    return images, labels, depth.amin(1)


@every_attack
@pytest.mark.parametrize("repetition", [0, 1])
def test_a_sample_without_a_start_stops_nobody_else(attack, norm, repetition, combinations):
    images, labels, optimum = combinations
    net = Combination()
    assert torch.equal(net(images).argmax(1), labels)
    attempt = attempted(attack, Victim(net), images, labels, norm, repetition=repetition)
    others = torch.arange(11) != 5
    assert attempt.found_length[5] == torch.inf
    assert torch.equal(attempt.found[5], images[5])
    assert not attempt.unsound.any()
    if isinstance(attack, JSMA):  # the class to be reached has a constant logit, of which no pixel is the cause
        assert (attempt.found_length == torch.inf).all()
        return
    # One pixel is enough, in every norm.
    ratio = attempt.found_length[others] / (1.0 if norm == "l0" else optimum[others])
    assert ratio.min() >= 1 - 1e-4
    # The nearest side changes on the way (a minimum of twelve): not every method ends at the corner.
    without = attempted(attack, Victim(net), images[others], labels[others], norm, repetition=repetition)
    assert torch.allclose(without.found_length, attempt.found_length[others], rtol=0.01)
    assert (attempt.found_length[others] < torch.inf).all()


@pytest.mark.parametrize("repetition", [0, 1])
def test_starting_points_are_wrong_near_the_boundary_and_told_where_there_are_none(repetition, combinations):
    images, labels, _ = combinations
    victim = Victim(Combination())
    seen = {}

    class Starts:
        name, norms, setting, most_gradients = "starts", ("l2",), "", 24

        def __call__(self, attempt):
            seen["x"], seen["ready"] = starting_points(attempt)

    attempt = attempted(Starts(), victim, images, labels, "l2", repetition=repetition, tighten=False)
    x, ready = seen["x"], seen["ready"]
    assert ready.tolist() == [row != 5 for row in range(11)]
    assert (victim.logits(x[ready]).argmax(1) != labels[ready]).all()
    # seven halvings of a way that is at most as long as the diagonal, sqrt(16)
    far = length(x - images, "l2")
    nearer = images + over((1 - 4 / 128 / far.clamp_min(1e-6)).clamp_min(0), x) * (x - images)
    assert (victim.logits(nearer[ready]).argmax(1) == labels[ready]).all()
    assert torch.equal(x[5], images[5])
    assert (attempt.gradients[ready] == 0).all() == (repetition == 1)  # the ascent comes last then


@every_attack
def test_a_sample_that_turns_nan_on_the_way_is_marked_and_the_others_go_on(attack, norm):
    draw = torch.Generator().manual_seed(0)
    images = 0.62 + 0.1 * torch.rand(9, 1, 4, 4, generator=draw)
    images.flatten(1)[:, 0] = 0.2
    images[4].flatten()[0] = 0.97
    labels = torch.ones(9, dtype=torch.int64)
    attempt = attempted(attack, Victim(NanNear()), images, labels, norm)
    others = torch.arange(9) != 4
    assert attempt.unsound.tolist() == [row == 4 for row in range(9)]
    above = images.flatten(1)[others, 1:].mean(1) - 0.5
    fewest = torch.ceil(15 * above / images.flatten(1)[others, 1:].amax(1))  # about: those that go to black
    optimum = {"linf": above, "l2": above * 15**0.5, "l1": 15 * above, "l0": fewest}[norm]
    ratio = attempt.found_length[others] / optimum
    assert ratio.min() >= 1 - 1e-4
    # All pixels count alike: which is one too many is hard to see.
    assert ratio.max() <= (4.0 if norm == "l0" or isinstance(attack, JSMA) else 1.02)
    without = attempted(attack, Victim(NanNear()), images[others], labels[others], norm)
    assert torch.equal(attempt.gradients[others], without.gradients)
    assert attempt.found_length[4] == torch.inf or bool(attempt.found[4].isfinite().all())


def test_an_unsound_gradient_marks_its_sample_alone():
    """Logits may be finite where the gradient is not: the root of 0."""

    class Root(nn.Module):
        def forward(self, x):
            flat = x.flatten(1)
            above = flat[:, 1:].mean(1) - 0.5 - 0.01 * flat[:, 0].sqrt()
            return torch.stack([-above, above], dim=1)

    images = torch.full((3, 1, 4, 4), 0.6)
    images[1, 0, 0, 0] = 0.0
    attempt = attempted(DDN(), Victim(Root()), images, torch.ones(3, dtype=torch.int64), "l2")
    assert attempt.unsound.tolist() == [False, True, False]
    assert (attempt.found_length[[0, 2]] < torch.inf).all()


def test_tightening_stays_on_the_way_and_stops_at_the_boundary():
    """A point twice too far comes back along its own direction to within 0.3 % of the boundary, no nearer."""
    exact = solved(64, 2, "l2", n=20)
    best = attempted(BrendelBethge(), Victim(exact.net), exact.images, exact.labels, "l2")
    far = exact.images + 1.5 * (best.found - exact.images)

    class Once:
        name, norms, setting, most_gradients = "once", ("l2",), "", 0

        def __call__(self, attempt):
            attempt.look(far, attempt.rows)

    attempt = attempted(Once(), Victim(exact.net), exact.images, exact.labels, "l2")
    ratio = attempt.found_length.double() / exact.optimum
    assert ratio.min() >= 1 - 1e-4
    assert ratio.max() <= 1.003
    ahead, way = attempt.found - exact.images, far - exact.images
    cosine = nn.functional.cosine_similarity(ahead.flatten(1), way.flatten(1))
    assert torch.allclose(cosine, torch.ones(20), atol=1e-5)
    assert (attempt.gradients == 0).all()


def test_every_attack_of_the_registry_is_an_attack_and_named_as_it_is():
    for name, grid in ATTACKS.items():
        for attack in (*grid.quick, *grid.exhaustive):
            assert isinstance(attack, Attack)
            assert attack.name == name
        for settings in (grid.quick, grid.exhaustive):
            assert len({attack.setting for attack in settings}) == len(settings)


def test_names_become_settings_in_the_order_asked_for():
    mine = DDN(steps=7)
    some = chosen(["ddn", mine, "cw"], "l2", exhaustive=False)
    assert some == (*ATTACKS["ddn"].quick, mine, *ATTACKS["cw"].quick)
    assert chosen(["pgd"], "linf", exhaustive=True) == ATTACKS["pgd"].exhaustive
    assert len(ATTACKS["pgd"].exhaustive) == 35  # seven step sizes, five iteration numbers
    assert len(ATTACKS["brendel_bethge"].exhaustive) == 7


@pytest.mark.parametrize(
    ("attacks", "norm", "says"),
    [
        (["pdg"], "linf", r"'pdg' is not one of pgd, .*brendel_bethge"),
        (["ddn"], "linf", r"ddn: minimises l2, not linf; for linf there are pgd, adam_pgd, brendel_bethge, fmn"),
        ([AdamPGD()], "l2", r"adam_pgd: minimises linf, not l2; for l2 there are pgd, cw, ddn, brendel_bethge, fmn"),
        (["jsma"], "l2", r"jsma: minimises l0 and l1, not l2; for l2 there are pgd"),
        ([], "l2", "none given"),
    ],
)
def test_what_the_registry_refuses(attacks, norm, says):
    with pytest.raises(InputError, match=says) as refused:
        chosen(attacks, norm, exhaustive=False)
    assert "\n" not in str(refused.value)
