"""Batch norm, residual sum and ReLU in one go are what they are one after the other."""

from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from neuroprior import SimilarityRegularizer
from neuroprior.classifier import ResNet, normalised
from neuroprior.classifier.normalised import normalised_relu
from neuroprior.modes import running_statistics_kept

SHAPES = [(9, 16, 36, 64), (3, 5, 7, 3), (64, 64, 8, 8), (2, 130, 3, 3)]


@contextmanager
def threads(n: int):
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    yield
    torch.set_num_threads(before)


def some_norm(channels: int, dtype: torch.dtype = torch.float32, **options) -> nn.BatchNorm2d:
    torch.manual_seed(1)
    norm = nn.BatchNorm2d(channels, **options)
    with torch.no_grad():
        for value in (norm.weight, norm.running_var):
            value.uniform_(0.5, 2)
        for value in (norm.bias, norm.running_mean):
            value.normal_()
    return norm.to(dtype)


def some_maps(shape, dtype=torch.float32, seed=0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    # a mean that is far from 0 costs digits of a variance that is computed carelessly
    return (torch.randn(shape, generator=random) + 20).to(dtype).to(memory_format=torch.channels_last)


def in_doubles(maps, norm, shortcut):
    """The definition, in float64."""
    if norm.training:
        mean, variance = maps.mean((0, 2, 3)), maps.var((0, 2, 3), correction=0)
    else:
        mean, variance = norm.running_mean, norm.running_var
    by_channel = (slice(None), None, None)
    out = (maps - mean[by_channel]) / (variance + norm.eps).sqrt()[by_channel]
    out = out * norm.weight[by_channel] + norm.bias[by_channel]
    return F.relu(out if shortcut is None else out + shortcut)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_the_definition(shape, training, residual, n_threads):
    norms = some_norm(shape[1]).train(training), some_norm(shape[1], torch.float64).train(training)
    found = []
    for norm, form, dtype in ((norms[0], normalised_relu, torch.float32), (norms[1], in_doubles, torch.float64)):
        maps = some_maps(shape).to(dtype).requires_grad_()
        shortcut = (some_maps(shape, seed=2).to(dtype) - 20).requires_grad_() if residual else None
        if dtype == torch.float32:
            assert normalised._is_fast(maps, norm)
        with threads(n_threads):
            out = form(maps, norm, shortcut)
            (out * torch.linspace(-1, 2, out.numel(), dtype=dtype).view(shape)).sum().backward()
        learnt = [maps.grad, norm.weight.grad, norm.bias.grad, *([shortcut.grad] if residual else [])]
        found.append([value.detach().double() for value in (out, *learnt)])
    for ours, expected in zip(*found, strict=True):
        # a ReLU next to 0 may fall on the other side
        apart = (ours - expected).abs() > 1e-4 * expected.abs().max()
        assert apart.double().mean() <= 1e-5


@pytest.mark.parametrize("residual", [False, True])
def test_bfloat16_is_float32_rounded(residual):
    shape = (4, 24, 9, 5)
    maps = some_maps(shape, torch.bfloat16)
    shortcut = some_maps(shape, torch.bfloat16, seed=2) - 20 if residual else None
    upstream = torch.randn(shape).bfloat16()
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        x = maps.to(dtype, copy=True).requires_grad_()
        norm = some_norm(24)
        out = normalised_relu(x, norm, None if shortcut is None else shortcut.to(dtype))
        out.backward(upstream.to(dtype))
        found.append((out.detach(), x.grad, norm.weight.grad, norm.bias.grad))
    (half, *from_half), (full, *from_full) = found
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, full.bfloat16())
    assert torch.equal(from_half[0], from_full[0].bfloat16())
    for ours, expected in zip(from_half[1:], from_full[1:], strict=True):
        assert torch.allclose(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("how", ["learns", "momentum", "kept", "evaluating"])
def test_the_norm_remembers_what_it_would_by_itself(how):
    shape = (9, 16, 12, 10)
    ours, plain = (some_norm(16, momentum=0.3 if how == "momentum" else 0.1).train(how != "evaluating") for _ in "ab")
    for norm, form in ((ours, normalised_relu), (plain, normalised.normalised_relu_plain)):
        holder = nn.Sequential(norm)
        for seed in range(3):
            if how == "kept":
                with running_statistics_kept(holder):
                    form(some_maps(shape, seed=seed), norm)
            else:
                form(some_maps(shape, seed=seed), norm)
    for name, value in plain.state_dict().items():
        assert torch.allclose(ours.state_dict()[name], value, rtol=1e-4), name
    assert int(ours.num_batches_tracked) == (3 if how in ("learns", "momentum") else 0)


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7FFFFFFF])  # the second is what CUDA writes
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_not_finite_is_seen(dtype, bits):
    maps = some_maps((4, 6, 5, 5), dtype).clone()
    nan = torch.tensor([bits], dtype=torch.int32).view(torch.float32)
    maps[1, 2, 3, 3] = (
        nan[0] if dtype == torch.float32 else torch.tensor([bits >> 16], dtype=torch.int16).view(dtype)[0]
    )
    norm = some_norm(6).eval()
    norm.running_mean[3] = nan[0]
    assert normalised_relu(maps, norm)[:, 3].isnan().all()
    maps.requires_grad_()
    norm = some_norm(6)
    out = normalised_relu(maps, norm)
    assert out[:, 2].isnan().all()
    assert not out[:, 3].isnan().any()
    out.sum().backward()
    assert norm.weight.grad[2].isnan()


