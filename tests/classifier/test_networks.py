"""The networks: the paper's shape, and a blur that is a blur."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from neuroprior.classifier import GaussianBlur, PixelScaling, ResNet
from neuroprior.types import InputError


def test_resnet_is_the_papers():
    network = ResNet("resnet18", width=64)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert len([c for c in convolutions if c.kernel_size != (1, 1)]) == 17
    assert len([m for m in ResNet("resnet34", width=4).modules() if isinstance(m, nn.Conv2d)]) == 33 + 3
    assert convolutions[0].kernel_size == (7, 7)
    assert convolutions[0].stride == (1, 1)
    assert not any(isinstance(m, nn.MaxPool2d) for m in network.modules())
    assert 11_160_000 < sum(p.numel() for p in network.parameters()) < 11_180_000


def test_one_core_takes_both_image_sizes():
    network = ResNet(width=2, classes=7).eval()
    for size in ((32, 32), (36, 64)):
        assert network(torch.rand(3, 1, *size)).shape == (3, 7)


def test_scaling():
    assert PixelScaling()(torch.tensor([[[[0.0, 0.5, 1.0]]]])).flatten().tolist() == [-2.5, 0.0, 2.5]


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.3])
def test_blur_is_scipys(sigma):
    image = np.random.default_rng(0).random((32, 40)).astype(np.float32)
    ours = GaussianBlur(sigma)(torch.from_numpy(image)[None, None])[0, 0].numpy()
    radius = GaussianBlur(sigma).radius
    assert np.abs(ours - gaussian_filter(image, sigma, mode="mirror", radius=radius)).max() < 1e-5


def test_blur_has_no_parameters_and_keeps_means():
    blur = GaussianBlur(1.0)
    assert not list(blur.parameters())
    assert not blur.state_dict()  # saved weights of blurred and plain networks have the same names
    assert torch.allclose(blur(torch.full((1, 3, 16, 16), 0.3)), torch.tensor(0.3))
    with pytest.raises(InputError, match="above 0"):
        GaussianBlur(0.0)
