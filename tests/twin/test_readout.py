"""The readout: the same numbers as `grid_sample`, wherever the eye looks, with the same gradients."""

import pytest
import torch
from torch.nn import functional as F

from neuroprior.twin.readout import GaussianReadout


def grid_sample_readout(readout: GaussianReadout, maps: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """The obvious form: sample every map at every neuron's position."""
    grid = readout.positions[None, :, None, :] + shift[:, None, None, :]
    seen = F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=True).squeeze(-1)
    return torch.einsum("bfn,nf->bn", seen, readout.features) + readout.bias


@pytest.fixture
def readout() -> GaussianReadout:
    random = torch.Generator().manual_seed(0)
    positions = torch.rand(50, 2, generator=random) * 2 - 1
    positions[:4] = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [1.0, -1.0], [0.0, 0.0]])  # corners and centre
    features, bias = torch.randn(50, 7, generator=random), torch.randn(50, generator=random)
    return GaussianReadout(positions, features, bias)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("gaze", ["still", "one for all", "one an image", "far outside"])
def test_agrees_with_grid_sample(readout, layout, gaze):
    random = torch.Generator().manual_seed(1)
    maps = torch.randn(5, 7, 9, 13, generator=random).to(memory_format=layout)
    shift = {
        "still": torch.zeros(5, 2),
        "one for all": torch.tensor([[0.3, -0.2]]).expand(5, -1),
        "one an image": torch.randn(5, 2, generator=random) * 0.3,
        "far outside": torch.tensor([[0.0, 0.0], [5.0, 0.0], [5.0, 0.0], [0.0, -3.0], [1.1, 1.1]]),
    }[gaze]
    assert torch.allclose(readout(maps, shift), grid_sample_readout(readout, maps, shift), atol=1e-5)


def test_gradients_agree(readout):
    random = torch.Generator().manual_seed(2)
    maps = torch.randn(3, 7, 9, 13, generator=random)
    shift = torch.randn(3, 2, generator=random) * 0.1

    def gradients(form) -> list[torch.Tensor]:
        leaf, gaze = maps.clone().requires_grad_(), shift.clone().requires_grad_()
        loss = form(leaf, gaze).square().sum()
        return list(torch.autograd.grad(loss, [leaf, gaze, *readout.parameters()]))

    ours = gradients(readout)
    obvious = gradients(lambda leaf, gaze: grid_sample_readout(readout, leaf, gaze))
    for a, b in zip(ours, obvious, strict=True):
        assert torch.allclose(a, b, atol=1e-3, rtol=1e-3)
