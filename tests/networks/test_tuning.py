"""Filters of which it is known what they prefer are asked with gratings, and say so."""

import math

import numpy as np
import pytest
import torch
from scipy.special import ive
from torch import nn

from neuroprior.networks.tuning import Tuning, sine_gratings, unit_tuning
from neuroprior.types import InputError

SIZE = (1, 34, 36)
KERNEL = 31
FINE = np.geomspace(0.04, 0.45, 36)


def gabor(f: float, theta: float, *, odd: bool = True, cycles: float = 0.5) -> torch.Tensor:
    """A carrier under a Gaussian of standard deviation cycles / f, of mean zero; `theta` in degrees."""
    at = torch.arange(KERNEL, dtype=torch.float64) - KERNEL // 2
    y, x = at[:, None], at[None]
    across = x * math.sin(math.radians(theta)) + y * math.cos(math.radians(theta))
    wave = torch.sin(2 * math.pi * f * across) if odd else torch.cos(2 * math.pi * f * across)
    field = torch.exp(-(x**2 + y**2) * f**2 / (2 * cycles**2))
    return field * wave / field.sum()


def blob(sigma: float) -> torch.Tensor:
    at = torch.arange(KERNEL, dtype=torch.float64) - KERNEL // 2
    field = torch.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * sigma**2))
    return field / field.sum()


def bank(*filters: torch.Tensor, bias: float = 0.0) -> nn.Conv2d:
    conv = nn.Conv2d(1, len(filters), KERNEL)
    with torch.no_grad():
        conv.weight.copy_(torch.stack([f - f.mean() for f in filters])[:, None])
        conv.bias.fill_(bias)
    return conv


