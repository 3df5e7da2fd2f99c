"""The cosine of centred features: by blocks what it is by its definition, forward and backward."""

import pytest
import torch

from neuroprior.regularizer import centred
from neuroprior.regularizer.centred import at_places, channel_mean, layer_similarity, places_of

SHAPES = {
    "maps, mean by channel": ((8, 5, 6, 7), (5, 1, 1)),
    "maps, mean by feature": ((8, 5, 6, 7), (5, 6, 7)),
    "maps, one mean": ((8, 5, 6, 7), (1, 1, 1)),
    "maps, mean by channel and column": ((8, 5, 6, 7), (5, 1, 7)),
    "one channel": ((8, 1, 6, 7), (1, 6, 7)),
    "one pixel": ((8, 5, 1, 1), (5, 1, 1)),
    "tokens, mean by channel": ((8, 11, 13), (1, 13)),
    "tokens, mean by feature": ((8, 11, 13), (11, 13)),
    "vectors": ((8, 40), (40,)),
    "volumes": ((8, 3, 4, 5, 2), (3, 1, 1, 1)),
}


def by_definition(features: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Eq. 9 as it is printed."""
    centred_features = (features.double() - mean.double()).flatten(1)
    unit = torch.nn.functional.normalize(centred_features, dim=1, eps=1e-12)
    return unit @ unit.T


@pytest.fixture(params=[1, 100, 1 << 20], ids=lambda n: f"blocks of {n}")
def block(request, monkeypatch) -> None:
    monkeypatch.setattr(centred, "_BLOCK", request.param)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES.keys())
def test_values_and_gradients_are_those_of_the_definition(shapes, dtype, channels_last, block):
    torch.manual_seed(0)
    features, mean = torch.randn(shapes[0]).to(dtype), torch.randn(shapes[1])
    if channels_last and features.ndim == 4:
        features = features.to(memory_format=torch.channels_last)
    weight = torch.randn(8, 8)  # not symmetric, as a loss of pairs i < j is not
    found = []
    for form in (layer_similarity, by_definition):
        f, m = features.clone().requires_grad_(), mean.clone().requires_grad_()
        similarity = form(f, m)
        (similarity * weight).sum().backward()
        for order in (torch.channels_last, torch.contiguous_format) if features.ndim == 4 else ():
            assert f.grad.is_contiguous(memory_format=order) == features.is_contiguous(memory_format=order)
        found.append((similarity.detach().double(), f.grad.double(), m.grad.double()))
    assert found[0][0].dtype == torch.float64
    for ours, expected, close in zip(*found, (1e-6, 1e-2 if dtype == torch.bfloat16 else 1e-6, 1e-5), strict=True):
        assert (ours - expected).abs().max() <= close * expected.abs().max()


def test_an_image_at_the_mean_is_like_no_other_and_is_not_moved_by_its_length():
    features = torch.randn(4, 3, 2, 2)
    features[1] = 0.25
    features.requires_grad_()
    similarity = layer_similarity(features, torch.full((3, 1, 1), 0.25))
    assert (similarity[1] == 0).all()
    assert torch.isfinite(torch.autograd.grad(similarity.square().sum(), features)[0]).all()


def test_what_is_not_finite_is_seen():
    features = torch.randn(4, 3, 2, 2)
    features[2, 1] = torch.nan
    assert layer_similarity(features, torch.zeros(3, 1, 1))[2].isnan().all()


def test_the_mean_of_all_images_makes_the_rows_of_the_gradient_sum_to_zero():
    # S does not change when all features move together: the gradient by batch mean must know
    features = torch.randn(6, 3, 4, 4, requires_grad=True)
    loss = (layer_similarity(features, features.mean(0)) * torch.randn(6, 6)).sum()
    (gradient,) = torch.autograd.grad(loss, features)
    assert gradient.sum(0).abs().max() < 1e-5 * gradient.abs().max()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shape", [(8, 5, 6, 7), (8, 11, 13), (8, 40), (8, 3, 4, 5, 2)])
def test_the_mean_by_channel(shape, channels_last, block):
    features = torch.randn(shape).bfloat16()
    if channels_last and len(shape) == 4:
        features = features.to(memory_format=torch.channels_last)
    channel = 2 if len(shape) == 3 else 1
    others = [axis for axis in range(len(shape)) if axis != channel]
    expected = features.double().mean(others, keepdim=True)[0]
    found = channel_mean(features)
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    assert torch.allclose(found.double(), expected, atol=1e-6)


@pytest.mark.parametrize("channels_last", [False, True])
def test_some_places_tell_of_all_as_johnson_and_lindenstrauss_say(channels_last):
    torch.manual_seed(0)
    features = torch.randn(20, 4, 60, 50)
    features[1:] += 0.7 * features[:1]  # alike, not only noise
    if channels_last:
        features = features.to(memory_format=torch.channels_last)
    whole = layer_similarity(features, torch.zeros(4, 1, 1))
    off = {}
    for places in (25, 400):
        chosen = [torch.randperm(3000)[:places] for _ in range(20)]
        some = [layer_similarity(at_places(features, rows), torch.zeros(4, 1, 1)) for rows in chosen]
        assert at_places(features, chosen[0]).shape == (20, 4, places, 1)
        off[places] = (torch.stack(some) - whole).square().mean().sqrt() * (4 * places) ** 0.5
    # 1 / sqrt(features), times 1 - S^2 at most
    assert 0.5 < off[25] < 1.1
    assert off[400] == pytest.approx(float(off[25]), rel=0.15)


@pytest.mark.parametrize("shape", [(3, 5, 4, 6), (3, 24, 5), (3, 40)])
def test_places_and_features_at_a_place(shape):
    features = torch.randn(shape)
    places, channels = places_of(features)
    assert places * channels == features[0].numel()
    assert (places, channels) == ((1, 40) if len(shape) == 2 else (24, 5))
    if len(shape) > 2:
        everything = at_places(features, torch.arange(places))
        assert torch.allclose(
            layer_similarity(everything, channel_mean(everything)), layer_similarity(features, channel_mean(features))
        )
