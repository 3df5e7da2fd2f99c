"""Sensorium files: what their code would compute from a state dict is what we read from it, and what we write to it."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_pretrained import checkpoint
from test_saved import SIZE, made_twin, rates
from torch.nn import functional as F

from neuroprior.twin import load_twin, predict_population, save_sensorium
from neuroprior.types import InputError, Stimuli


def sensorium(state, images, behavior, pupil, *, skip, stack, scan="mouse") -> torch.Tensor:
    """The Sensorium code's `FiringRateEncoder` (stacked core, full Gaussian readout, MLP shifter), from its names.

    `skip`: how many layers before it each one sees; `stack`: how many of the last ones the readout sees.
    """
    x = torch.cat([images, behavior[:, :, None, None].expand(-1, -1, *images.shape[2:])], dim=1)
    maps = []
    for k in range(sum(name.endswith("norm.running_var") for name in state)):
        p = f"core.features.layer{k}."
        x = torch.cat(maps[-min(skip, k) :], dim=1) if k else x
        if p + "conv.weight" in state:
            side = state[p + "conv.weight"].shape[-1]
            x = F.conv2d(x, state[p + "conv.weight"], padding=side // 2 if k else 0)
        else:
            x = F.conv2d(x, state[p + "ds_conv.in_depth_conv.weight"])
            spatial = state[p + "ds_conv.spatial_conv.weight"]
            x = F.conv2d(x, spatial, padding=spatial.shape[-1] // 2, groups=len(spatial))
            x = F.conv2d(x, state[p + "ds_conv.out_depth_conv.weight"])
        norm = (state[p + f"norm.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
        x = F.elu(F.batch_norm(x, *norm))
        maps.append(x)
    x = torch.cat(maps[-stack:], dim=1)
    r = f"readout.{scan}."
    if r + "_mu" in state:
        mu = state[r + "_mu"]
    else:
        hidden = F.elu(
            F.linear(state[r + "source_grid"], state[r + "mu_transform.0.weight"], state[r + "mu_transform.0.bias"])
        )
        mu = torch.tanh(F.linear(hidden, state[r + "mu_transform.2.weight"], state[r + "mu_transform.2.bias"]))[
            None, :, None
        ]
    grid = mu.clamp(-1, 1).expand(len(x), -1, -1, -1)
    s = f"shifter.{scan}.mlp."
    shift = pupil
    for number in (0, 2, 4):
        if s + f"{number}.weight" in state:
            shift = torch.tanh(F.linear(shift, state[s + f"{number}.weight"], state[s + f"{number}.bias"]))
    if s + "0.weight" in state:
        grid = grid + shift[:, None, None]
    seen = F.grid_sample(x, grid, align_corners=True).squeeze(-1)
    return F.elu((seen * state[r + "_features"].squeeze(2)).sum(1) + state[r + "bias"]) + 1


def trials(n_behavior: int, size=(36, 64)) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(5)
    return (
        torch.randn(4, 1, *size, generator=draw),
        torch.randn(4, n_behavior, generator=draw),
        torch.randn(4, 2, generator=draw),
    )


def deep_shifter(state, hidden=5) -> None:
    """Give a state dict the shifter of Sensorium's behaviour models: three layers."""
    draw = torch.Generator().manual_seed(9)
    for number, (i, o) in {0: (2, hidden), 2: (hidden, hidden), 4: (hidden, 2)}.items():
        state[f"shifter.mouse.mlp.{number}.weight"] = torch.randn(o, i, generator=draw) * 0.4
        state[f"shifter.mouse.mlp.{number}.bias"] = torch.randn(o, generator=draw) * 0.1


@pytest.mark.parametrize("sigma", [(2, 2), (1, 2), (1, 1)], ids=["full", "uncorrelated", "isotropic"])
@pytest.mark.parametrize(
    ("options", "behaves"),
    [
        ({}, False),
        ({"predicted": False, "behavior": 3}, True),
        ({"separable": False, "dense": True, "stack": 3, "behavior": 3}, True),
        ({"separable": False, "stack": 2, "predicted": False}, False),
    ],
)
def test_plain_and_behaviour_variants_are_read_as_their_code_computes_them(tmp_path, options, behaves, sigma):
    state = checkpoint(**options) | {"readout.mouse.sigma": torch.rand(1, 6, *sigma)}
    if behaves:
        deep_shifter(state)
    torch.save(state, tmp_path / "twin.pth")
    twin = load_twin(tmp_path / "twin.pth")
    given = trials(options.get("behavior", 0))
    theirs = sensorium(state, *given, skip=3 if options.get("dense") else 1, stack=options.get("stack", 1))
    assert torch.allclose(twin.model(*given), theirs, atol=1e-5)
    assert len(twin.neutral_behavior) == options.get("behavior", 0)
    # written again: the same numbers, under the same names but for positions that were predicted
    assert save_sensorium(twin, tmp_path / "again.pth") == ()
    again = torch.load(tmp_path / "again.pth", weights_only=True)
    shape = lambda named: {k: v.shape for k, v in named.items() if not re.search("_mu|mu_transform|grid|sigma", k)}  # noqa: E731
    assert shape(again) | {"core._input_weights_regularizer.laplace.filter": (1, 1, 3, 3)} == shape(state)
    assert again["readout.mouse.sigma"].shape == (1, 6, 2, 2)
    assert torch.equal(load_twin(tmp_path / "again.pth").model(*given), twin.model(*given))


