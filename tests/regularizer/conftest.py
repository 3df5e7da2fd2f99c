"""A small network to regularise."""

import pytest
import torch

from neuroprior.classifier import ResNet


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ResNet(width=4)
