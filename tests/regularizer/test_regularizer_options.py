"""What may be asked of the regulariser: schedules, pairs left out, several areas, parts of features."""

import copy

import numpy as np
import pytest
import torch
from small_regularizer import regularizer

from neuroprior.regularizer import Ramp
from neuroprior.similarity import shuffle_target
from neuroprior.types import InputError, SimilarityTarget
from reference import regularizer as slow


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
