"""The compiled loops say what the plain forms say, at any place, on any number of threads; so do their gradients."""

import numpy as np
import pytest
import torch

from neuroprior.twin.kernels import (
    depthwise,
    depthwise_plain,
    normalised_elu,
    normalised_elu_plain,
    read_at,
    read_at_plain,
)

HEIGHT, WIDTH, FEATURES, NEURONS = 5, 7, 3, 6
ROWS = torch.tensor([2, 0, 2, 1, 2])  # trials of one image apart, one image (3) without any


def scene(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Maps, positions inside, and features."""
    random = torch.Generator().manual_seed(seed)
    maps = torch.randn(4, FEATURES, HEIGHT, WIDTH, generator=random)
    positions = (torch.rand(len(ROWS), NEURONS, 2, generator=random) * 2 - 1) * 0.97
    return maps, positions, torch.randn(NEURONS, FEATURES, generator=random)


def at_pixel(x: float, y: float) -> torch.Tensor:
    """Position of a place given in pixels of the maps."""
    return torch.tensor([2 * x / (WIDTH - 1) - 1, 2 * y / (HEIGHT - 1) - 1])


def by_hand(maps: torch.Tensor, x: float, y: float) -> torch.Tensor:
    """Bilinear interpolation of maps `(feature, h, w)` surrounded by zeros, in float64, spelt out."""
    total = torch.zeros(len(maps), dtype=torch.float64)
    for column in range(WIDTH):
        for row in range(HEIGHT):
            weight = max(0.0, 1 - abs(x - column)) * max(0.0, 1 - abs(y - row))
            total += weight * maps[:, row, column].double()
    return total


def gradients(form, *inputs: torch.Tensor) -> list[torch.Tensor]:
    """Of a sum in which every output counts differently."""
    leaves = [value.clone().requires_grad_() for value in inputs]
    out = form(*leaves)
    weight = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).reshape(out.shape)
    return list(torch.autograd.grad((out * weight).sum(), leaves))


@pytest.mark.parametrize("form", [read_at, read_at_plain])
@pytest.mark.parametrize(
    "place",
    [
        (0, 0), (6, 4), (6, 0), (3, 2), (2.25, 1.5), (0, 3.5), (6, 0.5),  # corners, a pixel, between, along borders
        (-0.25, 2), (6.75, 4.5), (-0.5, -0.5),  # half outside
        (-1, 2), (-1.01, 2), (7, 1), (3, 5), (40, -40),  # outside
    ],
)  # fmt: skip
def test_reads_what_interpolation_by_hand_does(form, place):
    maps, _, features = scene()
    seen = form(maps, at_pixel(*place).expand(1, NEURONS, 2), features, torch.tensor([1]))
    assert torch.allclose(seen[0].double(), features.double() @ by_hand(maps[1], *place), atol=1e-5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("spread", [1.0, 1.4, 5.0])
def test_compiled_and_plain_reading_agree(layout, spread):
    maps, positions, features = scene()
    maps, positions = maps.to(memory_format=layout), positions * spread
    plain = read_at_plain(maps.double(), positions.double(), features.double(), ROWS)
    assert torch.allclose(read_at(maps, positions, features, ROWS).double(), plain, atol=1e-5)
    ours = gradients(lambda *given: read_at(*given, ROWS), maps, positions, features)
    exact = gradients(lambda *given: read_at_plain(*given, ROWS), maps.double(), positions.double(), features.double())
    for a, b in zip(ours, exact, strict=True):
        assert torch.allclose(a.double(), b, atol=1e-4)
    assert not ours[0][3].any()  # the image that no trial shows
    assert ours[0][2].any()


def test_the_plain_form_has_the_slopes_of_its_values():
    """Central differences along a random direction, in float64: bilinear, so exact but for pixels that are crossed."""
    given = [value.double() for value in scene(1)]
    random = torch.Generator().manual_seed(6)
    for which in range(3):
        along = torch.randn(given[which].shape, generator=random, dtype=torch.float64)
        values = []
        for step in (1e-6, -1e-6):
            moved = [value + step * along if k == which else value for k, value in enumerate(given)]
            out = read_at_plain(*moved, ROWS)
            values.append((out * torch.linspace(-1, 2, out.numel(), dtype=out.dtype).reshape(out.shape)).sum())
        slope = (gradients(lambda *given: read_at_plain(*given, ROWS), *given)[which] * along).sum()
        assert torch.isclose((values[0] - values[1]) / 2e-6, slope, rtol=1e-6)


@pytest.mark.parametrize("form", [read_at, read_at_plain])
def test_a_place_that_is_not_a_number_is_not_read_as_zero(form):
    maps, positions, features = scene()
    lost = [(0, 0, 0), (1, 2, 1), (3, 5, 0)]
    for at in lost:
        positions[at] = torch.nan
    positions[3, 5, 1] = 9.0  # x not a number, y outside
    positions[4, 4, 1] = torch.inf
    seen = form(maps, positions, features, ROWS)
    assert {tuple(at) for at in seen.isnan().nonzero().tolist()} == {(t, a) for t, a, _ in lost}
    assert seen[4, 4] == 0


@pytest.mark.parametrize("form", [read_at, read_at_plain])
def test_maps_that_are_not_numbers_are_seen_by_those_who_look_there_only(form):
    maps, positions, features = scene()
    maps[2, :, 2, 3] = torch.nan
    positions[0, :2] = torch.stack([at_pixel(2.5, 1.5), at_pixel(4.5, 2)])
    seen = form(maps, positions, features, ROWS)
    assert seen[0, 0].isnan()
    assert seen[0, 1].isfinite()
    assert seen[1].isfinite().all()  # of another image


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_compiled_and_plain_depthwise_convolution_agree(kernel, with_bias, layout):
    random = torch.Generator().manual_seed(2)
    maps = torch.randn(5, 4, 6, 8, generator=random).to(memory_format=layout)
    weight = torch.randn(4, 1, kernel, kernel, generator=random)
    bias = [torch.randn(4, generator=random)] if with_bias else []

    def of(form):
        return lambda maps, weight, bias=None: form(maps, weight, bias)

    given = [maps, weight, *bias]
    exact = [value.double() for value in given]
    asked = [value.clone().requires_grad_() for value in given]
    assert torch.allclose(of(depthwise)(*asked).double(), of(depthwise_plain)(*exact), atol=1e-5)
    for a, b in zip(gradients(of(depthwise), *given), gradients(of(depthwise_plain), *exact), strict=True):
        assert a.shape == b.shape
        assert torch.allclose(a.double(), b, atol=1e-4)


def test_a_depthwise_filter_sees_its_own_channel_alone():
    maps, weight = torch.randn(2, 3, 6, 6), torch.randn(3, 1, 3, 3, requires_grad=True)
    before = depthwise(maps, weight, None)
    maps[:, 1] += 1
    changed = (depthwise(maps, weight, None) != before).any(dim=3).any(dim=2).any(dim=0)
    assert changed.tolist() == [False, True, False]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_compiled_and_plain_normalised_elu_agree(layout):
    """Values, gradients, and what the norm learns; with statistics that are far from 0 and 1."""
    random = torch.Generator().manual_seed(6)
    maps = (torch.randn(5, 4, 6, 8, generator=random) * 3 + 2).to(memory_format=layout)
    weight, bias = torch.randn(2, 4, generator=random)
    found = []
    for form, dtype in ((normalised_elu, torch.float32), (normalised_elu_plain, torch.float64)):
        norm = torch.nn.BatchNorm2d(4).to(dtype)
        norm.weight.data, norm.bias.data = weight.to(dtype), bias.to(dtype)
        leaf = maps.to(dtype).requires_grad_()
        out = form(leaf, norm)
        flow = torch.linspace(-1, 2, out.numel(), dtype=dtype).reshape(out.shape)
        found.append([out.detach(), *torch.autograd.grad((out * flow).sum(), [leaf, norm.weight, norm.bias])])
        found[-1] += [norm.running_mean, norm.running_var, norm.num_batches_tracked]
    for ours, exact in zip(*found, strict=True):
        assert ours.shape == exact.shape
        assert torch.allclose(ours.double(), exact.double(), atol=1e-4, rtol=1e-5)


def test_the_number_of_threads_changes_rounding_alone():
    maps, positions, features = scene(3)
    random = torch.Generator().manual_seed(4)
    weight = torch.randn(FEATURES, 1, 3, 3, generator=random)
    found = {}
    for threads in (1, 2, 3):  # the last: more than images a thread
        torch.set_num_threads(threads)
        found[threads] = [
            read_at(maps, positions, features, ROWS),
            *gradients(lambda *given: read_at(*given, ROWS), maps, positions, features),
            *gradients(lambda maps, weight: depthwise(maps, weight, None), maps, weight),
        ]
    for threads in (2, 3):
        for one, other in zip(found[1], found[threads], strict=True):
            assert torch.allclose(one, other, atol=1e-5)


def test_the_same_threads_give_the_same_bytes():
    maps, positions, features = scene(5)
    torch.set_num_threads(2)
    one, same = (gradients(lambda *given: read_at(*given, ROWS), maps, positions, features) for _ in range(2))
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(one, same, strict=True))


def test_no_trial_is_no_prediction_and_no_gradient():
    maps, positions, features = scene()
    none = torch.empty(0, dtype=torch.long)
    assert read_at(maps, positions[:0], features, none).shape == (0, NEURONS)
    assert not any(g.any() for g in gradients(lambda *given: read_at(*given, none), maps, positions[:0], features))
