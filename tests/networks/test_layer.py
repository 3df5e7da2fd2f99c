"""A layer's features as a population."""

import numpy as np
import pytest
import torch
from torch import nn

from neuroprior.networks import population_from_network, target_from_network
from neuroprior.types import InputError
from reference.similarity import centered_cosine as slow_cosine


def network(channels: int = 1) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(channels, 6, 5, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(6 * 16 * 30, 10))


def test_features_are_the_modules_output_for_gray_from_0_to_1(stimuli):
    net = network()
    gray = torch.from_numpy(stimuli.pixels.astype(np.float32) / 255)[:, None]
    population = population_from_network(net, "2", stimuli)
    with torch.no_grad():
        expected = net.eval()[:3](gray).flatten(1)
    assert np.allclose(population.mean, expected, atol=1e-6)
    assert (population.source, set(population.weights.tolist())) == ("network", {1.0})
    assert list(population.image_ids) == list(stimuli.ids)


def test_features_do_not_depend_on_the_batch_and_the_network_is_left_as_it_was(stimuli):
    net = network().train()
    net[3].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    told = []
    whole = population_from_network(net, "5", stimuli, progress=lambda *at: told.append(at)).mean
    parts = population_from_network(net, "5", stimuli, batch_size=7).mean
    assert np.allclose(whole, parts, atol=1e-6)
    assert told == [(40, 40)]
    assert [m.training for m in net] == [True, True, True, False, True, True]
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_colour_networks_see_gray_repeated_and_preprocessed(stimuli):
    colour, gray = network(3), network(1)
    with torch.no_grad():
        gray[0].weight.copy_(colour[0].weight.sum(dim=1, keepdim=True))
        gray[0].bias.copy_(colour[0].bias)
    ours = population_from_network(colour, "0", stimuli).mean
    assert np.allclose(ours, population_from_network(gray, "0", stimuli).mean, atol=1e-5)
    mean = torch.tensor([0.4, 0.5, 0.6])[:, None, None]
    shifted = population_from_network(colour, "0", stimuli, preprocess=lambda x: (x - mean) / 0.2).mean
    assert not np.allclose(ours, shifted, atol=0.1)


def test_a_target_is_eq_2_of_the_features(stimuli):
    target = target_from_network(network(), "2", stimuli, name="small")
    assert np.allclose(target.matrix, slow_cosine(population_from_network(network(), "2", stimuli).mean), atol=1e-5)
    assert (target.source, target.details["network"], target.details["layer"]) == ("network", "small", "2")
    assert target.details["features"] == 6 * 16 * 30
    assert target.stimuli_digest == stimuli.digest


def test_what_cannot_be_read_is_said(stimuli):
    broken = network()
    with torch.no_grad():
        broken[0].bias[0] = torch.nan
    wrong_head = nn.Sequential(nn.Flatten(), nn.Linear(7, 3))
    for net, layer, says in (
        (network(), "9", "no such module"),
        (broken, "2", "its features are not finite"),
        (wrong_head, "1", "does not take images"),
    ):
        with pytest.raises(InputError) as error:
            population_from_network(net, layer, stimuli)
        assert says in str(error.value)
        assert "\n" not in str(error.value)
