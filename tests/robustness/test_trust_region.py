"""The boundary attack's step and the balls: each against a general solver, or as the theorem that defines it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroprior.robustness.attacks.geometry import dual_length, into_ball, largest_length, length, over, steepest
from neuroprior.robustness.attacks.trust_region import (
    cardinality_projection,
    chebyshev_projection,
    fewest_changed,
    nearest_on_boundary,
    shifted_projection,
    taxicab_projection,
)
from reference import trust_region as slow

PIXELS = 7


def drawn(seed: int, rows: int = 12, *, reach: float = 0.9, dtype: torch.dtype = torch.float64):
    """d, b, c, low, high as the attack meets them (clean image and present point in the box); some zeros in b.

    c is a share, at most `reach`, of the farthest that b . delta can go, either way: beyond 1 it is out of reach.
    """
    draw = np.random.default_rng(seed)
    here, origin = draw.random((2, rows, PIXELS))
    low, high = -here, 1 - here
    b = (
        draw.standard_normal((rows, PIXELS))
        * (draw.random((rows, PIXELS)) > 0.1)
        * 10 ** draw.uniform(-3, 3, (rows, 1))
    )
    b[:, 0] += (b == 0).all(1)
    share = draw.uniform(-reach, reach, rows)
    most = np.maximum(b * low, b * high).sum(1)
    least = np.minimum(b * low, b * high).sum(1)
    c = np.where(share > 0, share * most, -share * least)
    return [torch.from_numpy(v).to(dtype) for v in (origin - here, b, c, low, high)]


def by_row(*values: torch.Tensor):
    return zip(*(v.double().numpy() for v in values), strict=True)


def largest(b: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """The scale of b . delta in a box."""
    return (b.abs() * torch.maximum(high, -low)).sum(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_shifted_projection_is_the_nearest_point_of_plane_and_box(dtype):
    d, b, c, low, high = drawn(0, 40, dtype=dtype)
    delta, exists = shifted_projection(d, b, c, low, high)
    assert exists.all()
    for row, problem in enumerate(by_row(d, b, c, low, high)):
        best = slow.shifted_projection(*problem)
        assert np.allclose(delta[row], best, atol=2e-4), row


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_chebyshev_projection_is_as_near_as_the_linear_programme(dtype):
    d, b, c, low, high = drawn(1, 40, dtype=dtype)
    delta = chebyshev_projection(d, b, c, low, high)
    assert ((delta >= low - 1e-6) & (delta <= high + 1e-6)).all()
    assert (((b * delta).sum(1) - c).abs() <= 1e-5 * largest(b, low, high)).all()
    best = [slow.chebyshev_distance(*problem) for problem in by_row(d, b, c, low, high)]
    assert np.allclose(length(delta - d, "linf"), best, atol=1e-5)


def test_the_taxicab_projection_is_as_near_as_the_linear_programme():
    d, b, c, low, high = drawn(4, 40)
    delta = taxicab_projection(d, b, c, low, high)
    assert ((delta >= low - 1e-6) & (delta <= high + 1e-6)).all()
    assert (((b * delta).sum(1) - c).abs() <= 1e-5 * largest(b, low, high)).all()
    best = [slow.taxicab_distance(*problem) for problem in by_row(d, b, c, low, high)]
    assert np.allclose(length(delta - d, "l1"), best, atol=1e-5)


def test_the_cardinality_projection_changes_as_few_as_any_choice_of_coordinates():
    d, b, c, low, high = drawn(5, 40)
    delta = cardinality_projection(d, b, c, low, high)
    assert ((delta >= low - 1e-6) & (delta <= high + 1e-6)).all()
    short = (b * d).sum(1) < c
    assert torch.where(short, (b * delta).sum(1) >= c, (b * delta).sum(1) <= c).all()
    best = [slow.fewest(*problem) for problem in by_row(d, b, c, low, high)]
    assert length(delta - d, "l0").tolist() == best


def test_as_few_stay_changed_as_the_trust_region_allows():
    """Within the box and r, over the plane; without r as few as can be; a wider r never leaves more changed."""
    d, b, c, low, high = drawn(6, 40)
    most = torch.full((40,), torch.inf, dtype=d.dtype)
    above = (b * d).sum(1) < c  # home is on the right side of the plane
    fewest = cardinality_projection(d, b, c, low, high)
    free = fewest_changed(d, b, c, low, high, most)
    assert torch.equal(length(free - d, "l0")[above], length(fewest - d, "l0")[above])
    assert torch.equal(free[~above], d[~above])
    before = torch.zeros(40)
    shortest, _ = shifted_projection(torch.zeros_like(d), b, c, low, high)
    for share in (4.0, 2.0, 1.5, 1.1):
        r = share * shortest.norm(dim=1)
        step = fewest_changed(d, b, c, low, high, r)
        assert (step.norm(dim=1) <= r * (1 + 1e-6)).all()
        assert ((step >= low - 1e-6) & (step <= high + 1e-6)).all()
        assert ((b * step).sum(1) >= c - 1e-5 * largest(b, low, high)).all()
        changed = length(step - d, "l0").float()
        assert (changed >= before).all()
        before = changed
    tight = fewest_changed(d, b, c, low, high, 0.5 * shortest.norm(dim=1))
    short = above & (c > 0)  # those on the far side of the plane may stay where they are
    assert torch.allclose(tight.norm(dim=1)[short], 0.5 * shortest.norm(dim=1)[short], rtol=1e-4)


def test_mirrored_problems_have_mirrored_answers():
    d, b, c, low, high = drawn(2)
    for project in (
        chebyshev_projection,
        taxicab_projection,
        cardinality_projection,
        lambda *problem: shifted_projection(*problem)[0],
    ):
        there = project(d, b, c, low, high)
        assert torch.allclose(project(d, -b, -c, low, high), there, atol=1e-5)
        assert torch.allclose(project(-d, b, -c, -high, -low), -there, atol=1e-5)


def test_planes_out_of_reach_are_told_and_other_rows_are_as_alone():
    d, b, c, low, high = drawn(3, 60, reach=1.5)
    b[7], b[9] = 0.0, 0.0
    delta, exists = shifted_projection(d, b, c, low, high)
    told = [slow.reachable(*problem) for problem in by_row(b, c, low, high)]
    assert exists.tolist() == told
    assert 5 < sum(told) < 55
    rows = torch.nonzero(exists).squeeze(1)
    alone, _ = shifted_projection(d[rows], b[rows], c[rows], low[rows], high[rows])
    assert torch.allclose(delta[rows], alone, atol=1e-5)
    for row in torch.nonzero(~exists & (b != 0).any(1)).squeeze(1).tolist():  # as far towards the plane as the box goes
        ends = torch.stack([b[row] * low[row], b[row] * high[row]])
        farthest = ends.amax(0).sum() if c[row] > 0 else ends.amin(0).sum()
        assert float(b[row] @ delta[row]) == pytest.approx(float(farthest))
    assert (delta[[7, 9]] == 0).all()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    reach=st.sampled_from([0.05, 0.9, 1.5]),
    r=st.floats(1e-4, 3.0),
    norm=st.sampled_from(["l2", "linf"]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_a_step_keeps_to_box_ball_and_boundary_and_is_no_worse_than_the_shortest(seed, reach, r, norm, dtype):
    d, b, c, low, high = drawn(seed, reach=reach, dtype=dtype)
    radius = torch.full((len(d),), r, dtype=dtype)
    delta = nearest_on_boundary(d, b, c, low, high, radius, norm)
    assert delta.isfinite().all()
    assert ((delta >= low - 1e-6) & (delta <= high + 1e-6)).all()
    assert (delta.norm(dim=1) <= r * (1 + 1e-4) + 1e-6).all()
    shortest, exists = shifted_projection(torch.zeros_like(d), b, c, low, high)
    fits = exists & (shortest.norm(dim=1) <= r)
    off = ((b * delta).sum(1) - c).abs()
    assert (off <= 1e-5 * largest(b, low, high))[fits].all()
    assert (length(delta - d, norm) <= length(shortest - d, norm) + 1e-5)[fits].all()
    # out of reach: as far as the ball allows, and towards the boundary
    assert torch.allclose(delta.norm(dim=1)[~fits], shortest.norm(dim=1).clamp_max(r)[~fits], rtol=1e-3, atol=1e-4)
    assert (((b * delta).sum(1) * c) >= 0)[~fits].all()


def test_without_a_box_the_l2_step_is_exact():
    d, b, c, _, _ = drawn(4, 40, reach=0.3)
    low, high = torch.full_like(d, -50.0), torch.full_like(d, 50.0)
    shortest = c.abs() / b.norm(dim=1)
    binding = 0
    for share in (1.05, 1.5, 20.0):
        r = share * shortest + 0.01
        delta = nearest_on_boundary(d, b, c, low, high, r, "l2")
        binding += int((delta.norm(dim=1) > 0.999 * r).sum())
        # the disc that the ball cuts from the plane: centre m, and at most sqrt(r^2 - |m|^2) from it towards d
        unit = b / b.norm(dim=1, keepdim=True)
        centre = unit * (c / b.norm(dim=1))[:, None]
        along = d - unit * (unit * d).sum(1, keepdim=True)
        most = (r.square() - centre.square().sum(1)).sqrt() / along.norm(dim=1)
        assert torch.allclose(delta, centre + along * most.clamp_max(1)[:, None], atol=1e-4)
    assert 20 < binding < 110


def test_a_ball_that_does_not_bind_leaves_the_exact_optimum():
    d, b, c, low, high = drawn(5, 30)
    delta = nearest_on_boundary(d, b, c, low, high, torch.full_like(c, 10.0), "l2")
    best = [slow.shifted_projection(*problem) for problem in by_row(d, b, c, low, high)]
    assert np.allclose(delta, best, atol=1e-4)


def test_where_box_and_ball_bind_the_l2_step_is_nearly_the_optimum():
    """A combination of two feasible points, not the optimum itself: how much that costs."""
    d, b, c, low, high = drawn(6, 20, reach=0.3)
    r = 1.3 * shifted_projection(torch.zeros_like(d), b, c, low, high)[0].norm(dim=1) + 0.05
    delta = nearest_on_boundary(d, b, c, low, high, r, "l2")
    best = np.stack([slow.nearest_within(*problem) for problem in by_row(d, b, c, low, high, r)])
    ratio = (delta - d).norm(dim=1) / (torch.from_numpy(best) - d).norm(dim=1)
    assert ratio.min() > 1 - 1e-4
    assert ratio.median() < 1.01
    assert ratio.max() < 1.1


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_units_of_the_logits_do_not_matter(norm, scale):
    d, b, c, low, high = (v.float() for v in drawn(7))
    r = torch.full_like(c, 0.4)
    step = nearest_on_boundary(d, b, c, low, high, r, norm)
    assert torch.allclose(nearest_on_boundary(d, scale * b, scale * c, low, high, r, norm), step, atol=1e-4)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_without_a_normal_nothing_moves(norm):
    d, b, c, low, high = drawn(8)
    b[3] = 0.0
    step = nearest_on_boundary(d, b, c, low, high, torch.full_like(c, 0.4), norm)
    assert (step[3] == 0).all()
    assert (step.norm(dim=1) > 0).sum() == len(d) - 1


def pictures(seed: int, n: int = 50) -> torch.Tensor:
    return torch.randn(n, 1, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_into_ball_is_the_l2_projection(norm):
    delta, others = pictures(0), pictures(1)
    radius = torch.linspace(0.0, 4.0, len(delta), dtype=torch.float64)
    inside = into_ball(delta, radius, norm)
    assert (length(inside, norm) <= radius + 1e-12).all()
    assert torch.allclose(into_ball(inside, radius, norm), inside, atol=1e-12)
    fit = length(delta, norm) <= radius
    assert 0 < int(fit.sum()) < len(fit)
    assert torch.equal(inside[fit], delta[fit])
    # the nearest point P of a convex set: (delta - P) . (y - P) <= 0 for each y of it
    for shrink in (0.1, 0.5, 1.0):
        y = others * over(shrink * radius / length(others, norm), others)
        assert (((delta - inside) * (y - inside)).flatten(1).sum(1) <= 1e-9).all()


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_the_dual_length_is_the_most_that_a_linear_loss_can_rise(norm):
    gradient = pictures(2, 20)
    most = dual_length(gradient, norm)
    for seed in range(3, 30):  # no perturbation of length 1 does better
        delta = pictures(seed, 20)
        delta = delta * over(1 / length(delta, norm), delta)
        assert ((gradient * delta).flatten(1).sum(1) <= most + 1e-12).all()
    if norm == "l1":  # and one does as well
        flat = gradient.flatten(1)
        at = flat.abs().argmax(1, keepdim=True)
        best = torch.zeros_like(flat).scatter(1, at, flat.gather(1, at).sign()).reshape_as(gradient)
    else:
        best = steepest(gradient, norm)
    assert torch.allclose(length(best, norm), torch.ones(20, dtype=torch.float64))
    assert torch.allclose((gradient * best).flatten(1).sum(1), most)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_no_gradient_has_no_direction(norm):
    assert (steepest(torch.zeros(2, 1, 2, 2), norm) == 0).all()


@pytest.mark.parametrize("norm", ["l0", "l1", "l2", "linf"])
def test_black_to_white_is_the_longest_perturbation(norm):
    black, white = torch.zeros(1, 1, 3, 4), torch.ones(1, 1, 3, 4)
    assert float(length(white - black, norm)) == pytest.approx(largest_length(black, norm))
    inside = torch.rand(20, 1, 3, 4) - torch.rand(20, 1, 3, 4)
    assert (length(inside, norm) <= largest_length(inside, norm) + 1e-6).all()