@pytest.mark.parametrize(
    "options", [{"behavior": "channels"}, {"behavior": "channels", "core": "stacked"}, {"behavior": "none"}]
)
def test_a_fitted_twin_goes_out_and_back(tmp_path, stimuli, options):
    twin = made_twin(**options)
    with pytest.raises(InputError, match=r"predicts recorded units, .* own_units=True"):
        save_sensorium(twin, tmp_path / "twin.pth")
    lost = save_sensorium(twin, tmp_path / "twin.pth", own_units=True)
    again = load_twin(tmp_path / "twin.pth", input_size=SIZE)
    images, behavior, pupil = trials(2, SIZE)
    model = twin.model
    standard = (model.behavior_scale(behavior) if model.channels else behavior[:, :0], model.pupil_scale(pupil))
    expected = model(images, behavior, pupil) / model.unit
    assert torch.allclose(again.model(images, *standard), expected, atol=1e-5)
    state = torch.load(tmp_path / "twin.pth", weights_only=True)
    stacked = 3 if options.get("core") == "stacked" else 1
    assert torch.allclose(sensorium(state, images, *standard, skip=stacked, stack=stacked), expected, atol=1e-5)
    said = " ".join(lost)
    assert "images are 16x20" in said
    assert "z-scored with mean 37.0333, std 8.61429" in said
    assert "pupil position goes in as (x - (1, -2)) / (4, 2)" in said
    assert ("behaviour goes in as (x - (0.3, 5)) / (0.2, 3)" in said) == (options["behavior"] == "channels")
    assert "w and accuracies v are left out" in said


def test_neutral_at_the_mean_needs_no_word(tmp_path, stimuli):
    """Where neutral is the mean, what a reader assumes (0) is right: the same predictions with nothing told."""
    mean = made_twin(behavior="channels")
    twin = replace(mean, neutral_behavior=(0.3, 5.0), neutral_pupil=(1.0, -2.0), pixel_mean=None, pixel_std=None)
    twin.model.unit.fill_(1)
    lost = save_sensorium(twin, tmp_path / "twin.pth")
    assert not [line for line in lost if line.startswith("neutral")]
    small = Stimuli(stimuli.ids, stimuli.pixels[:, :16, :20].copy())
    again = predict_population(load_twin(tmp_path / "twin.pth", input_size=SIZE), small)
    assert np.abs(again.mean - predict_population(twin, small).mean).max() < 1e-5
    assert [
        line
        for line in save_sensorium(replace(twin, neutral_pupil=(3.0, -2.0)), tmp_path / "b.pth")
        if "neutral" in line
    ] == ["neutral pupil position is (0.5, 0), where a reader takes 0"]


def test_what_has_no_place_there_is_all_named(tmp_path):
    two = r"no place for a factorised readout, a modulator; fit with --readout gaussian and --behavior channels \(or"
    with pytest.raises(InputError, match=two):
        save_sensorium(made_twin(readout="factorised"), tmp_path / "twin.pth")
    linear = "no place for a linear layer 0, a linear layer 1, a linear layer 2; fit with no --linear, or keep it as"
    with pytest.raises(InputError, match=linear):
        save_sensorium(made_twin(linear=True, behavior="none"), tmp_path / "twin.pth")
    with pytest.raises(InputError, match="no place for the padding of layer 0; fit with --no-padded, or"):
        save_sensorium(made_twin(behavior="none", padded=True), tmp_path / "twin.pth")
    strange = made_twin(behavior="none", padded=True)
    strange.model.core.layers[1][1].eps = 1e-3
    with pytest.raises(InputError, match=r"batch norm with eps 0\.001; keep it as \.safetensors \(save_twins\)$"):
        save_sensorium(strange, tmp_path / "twin.pth")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"modulator.mouse.mlp.0.weight": torch.ones(2, 2)}, "(a modulator)"),
        ({"core.features.layer1.seg_ex_block.se.0.weight": torch.ones(2, 2)}, "(squeeze and excitation)"),
        ({"core.features.layer1.attention_conv.key_conv.weight": torch.ones(2)}, "(a core with attention)"),
        ({"core.features.layer0.hermite_conv.coeffs": torch.ones(2)}, "(a rotation-equivariant core)"),
        ({"core.gru.ConvGRU.reset_gate.weight": torch.ones(2)}, "(a recurrent core)"),
        ({"readout.mouse.feature_sharing_index": torch.ones(6)}, "(a readout whose neurons share"),
        ({"shifter.mouse.gru.weight_ih": torch.ones(6)}, "(a shifter of another kind)"),
        ({"shifter.mouse.mlp.0.weight": torch.ones(2, 3)}, "the shifter takes 3 numbers, and a pupil position has 2"),
    ],
)
def test_what_another_variant_holds_is_named(tmp_path, more, said):
    torch.save(checkpoint() | more, tmp_path / "twin.pth")
    with pytest.raises(InputError, match=re.escape(said)) as caught:
        load_twin(tmp_path / "twin.pth")
    assert "\n" not in str(caught.value)


def test_a_factorised_readout_is_not_an_incomplete_gaussian_one(tmp_path):
    state = checkpoint(predicted=False)
    del state["readout.mouse._mu"], state["readout.mouse.sigma"]
    torch.save(state | {"readout.mouse.spatial": torch.ones(6, 32, 60)}, tmp_path / "twin.pth")
    with pytest.raises(InputError, match=r"mu is missing, and there is a factorised readout, which this reader does"):
        load_twin(tmp_path / "twin.pth")
    foreign = {"features.0.weight": torch.ones(1), "classifier.bias": torch.ones(1)}
    torch.save(foreign, tmp_path / "vgg.pth")
    with pytest.raises(InputError, match=r"no neuron readout in it, but classifier\.bias, features\.0\.weight;"):
        load_twin(tmp_path / "vgg.pth")


def test_rates_differ_where_trials_do():
    """The trials that the tests above compare on are told apart by every part."""
    assert rates(made_twin(behavior="channels")).std(dim=0).min() > 1e-3
