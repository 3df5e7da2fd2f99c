"""The regulariser in a training: it teaches a network, it is the printed equations, it goes on where it stopped."""

import copy

import numpy as np
import pytest
import torch
from small_regularizer import regularizer
from torch import nn

from neuroprior import SimilarityRegularizer
from neuroprior.classifier import ResNet
from neuroprior.types import InputError, SimilarityTarget, Stimuli
from reference import regularizer as slow


def test_it_teaches_a_network_the_target(network, stimuli):
    """The paper's premise: descending L_similarity alone makes S_cnn the target, on the stimuli it is taught."""
    torch.manual_seed(1)
    teacher = ResNet(width=4).eval()
    teaching = SimilarityRegularizer(teacher, _any_target(stimuli), stimuli, taps=["stage1"], stimuli_per_step=8)
    images = torch.from_numpy(stimuli.pixels.copy())[:, None].float() / 255
    wanted = teaching.similarity(images).clamp(-1, 1).numpy()
    target = SimilarityTarget(wanted, stimuli.ids, stimuli.digest, "network")
    reg = regularizer(network, target, stimuli, taps=["stage1"], mean="batch", stimuli_per_step=20)
    pairs = np.triu_indices(len(stimuli), 1)

    def agreement() -> float:
        return float(np.corrcoef(reg.similarity(images).numpy()[pairs], wanted[pairs])[0, 1])

    before = agreement()
    optimizer = torch.optim.Adam([*network.parameters(), *reg.parameters()], 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        reg().backward()
        optimizer.step()
    assert agreement() > max(0.9, before + 0.05)


def _any_target(stimuli: Stimuli) -> SimilarityTarget:
    return SimilarityTarget(np.eye(len(stimuli), dtype=np.float32), stimuli.ids, stimuli.digest, "user")


@pytest.mark.parametrize("mean", ["batch", "lineage", "dataset"])
@pytest.mark.parametrize("pairs", ["all", "disjoint"])
def test_a_call_is_the_printed_equations(network, target, stimuli, mean, pairs):
    network.eval()  # so that features do not depend on the batch
    reg = regularizer(network, target, stimuli, mean=mean, pairs=pairs, alpha=3.0, seed=5, scale="lineage")
    drawn = torch.randperm(len(stimuli), generator=torch.Generator().manual_seed(5))[:8].numpy()
    value = float(reg().detach())
    every = torch.from_numpy(stimuli.pixels.copy())[:, None].float() / 255
    with torch.no_grad():
        features = [f.numpy() for f in reg.taps.features(network, every[drawn])]
        whole = [f.numpy() for f in reg.taps.features(network, every)]
    means = {
        "batch": [f.mean(0) for f in features],
        "lineage": [0.1 * f.mean((0, 2, 3))[:, None, None] for f in features],  # 0.9 * 0 + 0.1 * batch
        "dataset": [f.mean(0) for f in whole],
    }[mean]
    s = np.mean([slow.layer_similarity(f, m) for f, m in zip(features, means, strict=True)], axis=0)  # gamma: 1/5
    listed = (
        [(i, j) for i in range(8) for j in range(i + 1, 8)] if pairs == "all" else [(i, i + 1) for i in (0, 2, 4, 6)]
    )
    assert value == pytest.approx(3.0 * slow.loss(s, target.matrix[np.ix_(drawn, drawn)], listed, True), rel=2e-3)


def test_stimuli_go_by_name_not_by_position(network, target, stimuli):
    reversed_ = stimuli.select(stimuli.ids[::-1])
    a = float(regularizer(copy.deepcopy(network), target, stimuli)().detach())
    b = float(regularizer(copy.deepcopy(network), target, reversed_)().detach())
    assert a == b


def test_a_part_of_the_stimuli_has_its_target(network, target, stimuli):
    some = stimuli.select(stimuli.ids[:20])
    part = SimilarityTarget(target.matrix[:20, :20], some.ids, some.digest, "user")
    assert float(regularizer(network, part, stimuli)().detach()) > 0  # the rest of the stimuli is not used


def test_theta_is_the_only_parameter_and_the_model_gains_nothing(network, target, stimuli):
    before = {k: v.clone() for k, v in network.state_dict().items()}
    reg = regularizer(network, target, stimuli)
    assert [name for name, _ in reg.named_parameters()] == ["theta"]
    assert list(network.state_dict()) == list(before)
    assert torch.equal(reg.gamma, torch.full((5,), 0.2))
    reg().backward()
    assert reg.theta.grad is not None
    assert list(network.state_dict()) == list(before)


def test_state_dict_continues_the_same_run(network, target, stimuli):
    def losses(reg, n):
        return [float(reg().detach()) for _ in range(n)]

    network.eval()
    straight = losses(regularizer(network, target, stimuli, seed=3), 6)
    first = regularizer(network, target, stimuli, seed=3)
    head = losses(first, 3)
    state = copy.deepcopy(first.state_dict())
    second = regularizer(network, target, stimuli, seed=99)
    second.load_state_dict(state)
    assert head + losses(second, 3) == straight
    assert losses(regularizer(network, target, stimuli, seed=4), 3) != head


def test_state_dict_survives_a_weights_only_file(network, target, stimuli, tmp_path):
    reg = regularizer(network, target, stimuli)
    reg()
    torch.save(reg.state_dict(), tmp_path / "reg.pt")
    regularizer(network, target, stimuli).load_state_dict(torch.load(tmp_path / "reg.pt", weights_only=True))


def test_alpha_scales_and_zero_computes_nothing(network, target, stimuli):
    network.eval()
    one, five = (float(regularizer(network, target, stimuli, alpha=a)().detach()) for a in (1.0, 5.0))
    assert five == pytest.approx(5 * one)
    silent = SimilarityRegularizer(network, target, stimuli, taps=["stem"], alpha=0.0, stimuli_per_step=2)
    network.stem.register_forward_hook(lambda *_: pytest.fail("the network was run"))
    assert float(silent()) == 0


def test_the_scale_does_not_depend_on_how_many_stimuli(network, target, stimuli):
    network.eval()
    values = {
        n: np.mean([float(reg().detach()) for _ in range(30)])
        for n in (8, 32)
        for reg in [regularizer(network, target, stimuli, stimuli_per_step=n, mean="dataset", taps=["stem"])]
    }
    assert values[32] == pytest.approx(values[8], rel=0.25)


def test_autocast_does_not_touch_the_similarity(network, target, stimuli):
    network.eval()
    seen = []
    reg = regularizer(network, target, stimuli, taps=["stem", "stage1"])
    exact = float(reg().detach())
    again = regularizer(network, target, stimuli, taps=["stem", "stage1"])
    with torch.autocast("cpu", torch.bfloat16):
        loss = again()
        seen.append(loss.dtype)
    assert seen == [torch.float32]
    assert float(loss.detach()) == pytest.approx(exact, rel=0.05)  # only the features were rounded


def test_batch_norm_sees_the_stimuli_or_not(network, target, stimuli):
    def statistics(net):
        return torch.cat([m.running_mean for m in net.modules() if isinstance(m, nn.BatchNorm2d)])

    losses = {}
    for batch_norm, seen in (("shared", True), ("task", False)):
        net = copy.deepcopy(network).train()
        before = statistics(net).clone()
        losses[batch_norm] = float(regularizer(net, target, stimuli, batch_norm=batch_norm)().detach())
        assert torch.equal(statistics(net), before) != seen
        net(torch.rand(4, 1, 32, 32))
        assert not torch.equal(statistics(net), before)  # the task's own images always count
    assert losses["shared"] == losses["task"]


def test_gray_stimuli_fit_a_colour_network_by_themselves(target, stimuli):
    rgb = ResNet(width=2, channels=3).eval()
    by_itself = regularizer(rgb, target, stimuli)()
    by_hand = regularizer(rgb, target, stimuli, preprocess=lambda x: x.expand(-1, 3, -1, -1))()
    assert torch.equal(by_itself, by_hand)
    with pytest.raises(InputError, match=r"cannot take stimuli of \(1, 36, 64\), nor in three channels.*preprocess="):
        regularizer(ResNet(width=2, channels=2), target, stimuli)


def test_similarity_of_any_images_is_repeatable_and_leaves_the_network_as_it_was(network, target, stimuli):
    reg = regularizer(network, target, stimuli)
    network.train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    images = torch.rand(5, 1, 20, 20)
    first, again = reg.similarity(images), reg.similarity(images)
    assert torch.equal(first, again)
    assert first.shape == (5, 5)
    assert torch.allclose(first.diagonal(), torch.ones(5), atol=1e-5)
    assert network.training
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_double_precision_models_and_frozen_ones(target, stimuli):
    model = nn.Sequential(nn.Conv2d(1, 4, 5), nn.BatchNorm2d(4), nn.ReLU()).double()
    model[1].eval()  # frozen on purpose
    reg = regularizer(model, target, stimuli, taps=["2"], mean="dataset")
    reg().backward()
    assert model[0].weight.grad.dtype == torch.float64
    assert not model[1].training


def test_tokens_have_their_channels_last(target, stimuli):
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch, self.mix = nn.Conv2d(1, 6, 4, 4), nn.Linear(6, 6)

        def forward(self, x):
            return self.mix(self.patch(x).flatten(2).transpose(1, 2))

    reg = regularizer(Tokens(), target, stimuli, taps="mix")
    reg()
    assert [tuple(mean.shape) for mean in reg._means] == [(1, 6)]  # not one a token


def test_any_module_will_do(target, stimuli):
    model = nn.Sequential(nn.Conv2d(1, 4, 5), nn.ReLU(), nn.Conv2d(4, 4, 5), nn.ReLU(), nn.Flatten(), nn.Linear(9, 2))
    reg = regularizer(model, target, stimuli, taps=2)
    reg().backward()
    assert model[0].weight.grad is not None
    assert model[5].weight.grad is None  # the head lies beyond the deepest tap
