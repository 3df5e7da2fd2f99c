"""A linear unit of a network is shown its filter, where its field lies; the network is left as it was found."""

import numpy as np
import pytest
import torch
from torch import nn

from neuroprior.networks import exciting_images_of_units
from neuroprior.types import InputError

SIZE = (3, 16, 18)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 5), nn.ReLU(), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(4 * 12 * 14, 6)).train()


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize(("at", "place"), [(None, (6, 7)), ((2, 0), (2, 0))])
def test_a_channel_is_shown_its_filter_where_its_field_lies(at, place):
    net = network()
    images = exciting_images_of_units(net, "0", [2, 0], SIZE, at=at, blur=(0.0, 0.0)).images
    assert images.shape == (2, *SIZE)
    for image, channel in zip(images, (2, 0), strict=True):
        expected = np.zeros(SIZE)
        expected[:, place[0] : place[0] + 5, place[1] : place[1] + 5] = net[0].weight[channel].detach()
        assert cosine(image - 0.5, expected - expected.mean()) > 0.99
        assert cosine(image - 0.5, np.roll(expected, 2, axis=1)) < 0.9


def test_values_of_a_vector_are_units_too():
    net = network()
    shut = exciting_images_of_units(net, "5", [1, 4], SIZE, steps=2)
    assert (shut.activities[-1] == shut.activities[0]).all()  # the gray closes every ReLU before it
    with torch.no_grad():
        net[0].bias += 1.0
    found = exciting_images_of_units(net, "5", [1, 4], SIZE, steps=20)
    with torch.no_grad():
        said = net.eval()(torch.from_numpy(found.images)).numpy()
    assert np.allclose(found.activities[-1], [said[0, 1], said[1, 4]], atol=1e-5)
    assert (found.activities[-1] > found.activities[0]).all()


def test_the_network_is_left_as_it_was():
    net = network()
    net[3].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    exciting_images_of_units(net, "5", [0], SIZE, steps=2)
    assert [m.training for m in net] == [True, True, True, False, True, True]
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_networks_work_in_their_own_precision():
    single, double = (
        exciting_images_of_units(network().to(t), "0", [1], SIZE, steps=10) for t in (torch.float, torch.double)
    )
    assert double.images.dtype == np.float32
    assert np.allclose(single.images, double.images, atol=1e-4)


def test_what_cannot_be_found_is_said():
    tokens = nn.Sequential(nn.Conv2d(3, 4, 5), nn.Flatten(2))
    for net, layer, channels, options, says in (
        (network(), "9", [0], {}, "no such module"),
        (network(), "0", [4], {}, "no channel 4; it has 4"),
        (network(), "0", [0, -1], {}, "no channel -1"),
        (network(), "0", [], {}, "no channels named"),
        (network(), "0", [0], {"at": (12, 0)}, r"no row, column \(12, 0\); its maps are 12x14"),
        (network(), "5", [0], {"at": (0, 0)}, "vectors, which have no position"),
        (tokens, "1", [0], {}, "maps or a vector"),
        (network(), "5", [0], {"size": (3, 20, 20)}, "does not take images"),
        (network(), "0", [0], {"size": (1, 16, 18)}, "does not take images"),
        (network(), "0", [0], {"steps": 0}, "steps is 0"),
    ):
        with pytest.raises(InputError, match=says) as error:
            exciting_images_of_units(net, layer, channels, **{"size": SIZE, **options})
        assert "\n" not in str(error.value)
