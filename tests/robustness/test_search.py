"""The search: verified, resumable, the same for a sample in any company, and honest about what it could not do."""

import numpy as np
import pytest
import torch
from torch import nn

from neuroprior.robustness import DDN, PGD, BrendelBethge, Victim, minimal_perturbations, search_cost
from neuroprior.robustness.attacks.attempt import Attempt
from neuroprior.robustness.verified import verified_lengths
from neuroprior.types import InputError


class Planes(nn.Module):
    """Ten classes by planes through the middle of the cube: a smallest perturbation can be worked out."""

    def __init__(self, pixels: int = 64):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(10, pixels, generator=torch.Generator().manual_seed(1)))

    def forward(self, x):
        return (x - 0.5).flatten(1) @ self.weight.T


def samples(n: int = 30, network: nn.Module | None = None):
    x = 0.5 + 0.1 * torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(0)).clamp(-3, 3)
    return x, (network or Planes())(x).argmax(1).detach()


QUICK = dict(attacks=[DDN(30), BrendelBethge(steps=20)], norm="l2")


def test_wrong_ones_score_zero_and_all_are_counted():
    x, y = samples()
    y[:4] = (y[:4] + 1) % 10
    ledger = minimal_perturbations(Planes(), x, y, **QUICK)
    distances = ledger.distances()
    assert (distances[:4] == 0).all()
    assert (distances[4:] > 0).all()
    assert np.isfinite(distances).all()
    (line,) = ledger.withstood()
    assert (line.n, line.already_wrong, line.not_found, line.quarantined) == (30, 4, 0, 0)
    found = [row for row in ledger.table.to_pylist() if row["status"] == "found"]
    assert all(row["verified"] for row in found)


def test_numpy_arrays_and_ids_of_ones_own():
    x, y = samples(5)
    ledger = minimal_perturbations(Planes(), x.numpy(), y.numpy(), ids=list("abcde"), name="planes", **QUICK)
    assert ledger.samples == tuple("abcde")
    assert ledger.models == ("planes",)


def test_a_sample_alone_and_in_company_and_in_any_order():
    x, y = samples(100)
    whole = minimal_perturbations(Planes(), x, y, repetitions=2, **QUICK).distances()
    for row in (0, 41, 99):
        alone = minimal_perturbations(Planes(), x[row : row + 1], y[row : row + 1], repetitions=2, **QUICK)
        assert alone.distances()[0] == pytest.approx(whole[row], rel=1e-3)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(2))
    moved = minimal_perturbations(Planes(), x[order], y[order], repetitions=2, **QUICK).distances()
    np.testing.assert_allclose(moved, whole[order.numpy()], rtol=1e-3)


def test_later_attacks_never_make_it_worse_and_exhaustive_attempts_stand_alone():
    x, y = samples()
    settings = [PGD(0.3, 5), PGD(0.1, 20), BrendelBethge(steps=20)]
    first = minimal_perturbations(Planes(), x, y, attacks=settings[:1], norm="linf").distances()
    all_three = minimal_perturbations(Planes(), x, y, attacks=settings, norm="linf")
    assert (all_three.distances() <= first * (1 + 1e-6)).all()
    alone = minimal_perturbations(Planes(), x, y, attacks=settings, norm="linf", exhaustive=True)
    assert {row["status"] for row in alone.table.to_pylist()} == {"right", "found"}
    assert np.isfinite(alone.of(attacks=["brendel_bethge"]).distances()).all()
    with pytest.raises(InputError, match="began from what other attempts"):
        all_three.of(attacks=["brendel_bethge"])
    (cheap,), (full,) = all_three.withstood(), alone.withstood()
    assert cheap.gradients < full.gradients
    assert cheap.median <= full.median * 1.01


def test_settings_that_bring_nothing_nearer_are_left_out():
    x, y = samples()
    settings = [PGD(0.1, 30), *(PGD(0.1, steps) for steps in (29, 28, 27, 26))]
    ledger = minimal_perturbations(Planes(), x, y, attacks=settings, norm="l2")
    tried = [row["setting"] for row in ledger.table.to_pylist() if row["sample"] == "0"]
    assert len(tried) == 4  # the clean image, the setting that found it, and two in vain


