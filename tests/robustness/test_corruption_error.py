"""What corruptions do to images and networks: alone or in company, by severity, and the errors of them."""

import numpy as np
import pytest
import torch
from torch import nn

from neuroprior.classifier import load_parquet_images
from neuroprior.robustness.corruptions import (
    EXTRA_CORRUPTIONS,
    SEVERITIES,
    USUAL_CORRUPTIONS,
    CorruptionCurve,
    corrupted,
    corruption_accuracy,
)
from neuroprior.types import InputError
from robustness.networks import published as published_network

ALL = USUAL_CORRUPTIONS + EXTRA_CORRUPTIONS


@pytest.mark.parametrize("kind", ALL)
def test_every_kind_gives_changed_images_of_eight_bits(kind, rgb, gray):
    for images in (rgb[:6], gray[:6]):
        for severity in (1, 5):
            out = corrupted(images, kind, severity)
            assert out.shape == images.shape
            assert out.dtype == torch.float32
            assert torch.equal(out, (255 * out).round() / 255)
            assert 0 <= float(out.min()) < float(out.max()) <= 1
            spared = kind == "saturate" and severity == 1 and images.shape[1] == 1
            assert bool((out != images).flatten(1).any(1).all()) != spared


@pytest.mark.parametrize("kind", ALL)
def test_the_image_decides_its_corruption_not_its_company(kind, rgb):
    images = rgb[:6]
    out = corrupted(images, kind, 3)
    order = torch.tensor([4, 2, 5, 0, 1, 3])
    assert torch.equal(corrupted(images[order], kind, 3), out[order])
    assert torch.equal(corrupted(images[2:3], kind, 3), out[2:3])
    assert torch.equal(corrupted(images.double().numpy(), kind, 3), out)
    assert torch.equal(corrupted(images, kind, 3, seed=0), out)
    fixed = {"defocus_blur", "zoom_blur", "gaussian_blur", "brightness", "contrast", "saturate", "pixelate"}
    drawn = kind not in fixed | {"jpeg_compression"}
    assert torch.equal(corrupted(images, kind, 3, seed=2**80), out) != drawn


def growth(images: torch.Tensor, kind: str) -> list[float]:
    return [float((corrupted(images, kind, severity) - images).square().mean()) for severity in SEVERITIES]


STEADY = (
    "gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "defocus_blur", "gaussian_blur", "zoom_blur",
    "brightness", "contrast", "fog", "snow", "pixelate", "jpeg_compression",
)  # fmt: skip


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind != "elastic_transform"])
def test_a_higher_severity_changes_images_more(kind, rgb, gray):
    """Strictly where one constant rises; the others, whose constants trade against each other, from first to last."""
    for images in (rgb, gray):
        sizes = growth(images, kind)
        assert sizes[4] > sizes[0]
        if kind in STEADY:
            assert sizes == sorted(sizes)


def test_elastic_transforms_trade_drift_for_wobble(gray):
    """Their published constants move the image less as they bend it more, so squared changes fall."""
    sizes = growth(gray, "elastic_transform")
    assert sizes[4] < sizes[0]


@pytest.mark.parametrize("colours", [1, 3])
def test_real_images_of_cifar(data, colours):
    if colours == 1:
        pixels = load_parquet_images(data("cifar10/test-00000-of-00001.parquet"), n=40).pixels
    else:
        with np.load(data("robust/cifar10_test200_rgb.npz")) as kept:
            pixels = next(kept[key] for key in kept.files if kept[key].ndim == 4)[:40].transpose(0, 3, 1, 2)
    images = torch.from_numpy(np.ascontiguousarray(pixels)).float() / 255
    assert images.shape[1:] == (colours, 32, 32)
    for kind in ALL:
        sizes = np.sqrt(growth(images, kind))
        assert 0 <= sizes[0] < 0.2
        assert 0.03 < sizes[4] < 0.3


class Bright(nn.Module):
    """Says 1 where the mean pixel exceeds 0.4."""

    def forward(self, x):
        above = x.mean(dim=(1, 2, 3)) - 0.4
        return torch.stack([-above, above], dim=1)