def test_who_looks_at_a_norm_or_a_relu_sees_it():
    names = ["stem.1", "stem.2", "stage1.0.norm1", "stage4.1.norm2"]
    for way in ("register_forward_hook", "register_forward_pre_hook"):
        network = ResNet(width=4).to(memory_format=torch.channels_last)
        seen = []
        for name in names:
            getattr(network.get_submodule(name), way)(lambda *_, name=name, seen=seen: seen.append(name))
        network(torch.rand(2, 1, 16, 16))
        assert sorted(seen) == sorted(names), way


@pytest.mark.parametrize(
    "other",
    [
        lambda norm: setattr(norm, "running_mean", torch.zeros(12)[::2]),
        lambda norm: setattr(norm, "running_var", torch.ones(6, dtype=torch.float64)),
        lambda norm: setattr(norm, "bias", None),
        lambda norm: setattr(norm, "weight", None),
        lambda norm: setattr(norm, "eps", 0.0),
        lambda norm: setattr(norm, "num_batches_tracked", None),
        lambda norm: setattr(norm, "weight", nn.Parameter(torch.ones(4))),
        lambda norm: setattr(norm, "forward", lambda maps: maps),
        lambda norm: norm.register_full_backward_hook(lambda *_: None),
        lambda norm: norm.register_full_backward_pre_hook(lambda *_: None),
    ],
)
def test_a_norm_that_the_loops_are_not_made_for_is_left_to_torch(other):
    norm = some_norm(6)
    other(norm)
    assert not normalised._is_fast(some_maps((4, 6, 5, 5)), norm)


def test_another_nonlinearity_in_the_stem_is_the_one_that_counts():
    network = ResNet(width=4).to(memory_format=torch.channels_last)
    network.stem[2] = nn.GELU()
    assert network.stem(torch.rand(2, 1, 16, 16)).min() < 0


def test_what_is_kept_for_the_gradient_may_come_back_in_another_format():
    found = []
    for pack in (lambda value: value, lambda value: value.contiguous()):
        maps, norm = some_maps((4, 6, 5, 5)).requires_grad_(), some_norm(6)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            out = normalised_relu(maps, norm)
        out.square().sum().backward()
        found.append(maps.grad)
    assert torch.equal(*found)


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.usefixtures("shapes_unchecked")
def test_a_network_can_still_be_traced():
    network = ResNet(width=4).to(memory_format=torch.channels_last).eval()
    images = torch.rand(2, 1, 16, 16)
    traced = torch.jit.trace(network, images)
    assert torch.allclose(traced(images), network(images), atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_a_network_is_the_same_either_way(training, monkeypatch):
    images = torch.rand(6, 1, 20, 24)
    found = []
    for fast in (True, False):
        torch.manual_seed(0)
        network = ResNet(width=8).to(memory_format=torch.channels_last).train(training)
        if not fast:
            monkeypatch.setattr(normalised, "_is_fast", lambda *_: False)
        logits = network(images)
        logits.square().sum().backward()
        found.append((logits.detach(), network.stem[0].weight.grad, network.stage4[0].shortcut[0].weight.grad))
    for ours, plain in zip(*found, strict=True):
        assert (ours - plain).abs().max() <= 1e-4 * plain.abs().max()


def test_one_value_a_channel_is_refused_as_torch_does():
    norm = some_norm(3)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        normalised_relu(torch.rand(1, 3, 1, 1).to(memory_format=torch.channels_last), norm)


@pytest.mark.parametrize("batch_norm", ["shared", "task"])
@pytest.mark.parametrize("fast", [True, False])
def test_a_checkpointed_network_trains_as_one_that_keeps_all(fast, batch_norm, stimuli, target, monkeypatch):
    if not fast:
        monkeypatch.setattr(normalised, "_is_fast", lambda *_: False)
    images, labels = torch.rand(6, 1, 20, 24), torch.arange(6)
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        network = ResNet(width=4, checkpointing=checkpointing).to(memory_format=torch.channels_last)
        reg = SimilarityRegularizer(
            network, target, stimuli, stimuli_per_step=4, pairs="all", batch_norm=batch_norm, seed=1
        )
        kept: list[int] = []  # bytes that the forward pass holds for the backward pass

        def keep(value, kept=kept):
            kept.append(value.numel() * value.element_size())
            return value

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            loss = F.cross_entropy(network(images), labels)
        second = reg()
        network.eval()  # what happens between forward and backward is no matter
        (loss + second).backward()
        gradients = {name: value.grad for name, value in network.named_parameters()}
        found.append((loss.detach(), gradients, dict(network.named_buffers()), sum(kept)))
    (loss, gradients, buffers, bytes_kept), (again, from_again, buffers_again, fewer) = found
    assert loss == again
    for name, value in gradients.items():
        assert torch.allclose(from_again[name], value, atol=1e-6 + 1e-5 * float(value.abs().max())), name
    for name, value in buffers.items():
        assert torch.equal(buffers_again[name], value), name
    assert fewer < bytes_kept / 2