def test_what_stops_in_the_middle_goes_on_to_the_same_rows(tmp_path):
    x, y = samples(40)
    victim = Victim(Planes(), batch_size=8)
    whole = minimal_perturbations(victim, x, y, **QUICK)

    class Stopped(Exception):
        pass

    def stop_later(part, said):
        if part > 0.6:
            raise Stopped

    path = tmp_path / "attacks.parquet"
    with pytest.raises(Stopped):
        minimal_perturbations(victim, x, y, **QUICK, ledger=path, progress=stop_later)
    assert not path.exists()
    before = victim.gradients
    ended = minimal_perturbations(victim, x, y, **QUICK, ledger=path)
    assert ended.table.equals(whole.table)
    assert victim.gradients - before < int(np.sum(whole.table["gradients"].to_numpy()))
    again = victim.gradients
    assert minimal_perturbations(victim, x, y, **QUICK, ledger=path).table.equals(whole.table)
    assert victim.gradients - again <= 32  # the audit's
    few = minimal_perturbations(victim, x[[7, 3]], y[[7, 3]], **QUICK, ledger=path, ids=["7", "3"])
    np.testing.assert_array_equal(few.distances(), whole.distances()[[7, 3]])
    with pytest.raises(InputError, match="is another image"):
        minimal_perturbations(victim, x.flip(0), y.flip(0), **QUICK, ledger=path)
    with pytest.raises(InputError, match="made with seed 0, now it is 1"):
        minimal_perturbations(victim, x, y, **QUICK, ledger=path, seed=1)
    other = Planes()
    other.weight.data[0] += 1
    with pytest.raises(InputError, match="made with"):
        minimal_perturbations(Victim(other, batch_size=8), x, other(x).argmax(1), **QUICK, ledger=path)
    dimmed = Victim(Planes(), batch_size=8, preprocess=lambda x: 0.9 * x)
    with pytest.raises(InputError, match="made with"):
        minimal_perturbations(dimmed, x, y, **QUICK, ledger=path)
    other_setting = dict(QUICK, attacks=[DDN(30), BrendelBethge(steps=20, momentum=0.5)])
    with pytest.raises(InputError, match="made with attacks"):
        minimal_perturbations(victim, x, y, **other_setting, ledger=path)


def test_the_nearest_adversarials_are_kept_where_they_are_asked_for(tmp_path):
    x, y = samples(12)
    y[0] = (y[0] + 1) % 10
    file = tmp_path / "attacks.parquet"
    asked = dict(QUICK, ledger=file, keep_adversarials=True, repetitions=2)
    minimal_perturbations(Planes(), x[:7], y[:7], **asked)
    ledger = minimal_perturbations(Planes(), x, y, **asked)
    delta = ledger.perturbations(x.numpy())
    assert delta.shape == (12, 1, 8, 8)
    assert (delta[0] == 0).all()
    assert np.linalg.norm(delta.reshape(12, -1), axis=1) == pytest.approx(ledger.distances(), rel=1e-5)
    wrong = Planes()(x + torch.from_numpy(delta)).argmax(1) != y
    assert wrong.float().mean() > 0.9  # up to rounding: x + (x' - x) is not x' to the last bit
    plain = minimal_perturbations(Planes(), x, y, repetitions=2, **QUICK)
    assert (plain + ledger).table.num_rows == 2 * plain.table.num_rows
    assert ledger.without_adversarials().table.equals(plain.table)
    with pytest.raises(InputError, match="keeps no adversarials; search with keep_adversarials=True"):
        plain.perturbations(x.numpy())
    with pytest.raises(InputError, match="11 images for 12 samples"):
        ledger.perturbations(x[1:].numpy())


def test_more_images_are_added_to_a_ledger(tmp_path):
    x, y = samples(20)
    path = tmp_path / "attacks.parquet"
    minimal_perturbations(Planes(), x[:10], y[:10], **QUICK, ledger=path)
    both = minimal_perturbations(Planes(), x, y, **QUICK, ledger=path)
    np.testing.assert_array_equal(both.distances(), minimal_perturbations(Planes(), x, y, **QUICK).distances())


def test_budgets():
    x, y = samples(40)
    ledger = minimal_perturbations(Planes(), x, y, attacks=["pgd", "ddn"], norm="l2", max_gradients=50)
    spent = ledger.table.group_by("sample").aggregate([("gradients", "sum")])["gradients_sum"].to_numpy()
    assert spent.max() <= 50
    part = minimal_perturbations(Victim(Planes(), batch_size=8), x, y, **QUICK, max_seconds=0)
    assert part.samples == ("0",)  # one tells how long they take; the rest are not begun


def test_the_cost_is_an_upper_bound():
    x, y = samples(20)
    cost = search_cost(Planes(), x, y, attacks=["pgd", "ddn", "cw", "brendel_bethge"], norm="l2")
    ledger = minimal_perturbations(Planes(), x, y, attacks=["pgd", "ddn", "cw", "brendel_bethge"], norm="l2")
    assert int(np.sum(ledger.table["gradients"].to_numpy())) <= cost.gradients
    assert cost.attempts >= ledger.table.num_rows - 20  # without the clean images
    assert cost.seconds > 0


class NotForSome(Planes):
    """NaN for images whose first pixel is bright, and near them."""

    def forward(self, x):
        bright = (x[:, 0, 0, 0] > 0.9)[:, None]
        return torch.where(bright, torch.nan, super().forward(x))


