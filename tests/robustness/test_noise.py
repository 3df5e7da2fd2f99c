"""Noise curves: on a model whose accuracy is known, and the promise of one draw for every network and level."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from neuroprior.robustness import draw_noise, noise, noise_accuracy
from neuroprior.robustness.images import logits_of
from neuroprior.types import InputError


class MeanAbove(nn.Module):
    """Says 1 where the mean pixel exceeds a half: under noise its accuracy is Phi(margin sqrt(d) / sigma)."""

    def forward(self, x):
        mean = x.mean(dim=(1, 2, 3))
        return torch.stack([0.5 - mean, mean - 0.5], dim=1)


def images(n: int = 2000, side: int = 8, margin: float = 0.02) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(n) % 2
    level = 0.5 + margin * (2 * labels - 1)
    random = torch.Generator().manual_seed(0)
    texture = torch.rand(n, 1, side, side, generator=random) * 0.2
    texture -= texture.mean(dim=(1, 2, 3), keepdim=True)
    return level.view(-1, 1, 1, 1) + texture, labels


def test_accuracy_of_a_known_model_is_the_closed_form():
    x, y = images()
    sigmas = [0.0, 0.05, 0.1, 0.2, 0.4]
    curve = noise_accuracy(MeanAbove(), x, y, sigmas)
    assert curve.n == 2000
    assert curve.accuracy[0] == 1
    for sigma, accuracy in zip(sigmas[1:], curve.accuracy[1:], strict=True):
        expected = 0.5 * (1 + math.erf(0.02 * 8 / sigma / math.sqrt(2)))
        assert accuracy == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 2000))


def test_the_image_decides_its_noise_not_its_place():
    x, _ = images(20)
    noise = draw_noise(x, seed=0)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    assert torch.equal(draw_noise(x[order], seed=0), noise[order])
    assert torch.equal(draw_noise(x[3:5], seed=0), noise[3:5])
    assert not torch.equal(draw_noise(x, seed=2**70), noise)
    assert abs(float(noise.mean())) < 0.1
    assert float(noise.std()) == pytest.approx(1, abs=0.1)


def test_every_level_and_network_meets_the_same_draw():
    x, y = images(50)
    seen: list[torch.Tensor] = []

    class Recorder(nn.Module):
        def forward(self, noisy):
            seen.append(noisy)
            return torch.zeros(len(noisy), 2)

    noise_accuracy(Recorder(), x, y, [0.1, 0.2])
    noise_accuracy(Recorder(), x, y, [0.1], batch_size=7)
    assert torch.allclose((seen[0] - x) * 2, seen[1] - x, atol=1e-6)
    assert torch.equal(torch.cat(seen[2:]), seen[0])


def test_clipping():
    x, y = images(50)
    ranges = {}

    class Recorder(nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, noisy):
            ranges[self.name] = noisy
            return torch.zeros(len(noisy), 2)

    for clip in ("none", "unit", "image_range"):
        noise_accuracy(Recorder(clip), x, y, [0.5], clip=clip)
    assert ranges["none"].min() < 0
    assert ranges["unit"].min() == 0
    assert ranges["unit"].max() == 1
    own = (x.amin(dim=(1, 2, 3)), x.amax(dim=(1, 2, 3)))
    assert torch.equal(ranges["image_range"].amin(dim=(1, 2, 3)), own[0])
    assert torch.equal(ranges["image_range"].amax(dim=(1, 2, 3)), own[1])


def test_the_model_is_left_in_its_mode_and_measured_in_evaluation():
    x, y = images(64)
    model = nn.Sequential(nn.Dropout(0.99), MeanAbove()).train()
    assert noise_accuracy(model, x, y, [0.0]).accuracy[0] == 1
    assert model.training
    assert np.array_equal(
        noise_accuracy(model.eval(), x, y, [0.1]).accuracy, noise_accuracy(model, x, y, [0.1]).accuracy
    )
    assert not model.training
    mixed = nn.Sequential(nn.BatchNorm2d(1).eval(), MeanAbove())
    mixed[0].eval()
    noise_accuracy(mixed, x, y, [0.0])
    assert (mixed.training, mixed[0].training) == (True, False)  # a frozen batch norm stays frozen


def test_numpy_images_and_double_precision_networks():
    x, y = images(40)
    model = nn.Sequential(nn.Conv2d(1, 1, 1), MeanAbove())
    expected = noise_accuracy(model, x, y, [0.1]).accuracy
    assert np.array_equal(noise_accuracy(model, x.numpy(), y.numpy(), [0.1]).accuracy, expected)
    assert noise_accuracy(model.double(), x, y, [0.1]).n == 40
    with pytest.raises(InputError, match=r"cannot take images of \(3, 8, 8\)"):
        noise_accuracy(model, x.expand(-1, 3, -1, -1), y, [0.1])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"images": 255 * images(4)[0]}, "scale pixels to"),
        ({"labels": torch.zeros(3, dtype=torch.long)}, r"labels \(3,\)"),
        ({"sigmas": [-0.1]}, "none below 0"),
        ({"sigmas": []}, "at least one"),
        ({"images": torch.full((4, 1, 8, 8), torch.nan)}, "nan"),
    ],
)
@pytest.mark.usefixtures("shapes_unchecked")
def test_what_it_refuses(change, says):
    x, y = images(4)
    arguments = {"images": x, "labels": y, "sigmas": [0.1]} | change
    with pytest.raises(InputError, match=says):
        noise_accuracy(MeanAbove(), **arguments)


def test_uniform_noise_has_the_standard_deviation_that_sigma_says():
    x, _ = images(50)
    noise = draw_noise(x, 0, "uniform")
    assert float(noise.std()) == pytest.approx(1, abs=0.02)
    assert float(noise.abs().max()) <= math.sqrt(3)


def test_salt_and_pepper_replaces_its_share_and_more_at_a_higher_level():
    x, y = images(200)
    seen = []

    class Recorder(nn.Module):
        def forward(self, noisy):
            seen.append(noisy)
            return torch.zeros(len(noisy), 2)

    noise_accuracy(Recorder(), x, y, [0, 0.1, 0.3, 1], kind="salt_and_pepper")
    clean, low, high, whole = seen
    assert torch.equal(clean, x)
    assert float((low != x).float().mean()) == pytest.approx(0.1, abs=0.01)
    assert float((low == 1).float().mean()) == pytest.approx(0.05, abs=0.01)
    assert float((low == 0).float().mean()) == pytest.approx(0.05, abs=0.01)
    assert bool(((high != x) | (low == x)).all())  # what a lower level disturbs, a higher one does too
    assert bool(((whole == 0) | (whole == 1)).all())
    with pytest.raises(InputError, match="above 1"):
        noise_accuracy(Recorder(), x, y, [1.5], kind="salt_and_pepper")


def test_bfloat16_counts_the_same_answers_and_asks_few_again(trained, monkeypatch):
    monkeypatch.setattr(noise, "_COMPARED", 128)
    asked: list[tuple[torch.dtype, int]] = []

    def heard(what, model, images):
        logits = logits_of(what, model, images)
        asked.append((logits.dtype, len(images)))
        return logits

    monkeypatch.setattr(noise, "logits_of", heard)
    sigmas = [0.05 * k for k in range(20)]
    shown = trained.images, trained.labels
    curves = [noise_accuracy(trained.net, *shown, sigmas, precision=p, seed=1) for p in ("float32", "bfloat16")]
    assert 0.2 < curves[0].accuracy.min() < curves[0].accuracy.max()
    assert curves[0].accuracy.tolist() == curves[1].accuracy.tolist()
    half = sum(n for dtype, n in asked if dtype == torch.bfloat16)
    again = sum(n for dtype, n in asked if dtype == torch.float32) - half  # the first curve asked as many
    assert half == len(sigmas) * len(shown[0])
    assert 128 <= again < half / 2


def test_bfloat16_trusts_no_logit_that_is_not_finite():
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            right = torch.stack([images.flatten(1).mean(1), torch.full((len(images),), 0.5)], 1)
            # in half precision all is lost: only what is asked again can be right
            return right * torch.nan if torch.is_autocast_enabled("cpu") else right

    shown, labels = images(3000)
    accuracy = [noise_accuracy(Broken(), shown, labels, [0.0], precision=p).accuracy for p in ("float32", "bfloat16")]
    assert accuracy[0] == accuracy[1]
