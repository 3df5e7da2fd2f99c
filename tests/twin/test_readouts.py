"""Readouts: where neurons look, how positions are drawn, what the gaze does, and what is left when training ends."""

import pytest
import torch

from neuroprior.twin.readout import (
    CorticalPositions,
    FactorisedReadout,
    GaussianReadout,
    PositionSpread,
    first_features,
    first_mask,
    first_spread,
    moved,
)

NEURONS, FEATURES, HEIGHT, WIDTH = 5, 3, 9, 11
STILL = torch.zeros(4, 2)


def gaussian(spread: PositionSpread | None = None, positions=None) -> GaussianReadout:
    random = torch.Generator().manual_seed(0)
    where = torch.rand(NEURONS, 2, generator=random) - 0.5 if positions is None else positions
    return GaussianReadout(
        where, torch.randn(NEURONS, FEATURES, generator=random), torch.randn(NEURONS, generator=random), spread
    )


def factorised() -> FactorisedReadout:
    random = torch.Generator().manual_seed(1)
    return FactorisedReadout(
        torch.randn(NEURONS, HEIGHT, WIDTH, generator=random),
        torch.randn(NEURONS, FEATURES, generator=random),
        torch.randn(NEURONS, generator=random),
    )


@pytest.fixture
def maps() -> torch.Tensor:
    return torch.randn(4, FEATURES, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(2))


def test_positions_are_drawn_in_training_and_the_mean_in_evaluation(maps):
    readout = gaussian(first_spread(NEURONS, 0.1, full=True))
    mean = gaussian()(maps, STILL)
    readout.train()
    one, two = readout(maps, STILL), readout(maps, STILL)
    assert not torch.allclose(one, two, atol=1e-3)
    readout.eval()
    assert torch.equal(readout(maps, STILL), mean)


def test_draws_differ_between_trials_of_one_image_and_average_to_the_blurred_map(maps):
    """With a spread that vanishes they are the mean; trials of one image are drawn apart."""
    readout = gaussian(first_spread(NEURONS, 0.05, full=False)).train()
    torch.manual_seed(0)
    drawn = readout(maps, torch.zeros(50, 2), torch.zeros(50, dtype=torch.long))
    assert (drawn.std(dim=0) > 1e-3).all()
    narrow = gaussian(first_spread(NEURONS, 1e-6, full=False)).train()
    assert torch.allclose(narrow(maps, STILL), gaussian()(maps, STILL), atol=1e-4)


def test_the_covariance_of_draws_is_the_factor_times_its_transpose():
    torch.manual_seed(0)
    factor = torch.tensor([[[0.05, 0.0], [0.04, 0.02]], [[0.03, -0.05], [0.0, 0.04]]])
    drawn = PositionSpread(factor)(torch.tensor([[0.1, -0.2], [0.0, 0.3]]), 40_000).detach()
    assert torch.allclose(drawn.mean(dim=0), torch.tensor([[0.1, -0.2], [0.0, 0.3]]), atol=2e-3)
    for a in range(2):
        assert torch.allclose(torch.cov(drawn[:, a].T), factor[a] @ factor[a].T, atol=1e-4)
    assert not torch.allclose(torch.cov(drawn[:, 1].T), factor[1].T @ factor[1], atol=1e-4)


def test_isotropic_is_full_with_equal_axes():
    positions = torch.rand(NEURONS, 2) - 0.5
    sizes = torch.linspace(0.01, 0.2, NEURONS)
    drawn = []
    for factor in (sizes, sizes[:, None, None] * torch.eye(2)):
        torch.manual_seed(3)
        drawn.append(PositionSpread(factor)(positions, 7))
    assert torch.equal(*drawn)
    assert torch.equal(first_spread(2, 0.1, full=True).factor, 0.1 * torch.eye(2).expand(2, 2, 2))
    assert torch.equal(first_spread(2, 0.1, full=False).factor, torch.tensor([0.1, 0.1]))


def test_no_draw_leaves_the_maps():
    torch.manual_seed(0)
    drawn = PositionSpread(torch.full((2,), 3.0))(torch.zeros(2, 2), 200)
    assert drawn.abs().max() == 1


def test_cortical_positions_are_one_smooth_map_for_all():
    torch.manual_seed(0)
    cortex = torch.randn(6, 2)
    cortex[3] = cortex[0]
    cortex[4] = cortex[0] + 1e-3
    places = CorticalPositions(cortex)
    for weight in places.parameters():
        weight.data *= 3
    where = places()
    assert torch.equal(where[3], where[0])
    assert 0 < (where[4] - where[0]).norm() < 0.05
    assert (where[1] - where[0]).norm() > 0.05
    assert where.abs().max() <= 1
    assert {name.split(".")[0] for name, _ in places.named_parameters()} == {"mlp"}  # no weight of a neuron's own
    grown = CorticalPositions(torch.cat([cortex, cortex]))
    assert sum(p.numel() for p in grown.parameters()) == sum(p.numel() for p in places.parameters())