def test_samples_with_nan_logits_are_quarantined_alone():
    x, y = samples()
    x[3, 0, 0, 0] = 1.0
    ledger = minimal_perturbations(NotForSome(), x, y, **QUICK)
    distances = ledger.distances()
    assert np.isnan(distances[3])
    assert np.isfinite(np.delete(distances, 3)).all()
    assert ledger.withstood()[0].quarantined == 1


class NotForNoise(Planes):
    """NaN for images with a pixel near black or white."""

    def forward(self, x):
        extreme = ((x - 0.5).abs().flatten(1).amax(1) > 0.45)[:, None]
        return torch.where(extreme, torch.nan, super().forward(x))


def test_nan_on_an_attacks_way_takes_nothing_from_what_was_found():
    x, y = samples()
    before = minimal_perturbations(NotForNoise(), x, y, attacks=[DDN(30)], norm="l2")
    after = minimal_perturbations(NotForNoise(), x, y, repetitions=2, **QUICK)
    assert after.withstood()[0].quarantined == 0
    assert (after.distances() <= before.distances() * (1 + 1e-6)).all()


class FlatAround(nn.Module):
    """Of two classes by the mean, but without gradient within a thousandth of some images: another start finds one."""

    def __init__(self, images):
        super().__init__()
        self.images = images

    def forward(self, x):
        apart = (x[:, None] - self.images[None]).abs().flatten(2).amax(2).amin(1)
        mean = 10 * (x.mean(dim=(1, 2, 3)) - 0.6)
        return torch.stack([torch.zeros_like(mean), torch.where(apart < 1e-3, -1.0, mean)], dim=1)


def test_another_start_is_tried_where_nothing_was_found_yet():
    x = 0.5 + 0.05 * torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    x[6:] += 0.2
    network = FlatAround(x[:6])
    labels = network(x).argmax(1)
    ledger = minimal_perturbations(network, x, labels, attacks=["pgd"], norm="linf", repetitions=3)
    first = minimal_perturbations(network, x, labels, attacks=["pgd"], norm="linf")
    assert np.isinf(first.distances()[:6]).all()
    assert np.isfinite(ledger.distances()).all()


class Unshakable(nn.Module):
    """Says 0 for dark images wherever they are moved within reach, and has a gradient."""

    def forward(self, x):
        mean = x.mean(dim=(1, 2, 3))
        return torch.stack([2 + 0 * mean, mean], dim=1)


def test_failures_score_infinity_and_are_counted():
    x, _ = samples(5)
    ledger = minimal_perturbations(Unshakable(), x, torch.zeros(5, dtype=torch.int64), **QUICK)
    assert np.isinf(ledger.distances()).all()
    assert ledger.withstood()[0].not_found == 5
    assert ledger.withstood()[0].median == np.inf


def test_what_does_not_hold_when_checked_does_not_count():
    x, y = samples(6)
    network = Planes()
    attempt = Attempt(
        victim=Victim(network),
        images=x,
        labels=y,
        norm="l2",
        known=x.clone(),
        known_length=torch.full((6,), torch.inf),
        max_gradients=torch.full((6,), 10**6),
        tag="0",
        repetition=0,
    )
    DDN(30)(attempt)
    true = attempt.found_length.clone()
    attempt.found[0] = x[0]  # not an adversarial at all
    attempt.found[1] = x[1] + 0.999 * (attempt.found[1] - x[1])  # just short of the boundary, perhaps
    attempt.found[2, 0, 0, 0] = torch.nan
    attempt.found[3] = attempt.found[3] + 2.0  # outside [0, 1]
    attempt.victim = Victim(NotForSome())
    attempt.found[4, 0, 0, 0] = 1.0  # where the network gives NaN, whose place argmax takes for an answer
    lengths = verified_lengths(attempt)
    assert np.isinf(lengths[[0, 2, 4]]).all()
    assert lengths[1] <= 1.02 * float(true[1])
    assert np.isinf(lengths[3]) or float(attempt.found[3].max()) <= 1
    np.testing.assert_allclose(lengths[5:], true[5:].numpy(), rtol=1e-5)


@pytest.mark.usefixtures("shapes_unchecked")
def test_bad_input_in_one_line():
    x, y = samples(5)
    for match, change in {
        "scale pixels": dict(images=x * 255),
        r"labels \(5, 1\) of torch.int64": dict(labels=y[:, None]),
        "of torch.float32": dict(labels=y.float()),
        "labels span 0 to 12": dict(labels=torch.tensor([0, 1, 2, 3, 12])),
        "is not one of pgd": dict(attacks=["deepfool"]),
        "ddn: minimises l2, not linf": dict(attacks=["ddn"], norm="linf"),
        "none given": dict(attacks=[]),
        "ids for 5 images": dict(ids=["a"]),
        "give 1 or more": dict(repetitions=0),
    }.items():
        given = dict(images=x, labels=y, attacks=["ddn"], norm="l2") | change
        with pytest.raises(InputError, match=match) as caught:
            minimal_perturbations(Planes(), given.pop("images"), given.pop("labels"), **given)
        assert "\n" not in str(caught.value)
