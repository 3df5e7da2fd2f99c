"""VGG-19 up to conv3_1, from either file."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from neuroprior.networks import VGG_LAYER, load_vgg19, population_from_network, vgg_target
from neuroprior.recordings import load_stimuli
from neuroprior.types import InputError

NORMALISED = "vgg19/vgg_normalised_conv3_1.pth"
SHAPES = [(64, 3), (64, 64), (128, 64), (128, 128), (256, 128)]


@pytest.fixture
def state():
    """The state dict of torchvision's file, with random weights and one of the layers beyond conv3_1."""
    random = torch.Generator().manual_seed(2)
    made = {}
    for number, (given, taken) in zip((0, 2, 5, 7, 10), SHAPES, strict=True):
        made[f"features.{number}.weight"] = torch.randn(given, taken, 3, 3, generator=random) * (2 / 9 / taken) ** 0.5
        made[f"features.{number}.bias"] = torch.randn(given, generator=random) * 0.1
    made["features.12.weight"] = torch.zeros(256, 256, 3, 3)
    return made


def conv3_1(images, weights, mode):
    """The plain form: images are what conv1_1 takes; weights in pairs."""
    x = images
    for k, (weight, bias) in enumerate(weights):
        if k in (2, 4):
            x = F.max_pool2d(x, 2)
        padded = F.pad(x, (1, 1, 1, 1), mode="reflect") if mode == "reflect" else F.pad(x, (1, 1, 1, 1))
        x = F.conv2d(padded, weight, bias).relu()
    return x


def test_the_plain_kind_is_torchvisions(state, tmp_path):
    torch.save(state, tmp_path / "vgg.pth")
    network = load_vgg19(tmp_path / "vgg.pth")
    assert network.kind == "plain"
    colour = torch.rand(2, 3, 36, 64, generator=torch.Generator().manual_seed(1))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    seen = (colour - mean[:, None, None]) / std[:, None, None]
    values = list(state.values())[:10]
    assert torch.allclose(
        network(colour), conv3_1(seen, zip(values[::2], values[1::2], strict=True), "zeros"), atol=1e-4
    )
    gray = colour[:, :1]
    assert torch.equal(network(gray), network(gray.repeat(1, 3, 1, 1)))
    assert not torch.allclose(network(gray), network(colour), atol=1e-2)


def test_the_normalised_kind_is_the_file(data, tmp_path):
    network = load_vgg19(data(NORMALISED))
    assert network.kind == "normalised"
    assert list(dict(network.named_children()))[-1] == VGG_LAYER
    state = torch.load(data(NORMALISED), weights_only=True)
    colour = torch.rand(2, 3, 36, 64, generator=torch.Generator().manual_seed(1))
    bgr = F.conv2d(colour, state["0.weight"], state["0.bias"])
    weights = [(state[f"{k}.weight"], state[f"{k}.bias"]) for k in (2, 5, 9, 12, 16)]
    assert torch.allclose(network(colour), conv3_1(bgr, weights, "reflect"), atol=1e-4)
    assert not torch.allclose(network(colour), conv3_1(bgr, weights, "zeros"), atol=1e-2)


def test_gray_photographs_activate_the_normalised_kind_about_as_colour_did(data):
    """Each channel was rescaled to a mean of 1 over colour photographs; gray ones of 36x64 give 1.18 on average."""
    photographs = load_stimuli(data("stimuli/tiny_imagenet_36x64.npz"), tier="oracle")
    features = population_from_network(load_vgg19(data(NORMALISED)), VGG_LAYER, photographs).mean
    assert features.shape == (100, 256 * 9 * 16)
    assert 1.0 < features.mean() < 1.4
    target = vgg_target(data(NORMALISED), photographs)
    assert target.details["network"] == (
        "VGG-19 conv3_1, normalised weights (each channel rescaled to unit mean activation)"
    )
    assert (target.source, target.details["neurons"]) == ("network", 36864)
    assert 0.03 < target.matrix[np.triu_indices(100, 1)].std() < 0.12


def test_other_files_are_refused(state, tmp_path):
    lacking = {k: v for k, v in state.items() if k != "features.7.bias"}
    for weights, says in (
        ({"a": torch.zeros(1)}, "no VGG-19 (neither"),
        (lacking, "features.7.bias is missing"),
        ({**state, "features.0.bias": torch.zeros(3)}, "size mismatch for bias"),
    ):
        torch.save(weights, tmp_path / "vgg.pth")
        with pytest.raises(InputError) as error:
            load_vgg19(tmp_path / "vgg.pth")
        assert says in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="no such file"):
        load_vgg19(tmp_path / "nowhere.pth")
