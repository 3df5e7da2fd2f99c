"""Cores: who sees whom, and what stays when the nonlinearity is taken out."""

import pytest
import torch
from torch import nn

from neuroprior.twin.core import Core, SeparableConv, separable_core, stacked_core

CHANNELS, LAYERS = 4, 3


def core_of(build, *, linear: bool = False, in_channels: int = 1, seed: int = 0) -> Core:
    """A core in evaluation, with batch norms that are not the identity."""
    torch.manual_seed(seed)
    core = build(in_channels, CHANNELS, 5, 3, LAYERS, linear=linear)
    for module in core.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
            module.bias.data.normal_()
    return core.eval()


def blocks(maps: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The maps of each layer in a stacked core's output."""
    return maps.split(CHANNELS, dim=1)


def test_the_stacked_core_is_each_layer_on_all_before_it():
    core, images = core_of(stacked_core), torch.randn(2, 1, 12, 14)
    one = core.layers[0](images)
    two = core.layers[1](one)
    three = core.layers[2](torch.cat([one, two], dim=1))
    assert torch.equal(core(images), torch.cat([one, two, three], dim=1))
    assert core(images).shape == (2, CHANNELS * LAYERS, 8, 10)


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_in_the_stacked_core_a_layer_reaches_all_after_it_and_none_before(changed):
    core, images = core_of(stacked_core), torch.randn(1, 1, 12, 14)
    before = blocks(core(images))
    core.layers[changed][1].bias.data += 1
    moved = [not torch.allclose(a, b) for a, b in zip(before, blocks(core(images)), strict=True)]
    assert moved == [layer >= changed for layer in range(LAYERS)]


def test_the_separable_core_is_a_chain():
    core, images = core_of(separable_core), torch.randn(2, 1, 12, 14)
    chained = images
    for layer in core.layers:
        chained = layer(chained)
    assert torch.equal(core(images), chained)
    assert chained.shape == (2, CHANNELS, 8, 10)


def test_a_separable_convolution_is_mixing_filtering_mixing():
    torch.manual_seed(1)
    conv, maps = SeparableConv(3, 5, 3, bias=True), torch.randn(2, 3, 7, 6)
    spelt_out = nn.Sequential(*conv)
    assert torch.allclose(conv(maps), spelt_out(maps), atol=1e-6)
    ours, obvious = (
        torch.autograd.grad(form(maps).square().sum(), list(conv.parameters())) for form in (conv, spelt_out)
    )
    assert all(torch.allclose(a, b, atol=1e-3, rtol=1e-4) for a, b in zip(ours, obvious, strict=True))


@pytest.mark.parametrize("build", [stacked_core, separable_core])
def test_a_linear_core_is_linear_up_to_a_constant_and_another_is_not(build):
    a, b = torch.randn(2, 1, 12, 14, dtype=torch.float64), torch.randn(2, 1, 12, 14, dtype=torch.float64)
    nothing = torch.zeros_like(a)

    @torch.no_grad()
    def departure(linear: bool) -> float:
        core = core_of(build, linear=linear).double()
        constant = core(nothing)
        return float((core(2 * a + b) - constant - 2 * (core(a) - constant) - (core(b) - constant)).abs().max())

    assert departure(linear=True) < 1e-10
    assert departure(linear=False) > 1e-2


@pytest.mark.parametrize("build", [stacked_core, separable_core])
def test_away_from_the_border_a_core_commutes_with_shifts(build):
    """No layer knows where it is: the same picture two pixels on gives the same maps two pixels on."""
    core = core_of(build)
    picture = torch.randn(1, 1, 20, 24)
    here, there = core(picture[..., :22]), core(picture[..., 2:])
    rim = LAYERS - 1  # of padding: one pixel a later layer with filters of 3
    inner = slice(rim, -rim)
    assert torch.allclose(here[..., inner, rim + 2 : -rim], there[..., inner, rim : -rim - 2], atol=1e-5)
    assert not torch.allclose(here[..., inner, rim:-rim], there[..., inner, rim:-rim], atol=1e-2)


@pytest.mark.parametrize("build", [stacked_core, separable_core])
def test_the_first_filters_are_those_of_the_image(build):
    core = core_of(build, in_channels=3)
    assert core.filters is core.layers[0][0].weight
    assert core.filters.shape == (CHANNELS, 3, 5, 5)


@pytest.mark.parametrize("build", [stacked_core, separable_core])
def test_a_core_of_one_layer_is_that_layer(build):
    core = build(1, CHANNELS, 3, 3, 1).eval()
    images = torch.randn(2, 1, 6, 6)
    assert torch.equal(core(images), core.layers[0](images))