class Energy(nn.Module):
    """Sums the squares of each two channels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.square().unflatten(1, (-1, 2)).sum(2)


def apart(a: float, b: float) -> float:
    """Degrees between two orientations."""
    return abs((a - b + 90) % 180 - 90)


def test_gratings_are_what_they_are_called():
    f, theta, phi = np.array([0.1, 0.1, 0.25, 0.1]), np.array([0.0, 90.0, 45.0, 0.0]), np.array([0.0, 90.0, 0.0, 180.0])
    images = sine_gratings((2, 21, 31), f, theta, phi, contrast=0.8)
    assert images.shape == (4, 2, 21, 31)
    assert torch.equal(images[:, 0], images[:, 1])
    horizontal, vertical, rising, turned = images[:, 0]
    assert torch.allclose(horizontal, horizontal[:, :1].expand(-1, 31))
    assert torch.allclose(vertical, vertical[:1].expand(21, -1))
    assert torch.allclose(rising[1:, :-1], rising[:-1, 1:], atol=1e-5)  # up and to the right they stay alike
    assert not torch.allclose(rising[:-1, :-1], rising[1:, 1:], atol=1e-2)
    assert float(horizontal[10, 0]) == pytest.approx(0.9)  # a crest in the middle, half of 1 + contrast
    assert torch.allclose(horizontal[:11], horizontal[10:], atol=1e-5)  # ten pixels are one cycle
    assert torch.allclose(horizontal + turned, torch.ones(()))
    assert (images.min() >= 0.1 - 1e-6, images.max() <= 0.9 + 1e-6) == (True, True)


def test_gabors_give_back_their_frequency_and_orientation():
    known = [(f, theta) for f in (0.1, 0.16, 0.25) for theta in (0.0, 25.0, 60.0, 90.0, 135.0, 172.0)]
    network = nn.Sequential(bank(*(gabor(f, theta) for f, theta in known)), nn.ReLU())
    tuning = unit_tuning(network, ["0", "1"], SIZE, phases=4)
    assert tuning.responsive.all()
    assert len(tuning) == 2 * len(known)
    step = math.log2(tuning.frequencies[1] / tuning.frequencies[0])
    for row, (f, theta) in zip(tuning.as_rows(), 2 * known, strict=True):
        assert abs(math.log2(row.frequency / f)) < step
        assert apart(row.orientation, theta) <= 7.5
        assert apart(row.orientation, theta + 90) > 60
        assert row.selectivity > 0.5
        assert not row.low_pass


def test_bandwidth_and_selectivity_of_a_gabor_are_the_closed_forms():
    """exp(-2 (pi s (f - f_0))^2) is half at f_0 -+ sqrt(ln 2 / 2) / (pi s); around, exp(kappa cos) has I_2 / I_0."""
    cycles = [0.4, 0.5, 0.7]
    network = bank(*(gabor(0.16, 30.0, odd=False, cycles=c) for c in cycles))
    tuning = unit_tuning(nn.Sequential(network), ["0"], SIZE, frequencies=list(FINE), phases=4)
    for k, c in enumerate(cycles):
        half = math.sqrt(math.log(2) / 2) / (math.pi * c)
        assert tuning.bandwidth[k] == pytest.approx(math.log2((1 + half) / (1 - half)), rel=0.05)
        kappa = (2 * math.pi * c) ** 2 * tuning.frequency[k] / 0.16
        assert tuning.selectivity[k] == pytest.approx(ive(2, kappa) / ive(0, kappa), abs=0.01)
        assert tuning.orientation[k] == 30


def test_round_fields_have_no_orientation_and_the_frequency_of_their_closed_form():
    center, surround = 1.2, 2.4
    ring = blob(center) - blob(surround)
    network = nn.Conv2d(1, 2, KERNEL, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.stack([ring, blob(1.5)])[:, None])
    tuning = unit_tuning(nn.Sequential(network), ["0"], SIZE, frequencies=list(FINE), phases=4)
    peak = math.sqrt(math.log((surround / center) ** 2) / (2 * math.pi**2 * (surround**2 - center**2)))
    assert abs(math.log2(tuning.frequency[0] / peak)) < math.log2(FINE[1] / FINE[0])
    assert tuning.selectivity.max() < 0.01
    assert tuning.low_pass.tolist() == [False, True]
    assert np.isnan(tuning.bandwidth).tolist() == [False, True]
    assert tuning.frequency[1] == FINE[0]
    (layer,) = tuning.layers()
    assert (layer.low_pass, sum(layer.oriented)) == (0.5, 0)


def test_simple_and_complex_units():
    """F1/F0 of a rectified cosine is (1/2) / (1/pi); of an energy 0; of a linear unit infinite."""
    pair = [gabor(f, theta, odd=odd) for f, theta in ((0.12, 45.0), (0.2, 90.0)) for odd in (False, True)]
    simple = nn.Sequential(bank(*pair), nn.ReLU())
    tuning = unit_tuning(simple, ["0", "1"], SIZE, phases=32)
    assert np.isinf(tuning.modulation[:4]).all()
    assert np.allclose(tuning.modulation[4:], math.pi / 2, rtol=5e-3)
    linear, rectified = tuning.layers()
    assert (linear.simple, rectified.simple) == (1, 1)
    assert np.array_equal(tuning.orientation[:4], tuning.orientation[4:])
    energy = unit_tuning(nn.Sequential(bank(*pair), Energy()), ["1"], SIZE, frequencies=list(FINE))
    assert energy.modulation.max() < 0.01
    assert energy.layers()[0].simple == 0
    assert energy.orientation.tolist() == [45, 90]
    assert np.allclose(energy.frequency, [0.12, 0.2], rtol=0.07)


def test_units_that_do_not_answer_are_counted_and_nothing_else():
    class Shown(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([1 - x, x], 1)  # one suppressed by every grating, one excited

    filters = [gabor(0.12, 0.0, odd=odd) for odd in (False, True)]
    network = nn.Sequential(bank(*filters), Energy(), Shown())
    tuning = unit_tuning(network, ["0", "2"], SIZE)
    assert tuning.responsive.tolist() == [True, True, False, True]
    for values in (tuning.frequency, tuning.orientation, tuning.selectivity, tuning.modulation):
        assert np.isnan(values).tolist() == [False, False, True, False]
    _, layer = tuning.layers()
    assert (layer.units, layer.responsive, sum(layer.oriented)) == (2, 1, 1)
    assert layer.frequency == tuning.frequency[3]
    shut = unit_tuning(nn.Sequential(bank(*filters, bias=-10.0), nn.ReLU()), ["1"], SIZE)
    (layer,) = shut.layers()
    assert (layer.responsive, sum(layer.oriented)) == (0, 0)
    assert math.isnan(layer.frequency)
    assert math.isnan(layer.low_pass)
    assert not shut.low_pass.any()
    constant = unit_tuning(nn.Sequential(bank(0 * filters[0], filters[1], bias=3.0)), ["0"], SIZE)
    assert constant.responsive.tolist() == [False, True]  # rounding is no answer


def test_orientations_are_counted_where_they_mean_something():
    angles = [0.0, 45.0, 45.0, 90.0]
    conv = bank(*(gabor(0.12, a) for a in angles), blob(1.2) - blob(2.4))
    tuning = unit_tuning(nn.Sequential(conv), ["0"], SIZE, orientations=4, phases=4)
    assert tuning.layers()[0].oriented == (1, 2, 1, 0)
    assert sum(tuning.layers(least_selectivity=0)[0].oriented) == 5


def small() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 5), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(6 * 12 * 14, 4)).train()


def asked(network: nn.Module, layers: list[str], **options) -> Tuning:
    return unit_tuning(network, layers, (3, 16, 18), orientations=3, phases=3, **options)


def test_units_stand_where_they_are_asked_and_the_network_is_left_as_it_was():
    network = small()
    network[3].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    tuning = asked(network, ["5", "2"], batch_size=7)
    assert [m.training for m in network] == [True, True, True, False, True, True]
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert tuning.layer.tolist() == ["5"] * 4 + ["2"] * 6
    assert tuning.channel.tolist() == [*range(4), *range(6)]
    assert tuning.responses.shape == (10, 11, 3, 3)
    assert np.allclose(tuning.responses, asked(network, ["5", "2"]).responses, atol=1e-6)
    f, theta, phi = tuning.frequencies[4], tuning.orientations[2], 120.0
    image = sine_gratings((3, 16, 18), *(np.array([float(v)]) for v in (f, theta, phi)), contrast=0.5)
    with torch.no_grad():
        network.eval()
        assert np.allclose(tuning.responses[:4, 4, 2, 1], network(image)[0], atol=1e-6)
        assert np.allclose(tuning.responses[4:, 4, 2, 1], network[:3](image)[0, :, 6, 7], atol=1e-6)
        corner = asked(network, ["2"], at=(0, 13), units=3)
        assert np.allclose(corner.responses[:, 4, 2, 1], network[:3](image)[0, [0, 2, 4], 0, 13], atol=1e-6)
    assert corner.channel.tolist() == [0, 2, 4]
    double = asked(network.double(), ["5", "2"])
    assert np.allclose(double.responses, tuning.responses, atol=1e-5)


def test_what_cannot_be_asked_is_said():
    broken = small()
    with torch.no_grad():
        broken[0].weight[1] = torch.nan
    for network, layers, options, says in (
        (small(), ["9"], {}, "no such module"),
        (small(), ["2", "1"], {"units": 0}, "units=0"),
        (small(), ["1"], {}, "overwrites its output"),
        (small(), ["2"], {"at": (12, 0)}, "no row, column"),
        (small(), ["5"], {"at": (0, 0)}, "vectors, which have no position"),
        (small(), ["2"], {"frequencies": [0.1, 0.5]}, "below 0.5"),
        (small(), ["2"], {"frequencies": [0.2, 0.1]}, "ascending"),
        (small(), ["2"], {"contrast": 1.5}, "above 0 up to 1"),
        (broken, ["2"], {}, "layer '2': some responses to gratings are not finite"),
    ):
        with pytest.raises(InputError, match=says) as error:
            asked(network, layers, **options)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="does not take images"):
        unit_tuning(small(), ["5"], (3, 20, 20))
