"""A network that has really learnt something, for what no closed form tells, and parts of a photograph."""

from dataclasses import dataclass

import pytest
import torch
from skimage import data as photographs
from torch import nn

from neuroprior.classifier import load_packaged_digits
from robustness.networks import small_cnn


@dataclass(frozen=True, slots=True)
class Trained:
    """A network, and a hundred test images that it classifies rightly."""

    net: nn.Module
    images: torch.Tensor
    labels: torch.Tensor


@pytest.fixture(scope="session")
def trained() -> Trained:
    """`small_cnn`, trained on the packaged digits at half their size."""
    torch.set_num_threads(1)
    (x, y), (test_x, test_y) = (
        (nn.functional.avg_pool2d(torch.from_numpy(part.pixels).float() / 255, 2), torch.from_numpy(part.labels))
        for part in load_packaged_digits()
    )
    net = small_cnn()
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    draw = torch.Generator().manual_seed(0)
    for _ in range(150):
        rows = torch.randint(len(x), (64,), generator=draw)
        loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        right = net(test_x).argmax(1) == test_y
    assert right.float().mean() > 0.8
    rows = torch.nonzero(right).squeeze(1)
    rows = rows[torch.randperm(len(rows), generator=draw)][:100]
    net.zero_grad(set_to_none=True)
    return Trained(net, test_x[rows], test_y[rows])


@pytest.fixture(scope="session")
def rgb() -> torch.Tensor:
    """64 parts of a packaged photograph, at half its size: 32x32 RGB."""
    halved = photographs.astronaut().reshape(256, 2, 256, 2, 3).mean((1, 3)).round()
    parts = halved.reshape(8, 32, 8, 32, 3).transpose(0, 2, 4, 1, 3).reshape(64, 3, 32, 32)
    return torch.from_numpy(parts).float() / 255


@pytest.fixture(scope="session")
def gray(rgb: torch.Tensor) -> torch.Tensor:
    return (rgb.mean(1, keepdim=True) * 255).round() / 255
