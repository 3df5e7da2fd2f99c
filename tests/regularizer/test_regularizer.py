"""The regulariser in anyone's training loop: what it draws, what it moves, what it keeps, what it refuses."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from neuroprior import SimilarityRegularizer
from neuroprior.classifier import ResNet
from neuroprior.regularizer import Ramp
from neuroprior.similarity import shuffle_target
from neuroprior.types import InputError, SimilarityTarget, Stimuli
from reference import regularizer as slow


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ResNet(width=4)


def regularizer(network, target, stimuli, **options):
    options = {"stimuli_per_step": 8, "pairs": "all"} | options
    return SimilarityRegularizer(network, target, stimuli, **options)


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


def test_forgotten_theta_is_pointed_out_once(network, target, stimuli):
    reg = regularizer(network, target, stimuli, taps=["stem", "stage1"], stimuli_per_step=2)
    optimizer = torch.optim.SGD(network.parameters(), 1e-4)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(50):
            optimizer.zero_grad()
            reg().backward()
            optimizer.step()
    assert len([w for w in said if "reg.parameters()" in str(w.message)]) == 1


def test_moving_theta_is_not_complained_of(network, target, stimuli):
    reg = regularizer(network, target, stimuli, taps=["stem", "stage1"], stimuli_per_step=2)
    optimizer = torch.optim.SGD([*network.parameters(), *reg.parameters()], 1e-4)
    for _ in range(50):  # warnings are errors here
        optimizer.zero_grad()
        reg().backward()
        optimizer.step()
    assert float(reg.gamma.sum()) == pytest.approx(1)
    assert not torch.equal(reg.gamma, torch.full((2,), 0.5))


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


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"alpha": -1.0}, "alpha is -1.0; it must be 0 or more"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"alpha": float("inf")}, "alpha is inf"),
        ({"taps": "stage9"}, "'stage9': no such module"),
        ({"stimuli_per_step": 1}, "stimuli_per_step is 1; it must be from 2 to 40"),
        ({"stimuli_per_step": 41}, "from 2 to 40"),
        ({"taps": ["stage9"]}, "'stage9': no such module"),
        ({"every": 0}, "every is 0; it must be 1"),
        ({"features_per_tap": 0}, "features_per_tap is 0; it must be 1 or more"),
        ({"threshold": 1.5}, r"threshold is 1.5; it must be in \[0, 1\)"),
        ({"within": (0.5, 0.5)}, "within is .*lowest, highest"),
        ({"alpha": lambda step: -1.0}, "alpha is -1.0"),
    ],
)
def test_what_it_refuses(network, target, stimuli, options, says):
    with pytest.raises(InputError, match=says):
        regularizer(network, target, stimuli, **options)()


@pytest.mark.usefixtures("shapes_unchecked")
def test_unknown_options_are_named(network, target, stimuli):
    with pytest.raises(InputError, match="scale='paper' is not one of printed, lineage"):
        regularizer(network, target, stimuli, scale="paper")


def test_other_stimuli_than_the_targets_are_refused(network, target, stimuli):
    pixels = stimuli.pixels.copy()
    pixels[0, 0, 0] ^= 1
    with pytest.raises(InputError, match="digest"):
        regularizer(network, target, Stimuli(stimuli.ids, pixels))
    with pytest.raises(InputError, match="20 of 40 images are not among these 20"):
        regularizer(network, target, stimuli.select(stimuli.ids[:20]))


def test_double_precision_models_and_frozen_ones(target, stimuli):
    model = nn.Sequential(nn.Conv2d(1, 4, 5), nn.BatchNorm2d(4), nn.ReLU()).double()
    model[1].eval()  # frozen on purpose
    reg = regularizer(model, target, stimuli, taps=["2"], mean="dataset")
    reg().backward()
    assert model[0].weight.grad.dtype == torch.float64
    assert not model[1].training


def test_a_layer_used_twice_is_not_chosen_silently(target, stimuli):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x):
            return self.conv(self.conv(x)).flatten(1)

    with pytest.raises(InputError, match="used several times a pass; name them"):
        regularizer(Twice(), target, stimuli, taps=1)


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


def test_a_network_that_finds_all_images_alike_is_told_of(target, stimuli):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    reg = regularizer(model, target, stimuli, taps=["1"])
    nn.init.constant_(model[0].weight, 1e-7)  # it collapses in training, nearly
    nn.init.ones_(model[0].bias)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(40):
            reg()
    assert len([w for w in said if "for nearly all pairs" in str(w.message)]) == 1


def test_zero_variance_is_refused_at_once_and_stops_a_training(target, stimuli):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.ReLU())
    reg = regularizer(model, target, stimuli, taps=["1", "3"])
    nn.init.zeros_(model[2].weight)
    nn.init.ones_(model[2].bias)
    for _ in range(9):
        reg()  # looked at now and then
    with pytest.raises(FloatingPointError, match=r"tap '3' are the same for all stimuli \(zero variance\) at step 10"):
        reg()
    with pytest.raises(InputError, match=r"tap '3': its features are the same for all stimuli \(zero variance\)"):
        regularizer(model, target, stimuli, taps=["1", "3"])
    regularizer(model, target, stimuli, taps=["1", "3"], alpha=0)  # one that only looks may look at anything


def test_features_that_fail_stop_and_name_step_and_tap(target, stimuli):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.ReLU())
    reg = regularizer(model, target, stimuli, taps=["1", "3"], mean="batch")
    reg()
    nn.init.constant_(model[2].weight, float("nan"))
    with pytest.raises(FloatingPointError, match="tap '3' are no longer finite at step 2"):
        reg()


def test_every_nth_call_weighs_n_times(network, target, stimuli):
    network.eval()
    each = [float(reg().detach()) for reg in [regularizer(network, target, stimuli)] for _ in range(3)]
    third = [float(reg().detach()) for reg in [regularizer(network, target, stimuli, every=3)] for _ in range(7)]
    assert third == pytest.approx([3 * each[0], 0, 0, 3 * each[1], 0, 0, 3 * each[2]], rel=1e-6)


def test_alpha_follows_its_schedule(network, target, stimuli):
    network.eval()
    flat = regularizer(network, target, stimuli, alpha=1.0)
    ramp = regularizer(network, target, stimuli, alpha=Ramp(0, 6.0, steps=3))
    base = [float(flat().detach()) for _ in range(5)]
    values = [float(ramp().detach()) for _ in range(6)]
    assert values[0] == 0  # and nothing was drawn for it
    assert values[1:] == pytest.approx([a * b for a, b in zip([2, 4, 6, 6, 6], base, strict=True)], rel=1e-6)
    assert float(ramp.unweighted) == pytest.approx(base[-1], rel=1e-6)
    silent = regularizer(network, target, stimuli, alpha=0)
    silent()
    assert silent.unweighted is None  # nothing was compared, so nothing was found alike
    assert [Ramp(1, 3, 2, shape)(1) for shape in ("linear", "cosine", "step")] == [2, pytest.approx(2), 1]


def test_a_threshold_makes_the_target_ternary_and_a_range_leaves_pairs_out(network, target, stimuli):
    network.eval()
    s = target.matrix
    ternary = np.where(s > 0.2, 1, np.where(s < -0.2, -1, 0)).astype(np.float32)
    by_hand = SimilarityTarget(ternary, target.image_ids, target.stimuli_digest, "user")
    assert float(regularizer(network, target, stimuli, threshold=0.2)().detach()) == pytest.approx(
        float(regularizer(network, by_hand, stimuli)().detach())
    )
    some = regularizer(network, target, stimuli, within=(0.1, 1.0), mean="batch", taps=["stem"])
    value = float(some().detach())
    drawn = torch.randperm(len(stimuli), generator=torch.Generator().manual_seed(0))[:8].numpy()
    images = torch.from_numpy(stimuli.pixels.copy())[drawn][:, None].float() / 255
    network_s = regularizer(network, target, stimuli, mean="batch", taps=["stem"]).similarity(images).numpy()
    block = s[np.ix_(drawn, drawn)]
    listed = [(i, j) for i in range(8) for j in range(i + 1, 8) if block[i, j] >= 0.1]
    assert 0 < len(listed) < 28
    assert value == pytest.approx(20 * slow.loss(network_s, block, listed), rel=1e-3)
    nothing = regularizer(network, target, stimuli, within=(0.999, 1.0))
    assert float(nothing().detach()) == 0


def test_two_areas_teach_two_groups_of_taps(network, target, stimuli):
    """One draw and one forward pass for both; the loss is the sum of what each alone would be."""
    network.eval()
    other = shuffle_target(target, 3)
    alone = [
        regularizer(network, target, stimuli, taps=["stem", "stage1"], alpha=2.0),
        regularizer(network, other, stimuli, taps=["stage1", "stage2"], alpha=3.0),
    ]
    both = regularizer(
        network,
        {"V1": target, "LM": other},
        stimuli,
        taps={"V1": ["stem", "stage1"], "LM": ["stage1", "stage2"]},
        alpha={"V1": 2.0, "LM": 3.0},
    )
    assert float(both().detach()) == pytest.approx(sum(float(reg().detach()) for reg in alone), rel=1e-5)
    assert both.tap_names == ("V1/stem", "V1/stage1", "LM/stage1", "LM/stage2")
    assert torch.equal(both.gamma, torch.full((4,), 0.5))
    assert both.taps.names == ("stem", "stage1", "stage2")
    assert set(both.correlations()) == {*both.tap_names, "V1/mixed", "LM/mixed"}
    with pytest.raises(InputError, match="taps are of V1, but the targets of V1, LM"):
        regularizer(network, {"V1": target, "LM": other}, stimuli, taps={"V1": 2})
    with pytest.raises(InputError, match="say which taps each target teaches"):
        regularizer(network, {"V1": target, "LM": other}, stimuli)


def test_targets_of_different_images_share_those_that_both_have(network, target, stimuli):
    network.eval()
    head, tail = stimuli.select(stimuli.ids[:30]), stimuli.select(stimuli.ids[:9:-1])
    reg = regularizer(
        network, {"a": target.select(head), "b": target.select(tail)}, stimuli, taps={"a": ["stem"], "b": ["stem"]}
    )
    assert len(reg.sampler) == 20
    reg()
    (_, first), (_, second) = reg._last
    assert torch.equal(first, second)  # the same images, wherever they stand in each target
    with pytest.raises(InputError, match="no image is in all of the targets"):
        regularizer(
            network,
            {"a": target.select(stimuli.select(stimuli.ids[:9])), "b": target.select(tail)},
            stimuli,
            taps={"a": ["stem"], "b": ["stem"]},
        )


def test_the_correlations_of_a_step_are_those_of_its_matrices(network, target, stimuli):
    network.eval()
    reg = regularizer(network, target, stimuli, mean="batch", taps=["stem", "stage4"])
    assert reg.correlations() == {}
    reg()
    drawn = torch.randperm(len(stimuli), generator=torch.Generator().manual_seed(0))[:8].numpy()
    images = torch.from_numpy(stimuli.pixels.copy())[drawn][:, None].float() / 255
    pairs = np.triu_indices(8, k=1)
    wanted = target.matrix[np.ix_(drawn, drawn)][pairs]
    stem, last = (layer.numpy()[pairs] for layer in reg.layer_similarities(images))
    said = reg.correlations()
    assert said["stem"] == pytest.approx(np.corrcoef(stem, wanted)[0, 1], abs=1e-4)
    assert said["mixed"] == pytest.approx(np.corrcoef((stem + last) / 2, wanted)[0, 1], abs=1e-4)


def test_any_module_will_do(target, stimuli):
    model = nn.Sequential(nn.Conv2d(1, 4, 5), nn.ReLU(), nn.Conv2d(4, 4, 5), nn.ReLU(), nn.Flatten(), nn.Linear(9, 2))
    reg = regularizer(model, target, stimuli, taps=2)
    reg().backward()
    assert model[0].weight.grad is not None
    assert model[5].weight.grad is None  # the head lies beyond the deepest tap


@pytest.mark.parametrize("mean", ["lineage", "batch", "dataset"])
def test_some_features_of_a_tap_are_drawn_anew_and_tell_of_all(network, target, stimuli, mean):
    options = {"stimuli_per_step": 6, "pairs": "all", "mean": mean, "seed": 3}
    whole = regularizer(copy.deepcopy(network), target, stimuli, **options)
    every = regularizer(copy.deepcopy(network), target, stimuli, **options, features_per_tap=10**9)
    some = regularizer(network, target, stimuli, **options, features_per_tap=200)
    assert torch.equal(whole(), every())  # nothing is drawn where nothing is left out
    before = some.draw()
    sizes = {name: len(value) for name, value in before.items() if name.startswith("places")}
    assert sizes
    again = some.draw()
    assert all(not torch.equal(before[name], again[name]) for name in sizes)
    losses = torch.stack([some().detach() for _ in range(40)])
    assert losses.std() > 0
    same = torch.stack([whole().detach() for _ in range(40)])
    # each S is off by about 1 / sqrt(200), and the loss is of squares: a little more on average
    assert 0.8 < losses.mean() / same.mean() < 1.6
    some().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize("mean", ["lineage", "batch", "dataset"])
def test_two_calls_may_share_one_backward(network, target, stimuli, mean):
    reg = regularizer(network, target, stimuli, mean=mean, stimuli_per_step=20)
    (reg() + reg() + reg()).backward()
    assert all(torch.isfinite(p.grad).all() for p in reg.parameters())