@pytest.mark.parametrize("kind", ["free", "outside", "cortical", "factorised"])
def test_a_settled_readout_predicts_the_same_and_is_fixed(kind, maps):
    torch.manual_seed(0)
    spread = first_spread(NEURONS, 0.1, full=True)
    readout = {
        "free": lambda: gaussian(spread),
        "outside": lambda: gaussian(spread, torch.linspace(-1.4, 1.4, 2 * NEURONS).reshape(NEURONS, 2)),
        "cortical": lambda: gaussian(spread, CorticalPositions(torch.randn(NEURONS, 2))),
        "factorised": factorised,
    }[kind]()
    readout.eval()
    shift = torch.randn(4, 2) * 0.2
    settled = readout.settled()
    assert torch.equal(settled(maps, shift), readout(maps, shift))
    assert torch.equal(settled.train()(maps, shift), readout(maps, shift))  # nothing is drawn any more
    before = settled(maps, shift)
    for weight in readout.parameters():
        weight.data += 1
    assert torch.equal(settled(maps, shift), before)


def test_the_factorised_readout_is_the_explicit_sum(maps):
    readout = factorised()
    found = readout(maps, STILL)
    for t in range(4):
        for a in range(NEURONS):
            by_feature = [(readout.mask[a] * maps[t, c]).sum() for c in range(FEATURES)]
            said = sum(w * value for w, value in zip(readout.features[a], by_feature, strict=True)) + readout.bias[a]
            assert torch.isclose(found[t, a], said, atol=1e-4)


def test_a_factorised_mask_of_one_pixel_is_the_gaussian_readout_there(maps):
    point = gaussian(positions=torch.tensor([[2 * x / (WIDTH - 1) - 1, 2 * 4 / (HEIGHT - 1) - 1] for x in range(5)]))
    mask = torch.zeros(NEURONS, HEIGHT, WIDTH)
    mask[torch.arange(NEURONS), 4, torch.arange(NEURONS)] = 1
    summed = FactorisedReadout(mask, point.features.detach(), point.bias.detach())
    shift = torch.tensor([[0.0, 0.0], [0.13, 0.0], [0.0, -0.2], [0.31, 0.07]])
    assert torch.allclose(point(maps, shift), summed(maps, shift), atol=1e-5)
    assert torch.allclose(summed.positions, point.positions, atol=1e-5)


@pytest.mark.parametrize("make", [gaussian, factorised])
@pytest.mark.parametrize("across_down", [(1, 0), (0, 1), (-2, 1)])
def test_a_shift_of_one_pixel_is_maps_moved_by_one_pixel(make, across_down, maps):
    """To look one pixel to the right is to see what stands there: the maps rolled to the left."""
    across, down = across_down
    framed = torch.zeros_like(maps)  # nothing is lost at the border
    framed[..., 2:-2, 2:-2] = maps[..., 2:-2, 2:-2]
    readout = make()
    shift = torch.tensor([[2 * across / (WIDTH - 1), 2 * down / (HEIGHT - 1)]]).expand(4, 2)
    rolled = framed.roll((-down, -across), dims=(2, 3))
    assert torch.allclose(readout(framed, shift), readout(rolled, STILL), atol=1e-4)
    assert not torch.allclose(readout(framed, -shift), readout(rolled, STILL), atol=1e-2)


def test_moved_maps_bring_what_stood_at_the_shift_to_the_middle():
    maps = torch.zeros(1, 1, HEIGHT, WIDTH)
    maps[0, 0, 4, 7] = 1  # two pixels to the right of the middle
    there = moved(maps, torch.tensor([[2 * 2 / (WIDTH - 1), 0.0]]))
    assert torch.isclose(there[0, 0, 4, 5], torch.tensor(1.0), atol=1e-6)


@pytest.mark.parametrize("make", [gaussian, factorised])
def test_rows_say_which_map_a_trial_sees(make, maps):
    readout = make()
    rows = torch.tensor([3, 0, 3])
    shift = torch.randn(3, 2) * 0.1
    assert torch.allclose(readout(maps, shift, rows), readout(maps[rows], shift), atol=1e-6)


def test_first_weights_make_a_small_drive_and_look_where_they_should():
    torch.manual_seed(0)
    features = first_features(2000, 16)
    assert abs(float(features.var()) * 16**2 - 1) < 0.05
    where = torch.tensor([[0.0, 0.0], [-0.5, 0.4], [0.3, -0.6]])
    mask = first_mask(where, 40, 64)
    assert torch.allclose(mask.sum(dim=(1, 2)), torch.ones(3))
    readout = FactorisedReadout(mask, torch.ones(3, 1), torch.zeros(3))
    assert torch.allclose(readout.positions, where, atol=0.02)
    spread = (mask[0].sum(0) * torch.linspace(-1, 1, 64).square()).sum().sqrt()
    assert torch.isclose(spread, torch.tensor(0.2), atol=0.01)
    assert first_mask(torch.tensor([[90.0, 90.0]]), 4, 4).isfinite().all()
