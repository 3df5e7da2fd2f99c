"""Penalties: the values that their docstrings state, and that neither size nor number changes them."""

import pytest
import torch

from neuroprior.twin.core import separable_core, stacked_core
from neuroprior.twin.fit.penalties import group_sparsity, readout_l1, roughness
from neuroprior.twin.readout import FactorisedReadout, GaussianReadout


def test_one_pixel_alone_is_as_rough_as_the_laplacian_says():
    filters = torch.zeros(1, 1, 7, 7)
    filters[0, 0, 3, 3] = 1
    assert torch.isclose(roughness(filters), torch.tensor(10.25))
    checks = torch.ones(1, 1, 9, 9)
    checks[..., ::2, 1::2] = checks[..., 1::2, ::2] = -1
    assert roughness(checks) > 9  # inside: -3 - 4/2 + 4/4 a pixel, squared 16


def test_a_constant_filter_is_rough_at_its_border_alone():
    """Inside, the Laplacian of a constant is 0: the larger the filter, the less its border counts."""
    small, large = roughness(torch.ones(1, 1, 5, 5)), roughness(torch.ones(1, 1, 41, 41))
    edge, corner = 4 * (41 - 2) * 1.0**2, 4 * (0.25 + 0.5 + 0.25 + 0.5 + 0.25) ** 2  # of what lies outside
    assert torch.isclose(large, torch.tensor((edge + corner) / 41**2), rtol=1e-4)
    assert large < small < 1


def test_smooth_filters_are_less_rough_than_the_same_pixels_in_disorder():
    x = torch.linspace(-2.5, 2.5, 9)
    bump = torch.exp(-(x[:, None] ** 2 + x**2))[None, None]
    torch.manual_seed(0)
    disorder = bump.flatten()[torch.randperm(81)].reshape(1, 1, 9, 9)
    assert 5 * roughness(bump) < roughness(disorder)


def test_roughness_does_not_depend_on_the_filters_size_or_number():
    torch.manual_seed(0)
    filters = torch.randn(6, 2, 7, 7)
    scales = torch.logspace(-3, 3, 6)[:, None, None, None]
    assert torch.isclose(roughness(filters * scales), roughness(filters), rtol=1e-4)
    assert torch.isclose(roughness(torch.cat([filters, filters])), roughness(filters))
    leaf = filters.clone().requires_grad_()
    (slope,) = torch.autograd.grad(roughness(leaf), leaf)
    along = (slope * filters).sum(dim=(2, 3))
    assert along.abs().max() < 1e-5  # descending it does not shrink a filter
    assert slope.abs().max() > 1e-3
    assert roughness(torch.zeros(2, 1, 5, 5)) == 0


@pytest.mark.parametrize("build", [stacked_core, separable_core])
@pytest.mark.parametrize("channels", [3, 12])
def test_group_sparsity_is_one_where_all_inputs_are_used_alike_whatever_the_width(build, channels):
    core = build(1, channels, 5, 3, 3)
    for layer in list(core.layers)[1:]:
        for weight in layer[0].parameters():
            torch.nn.init.constant_(weight, 0.3)
    assert torch.isclose(group_sparsity(core), torch.tensor(1.0), atol=1e-5)


def test_a_layer_that_listens_to_one_channel_is_sparse():
    core = stacked_core(1, 4, 5, 3, 2)
    weight = core.layers[1][0].weight.data
    weight.zero_()
    weight[0, 2] = torch.randn(3, 3)
    assert torch.isclose(group_sparsity(core), torch.tensor(1 / 4), atol=1e-3)  # one of 16 groups: 1 / sqrt(16)
    weight *= 100
    assert torch.isclose(group_sparsity(core), torch.tensor(1 / 4), atol=1e-3)


def test_group_sparsity_leaves_the_spatial_shape_of_a_group_free():
    """A group is as large as its norm, not as its L1: nothing is gained by fewer pixels of the same norm."""
    core = stacked_core(1, 3, 5, 3, 2)
    weight = core.layers[1][0].weight.data
    weight.normal_()
    before = group_sparsity(core)
    norms = weight.square().sum(dim=(2, 3)).sqrt()
    weight.zero_()
    weight[:, :, 1, 1] = norms
    assert torch.isclose(group_sparsity(core), before, atol=1e-5)


def test_a_core_of_one_layer_has_no_groups():
    assert group_sparsity(stacked_core(1, 4, 5, 3, 1)) == 0
    assert group_sparsity(separable_core(1, 4, 5, 3, 1)) == 0


def test_the_readouts_penalty_is_a_mean_over_neurons():
    features = torch.tensor([[1.0, -2.0], [0.0, 0.5]])
    where, bias = torch.zeros(2, 2), torch.zeros(2)
    gaussian = GaussianReadout(where, features, bias)
    assert torch.isclose(readout_l1(gaussian), torch.tensor((3 + 0.5) / 2))
    mask = torch.tensor([[[1.0, -1.0]], [[0.5, 0.0]]])
    factorised = FactorisedReadout(mask, features, bias)
    assert torch.isclose(readout_l1(factorised), torch.tensor((3 + 0.5) / 2 + (2 + 0.5) / 2))
    for readout in (gaussian, factorised):
        twice = [torch.cat([value.detach()] * 2) for value in (readout.features, readout.bias)]
        double = (
            FactorisedReadout(torch.cat([mask] * 2), *twice)
            if isinstance(readout, FactorisedReadout)
            else GaussianReadout(torch.cat([where] * 2), *twice)
        )
        assert torch.isclose(readout_l1(double), readout_l1(readout))
