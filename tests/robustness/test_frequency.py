"""Spectra with known answers, filters that add up, and networks of which it is known what frequencies they read."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from neuroprior.classifier.datasets import load_samples
from neuroprior.robustness.frequency import (
    HybridCurve,
    bands,
    filter_accuracy,
    filtered,
    hybrid_partners,
    hybrid_preference,
    radial_spectrum,
)
from neuroprior.types import InputError

SIDE, LOW, HIGH = 32, 3, 11  # of the images of four classes, their gratings' cycles per image


def grating(cycles: tuple[float, float], side: int = SIDE, phase: float = 0.3) -> torch.Tensor:
    at = 2 * math.pi * torch.arange(side) / side
    return torch.cos(cycles[0] * at[:, None] + cycles[1] * at[None] + phase)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


TEMPLATES = torch.stack([torch.stack([grating(c) for c in ((f, 0), (0, f))]) for f in (LOW, HIGH)])  # band, axis, y, x


def four_classes(n: int = 80) -> tuple[torch.Tensor, torch.Tensor]:
    """Two signs on two axes tell the class, by a low grating and by a high one; some noise, nothing to be clipped."""
    labels = torch.arange(n) % 4
    signs = torch.stack([2 * (labels % 2) - 1, 2 * (labels // 2) - 1], 1).float()
    told = torch.einsum("ia,bayx->iyx", signs, TEMPLATES)[:, None]
    return 0.5 + 0.05 * told + 0.01 * drawn(n, 1, SIDE, SIDE), labels


class Reader(nn.Module):
    """Reads the class from gratings, each band by its weight; where it sees nothing, it says class 0."""

    def __init__(self, low: float | int, high: float | int):
        super().__init__()
        self.register_buffer("weights", torch.tensor([float(low), float(high)]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = torch.einsum("iyx,bayx,b->ia", x[:, 0], TEMPLATES, self.weights) / (SIDE * SIDE)
        signs = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]])
        return seen @ signs.T + torch.tensor([0.01, 0, 0, 0])


@pytest.mark.parametrize("shape", [(3, 1, 32, 32), (2, 3, 15, 15), (4, 1, 36, 64)])
def test_the_rings_together_hold_the_mean_square(shape):
    images = drawn(*shape)
    spectrum = radial_spectrum(images)
    square = images.double().square().mean(dim=(1, 2, 3))
    assert spectrum.power.sum() == pytest.approx(float(square.mean()), rel=1e-12)
    assert spectrum.coefficients.sum() == shape[2] * shape[3]
    assert spectrum.share.sum() == pytest.approx(1, rel=1e-12)
    assert spectrum.n == shape[0]
    without = radial_spectrum(images, mean="removed")
    variance = (images.double() - images.double().mean(dim=(2, 3), keepdim=True)).square().mean()
    assert without.power.sum() == pytest.approx(float(variance), rel=1e-12)
    assert without.power[0] == 0 < spectrum.power[0]


@pytest.mark.parametrize(("cycles", "ring"), [((5, 0), 5), ((0, -7), 7), ((3, 4), 5), ((16, 0), 16), ((10, 10), 14)])
def test_a_gratings_power_lies_in_its_ring(cycles, ring):
    spectrum = radial_spectrum(grating(cycles).expand(2, 1, -1, -1))
    assert spectrum.share[ring] == pytest.approx(1, abs=1e-9)
    assert np.delete(spectrum.share, ring).max() < 1e-9
    assert np.allclose(spectrum.centroids, math.hypot(*cycles), atol=1e-6)
    assert spectrum.half_power == pytest.approx(ring, abs=1e-6)
    assert spectrum.cycles_per_pixel[ring] == ring / SIDE
    if ring < SIDE // 2:
        assert spectrum.power[ring] == pytest.approx(0.5, rel=1e-6)  # the mean square of a cosine


def test_a_ring_of_an_oblong_image_counts_cycles_in_its_shorter_side():
    at = 2 * math.pi * torch.arange(64) * 9 / 64  # nine cycles along 64 pixels are 4.5 in 32
    spectrum = radial_spectrum(torch.cos(at).expand(1, 1, 32, 64))
    assert spectrum.side == 32
    assert spectrum.centroids[0] == pytest.approx(4.5)
    assert spectrum.share[5] == pytest.approx(1)


def test_white_noise_is_flat_in_density_and_its_share_is_not():
    noise = torch.randn(1500, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    spectrum = radial_spectrum(noise)
    assert np.allclose(spectrum.density * 256, 1, atol=0.12)
    assert np.allclose(spectrum.share, spectrum.coefficients / 256, rtol=0.12)
    assert spectrum.share[8] > 4 * spectrum.share[1]
    blurred = radial_spectrum(bands(noise, 3, "gaussian")[0])
    assert blurred.density[1] > 4 * blurred.density[5]
    assert blurred.half_power < spectrum.half_power
    assert blurred.centroids.max() < spectrum.centroids.min()


def test_rows_where_nothing_was_found_are_left_out_and_counted():
    images = drawn(6, 1, 16, 16) - 0.5
    expected = radial_spectrum(images[[0, 2, 5]])
    images[[1, 3]] = torch.nan
    images[4] = 0
    spectrum = radial_spectrum(images)
    assert (spectrum.missing, spectrum.empty, spectrum.n) == (2, 1, 3)
    assert np.array_equal(spectrum.share, expected.share)
    assert np.isnan(spectrum.centroids).tolist() == [False, True, False, True, True, False]
    assert radial_spectrum(torch.full((2, 1, 15, 15), 0.3), mean="removed").empty == 2
    none = radial_spectrum(images[[1, 3]])
    assert none.n == 0
    assert np.isnan(none.half_power)
    images[0, 0, 0, 0] = torch.nan
    with pytest.raises(InputError, match="only whole rows may be NaN"):
        radial_spectrum(images)


@pytest.mark.parametrize("edge", ["ideal", "gaussian"])
@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (2, 1, 9, 14)])
def test_low_and_high_are_the_image(edge, shape):
    images = drawn(*shape)
    whole = images.double()
    for cutoff in (0, 1.5, 4, 100):
        low, high = bands(images, cutoff, edge)
        assert torch.allclose(low + high, whole, atol=1e-12)
        assert torch.allclose(low.mean(dim=(2, 3)), whole.mean(dim=(2, 3)), atol=1e-12)
        again = bands(low, cutoff, edge)[0]
        assert torch.allclose(again, low, atol=1e-9) == (edge == "ideal" or cutoff == 0)
    flat, texture = bands(images, 0, edge)
    assert torch.allclose(flat, whole.mean(dim=(2, 3), keepdim=True), atol=1e-12)
    assert float(texture.std()) > 0.2


def test_an_ideal_filter_passes_its_cutoff_and_a_gaussian_half_of_it():
    image = grating((0, 6)).expand(1, 1, -1, -1).double()
    for edge, cutoff, amplitude in (("ideal", 6, 1), ("ideal", 5.9, 0), ("gaussian", 6, 0.5), ("gaussian", 3, 1 / 16)):
        assert torch.allclose(bands(image, cutoff, edge)[0], amplitude * image, atol=1e-6)


def test_what_stands_around_a_high_passed_image_and_what_is_clipped():
    images = 0.3 + 0.2 * drawn(5, 1, SIDE, SIDE)
    texture = bands(images, 2)[1]
    for around, level in (("mean", images.double().mean(dim=(2, 3), keepdim=True)), ("gray", 0.5)):
        found = filtered(images, 2, "high", around=around)
        assert torch.allclose(found.images.double(), texture + level, atol=1e-6)
        assert found.clipped == 0
    assert filtered(images, 2, "high", around="zero").clipped == pytest.approx(0.5, abs=0.05)
    assert filtered(images, 2, "low").clipped == 0
    white = filtered(torch.ones(2, 1, SIDE, SIDE), 3, "low")
    assert white.clipped == 0  # rounding is no clipping
    assert torch.allclose(white.images, torch.ones(()))


@pytest.mark.parametrize("edge", ["ideal", "gaussian"])
def test_a_network_of_low_frequencies_needs_them_and_them_alone(edge):
    images, labels = four_classes()
    model = Reader(1, 0).train()
    low = filter_accuracy(model, images, labels, [0, 2, 3, 8, 30], keep="low", edge=edge, batch_size=33)
    high = filter_accuracy(model, images, labels, [0, 2, 3, 8, 30], keep="high", edge=edge)
    assert model.training
    assert low.clean == high.clean == 1
    assert low.accuracy[[0, 2, 3, 4]].tolist() == [0.25, 1, 1, 1]
    assert high.accuracy[[0, 4]].tolist() == [1, 0.25]
    if edge == "ideal":
        assert (low.accuracy[1], high.accuracy[1], high.accuracy[2]) == (0.25, 1, 0.25)
    assert low.clipped.max() == high.clipped.max() == 0
    other = filter_accuracy(Reader(0, 1), images, labels, [3, 8, 12], keep="high", edge="ideal")
    assert other.accuracy.tolist() == [1, 1, 0.25]  # one that reads high frequencies is not harmed by losing the low


def test_hybrids_are_named_after_the_image_whose_band_is_read():
    images, labels = four_classes()
    cutoffs = [0, 1, 2, 3, 5, 8, 10, 11, 12, 20]
    low, high = (hybrid_preference(Reader(*w), images, labels, cutoffs) for w in ((1.0, 0.0), (0.0, 1.0)))
    assert low.n == high.n == 80
    assert low.low.tolist() == [0] * 3 + [1] * 7
    assert high.low.tolist() == [0] * 7 + [1] * 3
    assert (low.neither == 0).all()
    assert (low.crossover, high.crossover) == (2.5, 10.5)
    for weights, crossover in (((1, 0.5), 2.5), ((0.5, 1), 10.5)):  # of two bands that disagree the stronger decides
        assert hybrid_preference(Reader(*weights), images, labels, cutoffs).crossover == crossover
    blind = hybrid_preference(Reader(0.0, 0.0), images, labels, cutoffs, of="all")
    assert np.isnan(blind.crossover) or abs(blind.low - blind.high).max() < 0.2
    assert blind.neither.min() > 0.3
    assert hybrid_preference(Reader(0, 0), images[1:4], labels[1:4], [0, 5]).n == 0


def test_a_pair_is_the_images_own_whatever_its_company():
    images, labels = four_classes(60)
    partner = hybrid_partners(images, labels, seed=1)
    assert bool((labels[partner] != labels).all())
    assert len(partner.unique()) > 25
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    assert torch.equal(order[hybrid_partners(images[order], labels[order], seed=1)], partner[order])
    pair = torch.stack([torch.tensor(7), partner[7]])
    rest = torch.cat([pair, torch.tensor([i for i in range(0, 60, 3) if i not in pair])])
    assert hybrid_partners(images[rest], labels[rest], seed=1)[0] == 1
    assert not torch.equal(hybrid_partners(images, labels, seed=2), partner)
    curves = [
        hybrid_preference(Reader(1, 1), images[rows], labels[rows], [0, 3, 20], batch_size=size)
        for rows, size in ((torch.arange(60), 256), (order, 7))
    ]
    assert np.array_equal(curves[0].low, curves[1].low)


@pytest.mark.parametrize(
    ("low", "crossover"),
    [
        ([0.0, 0.0, 1.0, 1.0], 3.0),  # at 2, 4, led by the high image up to halfway
        ([0.0, 0.25, 1.0, 1.0], 2 + 2 * 0.5 / 1.5),
        ([0.0, 0.5, 0.5, 1.0], 3.0),  # equal on a stretch: its middle
        ([0.0, 1.0, 0.0, 1.0], 4.0),  # crossings at 1, 3 and 6: led by the high image for 1 + 3
        ([0.6, 0.7, 0.8, 1.0], math.nan),
        ([0.1, 0.2, 0.3, 0.4], math.nan),
    ],
)
def test_the_crossover_of_known_curves(low, crossover):
    shares = np.array(low)
    curve = HybridCurve((0.0, 2.0, 4.0, 8.0), shares, 1 - shares, np.zeros(4), SIDE, 10)
    assert curve.crossover == pytest.approx(crossover, nan_ok=True)


def test_natural_images_fall_off_as_a_power_of_frequency(data):
    samples = load_samples(data("cifar10/test-00000-of-00001.parquet"), color="gray", n=300)
    images, labels = torch.as_tensor(samples.images), torch.as_tensor(samples.labels)
    spectrum = radial_spectrum(images, mean="removed")
    seen = slice(1, 12)
    slope = np.polyfit(np.log(spectrum.cycles_per_image[seen]), np.log(spectrum.density[seen]), 1)[0]
    assert -3.5 < slope < -2  # 1 / f^2 and somewhat steeper, as of small photographs
    assert spectrum.half_power < 4
    for cutoff in (2, 8):
        assert filtered(images, cutoff, "low").clipped < 0.05
        assert filtered(images, cutoff, "high").clipped < 0.1
    hybrids = hybrid_preference(Reader(1, 1), images, labels, [0, 4], of="all")
    assert hybrids.n == 300
    assert 0 < hybrids.clipped.max() < 0.1


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x, y: filtered(255 * x, 3, "low"), "scale pixels to"),
        (lambda x, y: filtered(x, -1, "low"), "none below 0"),
        (lambda x, y: filtered(x, 3, "middle"), "keep='middle' is not one of low, high"),
        (lambda x, y: filtered(x, 3, "low", edge="soft"), "ideal, gaussian"),
        (lambda x, y: filtered(x, 3, "high", around="black"), "mean, gray, zero"),
        (lambda x, y: filter_accuracy(Reader(1, 1), x, y, [], keep="low"), "at least one"),
        (lambda x, y: filter_accuracy(Reader(1, 1), x, y[:2], [1], keep="low"), r"labels \(2,\)"),
        (lambda x, y: hybrid_preference(Reader(1, 1), x, y, [3, 3]), "each above the one before"),
        (lambda x, y: hybrid_preference(Reader(1, 1), x, 0 * y, [1, 3]), "all images are of class 0"),
        (lambda x, y: hybrid_preference(Reader(1, 1), x, y, [1, 3], of="wrong"), "right, all"),
        (lambda x, y: radial_spectrum(x[0]), "give floats"),
    ],
)
@pytest.mark.usefixtures("shapes_unchecked")
def test_what_it_refuses(call, says):
    with pytest.raises(InputError, match=says) as error:
        call(*four_classes(8))
    assert "\n" not in str(error.value)
