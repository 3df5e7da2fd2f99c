"""Eq. 8-10 as pure functions: against the printed form, and what they must and must not notice."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroprior.regularizer import combine_layers, layer_similarity, similarity_loss
from reference import regularizer as slow


def maps(seed: int, n: int = 6) -> torch.Tensor:
    return torch.randn(n, 3, 4, 5, generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_similarity_and_loss_agree_with_the_printed_equations(seed):
    f, g = maps(seed), maps(seed + 1)
    mean = f.mean(0)
    ours, target = layer_similarity(f, mean), layer_similarity(g, g.mean(0))
    ref, ref_target = slow.layer_similarity(f.numpy(), mean.numpy()), target.numpy().astype(np.float64)
    assert np.abs(ours.numpy() - ref).max() < 1e-5
    every = [(i, j) for i in range(6) for j in range(i + 1, 6)]
    for pairs, listed in (("all", every), ("disjoint", [(0, 1), (2, 3), (4, 5)])):
        for scale in ("printed", "lineage"):
            value = float(similarity_loss(ours, target, pairs, scale))
            assert value == pytest.approx(slow.loss(ref, ref_target, listed, scale == "lineage"), rel=1e-3)


def test_lineage_is_four_times_the_printed_loss():
    s, t = layer_similarity(maps(0), maps(0).mean(0)), layer_similarity(maps(1), maps(1).mean(0))
    printed, lineage = (float(similarity_loss(s, t, "all", scale)) for scale in ("printed", "lineage"))
    assert lineage == pytest.approx(4 * printed)


def test_similarity_ignores_scale_and_order_of_features_but_not_the_mean():
    f = maps(2)
    s = layer_similarity(f, f.mean(0))
    assert torch.allclose(layer_similarity(5 * f, 5 * f.mean(0)), s, atol=1e-6)
    assert torch.allclose(layer_similarity(f.flip(1, 3), f.flip(1, 3).mean(0)), s, atol=1e-6)
    assert not torch.allclose(layer_similarity(f, torch.zeros(3, 1, 1)), s, atol=1e-2)


def test_agreement_costs_nothing_and_the_clamp_keeps_certainty_finite():
    s = layer_similarity(maps(3), maps(3).mean(0))
    assert float(similarity_loss(s, s, "all")) == 0
    same, opposite = torch.ones(2, 2), -torch.ones(2, 2)
    worst = float(similarity_loss(same, opposite, "all"))
    assert worst == pytest.approx((2 * math.atanh(1 - 1e-5)) ** 2, rel=1e-2)


def test_gradients_are_finite_for_a_dead_map():
    f = torch.zeros(4, 3, 2, 2, requires_grad=True)
    loss = similarity_loss(layer_similarity(f, torch.zeros(3, 1, 1)), torch.full((4, 4), 0.5), "all")
    loss.backward()
    assert torch.isfinite(f.grad).all()


def test_the_mix_is_a_convex_combination():
    a, b = torch.ones(3, 3), torch.zeros(3, 3)
    assert torch.allclose(combine_layers([a, b], torch.tensor([0.25, 0.75])), torch.full((3, 3), 0.25))