def test_accuracy_is_that_on_the_corrupted_images(gray):
    labels = (gray.mean(dim=(1, 2, 3)) > 0.4).long()
    model = nn.Sequential(nn.Dropout(0.99), Bright()).train()
    seen = []
    kinds = ("fog", "brightness", "spatter")
    curve = corruption_accuracy(
        model,
        gray,
        labels,
        kinds=kinds,
        severities=(2, 5),
        seed=3,
        batch_size=10,
        progress=lambda *now: seen.append(now),
    )
    assert model.training
    assert (curve.kinds, curve.severities, curve.n) == (kinds, (2, 5), 64)
    assert seen[0] == (10, 384)
    assert seen[-1] == (384, 384)
    for row, kind in enumerate(kinds):
        for column, severity in enumerate((2, 5)):
            right = Bright()(corrupted(gray, kind, severity, seed=3)).argmax(1) == labels
            assert curve.accuracy[row, column] == pytest.approx(float(right.float().mean()))
    assert curve.accuracy[1, 0] < 1  # brighter images count as bright: only those that were dark can be lost
    assert curve.accuracy[1, 1] == pytest.approx(
        float((gray + 0.3).clamp(max=1).mean((1, 2, 3)).gt(0.4).eq(labels).float().mean()), abs=0.04
    )
    assert curve.of_kinds()["fog"] == pytest.approx(curve.accuracy[0].mean())
    whole = corruption_accuracy(model, gray.double().numpy(), labels.numpy(), kinds=kinds, severities=[2, 5], seed=3)
    assert np.array_equal(whole.accuracy, curve.accuracy)


def test_mean_corruption_error_is_of_the_usual_kinds_alone():
    kinds = ("fog", "saturate", "snow", "spatter")
    ours = CorruptionCurve(kinds, (1, 5), np.array([[0.9, 0.7], [0.0, 0.0], [0.8, 0.4], [0.1, 0.1]]), 100)
    theirs = CorruptionCurve(kinds, (1, 5), np.array([[0.8, 0.4], [1.0, 1.0], [0.6, 0.6], [1.0, 1.0]]), 100)
    assert ours.mean_corruption_error() == pytest.approx((0.2 + 0.4) / 2)
    assert ours.mean_corruption_error(theirs) == pytest.approx((0.4 / 0.8 + 0.8 / 0.8) / 2)
    assert ours.mean_corruption_error(baseline=ours) == pytest.approx(1)
    usual = CorruptionCurve(("fog", "snow"), (1, 5), ours.accuracy[[0, 2]], 100)
    assert usual.mean_corruption_error(theirs) == ours.mean_corruption_error(theirs)
    with pytest.raises(InputError, match="none of the 15 usual kinds"):
        CorruptionCurve(("saturate",), (1,), np.zeros((1, 1)), 100).mean_corruption_error()
    for other, says in (
        (CorruptionCurve(("fog",), (1, 5), np.zeros((1, 2)), 100), "without snow"),
        (CorruptionCurve(kinds, (1, 4), theirs.accuracy, 100), r"severities \[1, 4\]"),
        (CorruptionCurve(kinds, (1, 5), theirs.accuracy, 99), "99 images"),
        (CorruptionCurve(kinds, (1, 5), np.ones((4, 2)), 100), "no error under fog"),
    ):
        with pytest.raises(InputError, match=says):
            ours.mean_corruption_error(other)


@pytest.mark.parametrize("name", ["adv", "mix"])
def test_real_networks_lose_to_corruptions(data, name):
    net, images, labels = published_network(data, name)
    clean = {"adv": 0.70, "mix": 0.79}[name]
    curve = corruption_accuracy(net, images, labels, severities=(1, 5))
    first, last = curve.accuracy.T
    assert (last < clean + 0.01).all()
    assert first.mean() > last.mean() + 0.05
    # what shrinks the contrast costs a network without normalisation most, what keeps structure costs least
    assert set(np.array(curve.kinds)[last.argsort()[:2]]) == {"fog", "contrast"}
    assert last[curve.kinds.index("pixelate")] > clean - 0.1
    assert 0.2 < curve.mean_corruption_error() < 0.5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"images": torch.rand(4, 2, 32, 32)}, "1 or 3 channels"),
        ({"images": torch.rand(4, 1, 12, 32)}, "16 pixels a side"),
        ({"images": torch.rand(4, 32, 32)}, r"\(4, 32, 32\)"),
        ({"images": 255 * torch.rand(4, 1, 32, 32)}, "scale pixels to"),
        ({"images": torch.full((4, 1, 32, 32), torch.nan)}, "nan"),
        ({"labels": torch.zeros(3, dtype=torch.long)}, r"labels \(3,\)"),
        ({"kinds": ("rain",)}, "kind='rain' is not one of gaussian_noise"),
        ({"kinds": ()}, "at least one"),
        ({"kinds": ("fog", "fog")}, "each once"),
        ({"severities": (0,)}, "severity 0; give whole numbers, 1 to 5"),
        ({"severities": (2.0,)}, "severity 2.0"),
        ({"severities": ()}, "at least one"),
    ],
)
@pytest.mark.usefixtures("shapes_unchecked")
def test_what_it_refuses(change, says):
    arguments = {"images": torch.rand(4, 1, 32, 32), "labels": torch.zeros(4, dtype=torch.long)} | change
    with pytest.raises(InputError, match=says) as refused:
        corruption_accuracy(Bright(), **arguments)
    assert "\n" not in str(refused.value)
    if "images" in change:
        with pytest.raises(InputError, match=says):
            corrupted(arguments["images"], "fog", 1)
