"""Reading Sensorium checkpoints: the real one against the slow form, made ones of other architectures, and bad ones."""

import re

import numpy as np
import pytest
import torch

from neuroprior.recordings import load_stimuli
from neuroprior.twin import load_twin, predict_population, target_from_twin
from neuroprior.types import InputError, Stimuli
from reference.sensorium import predict as slow_predict
from reference.similarity import centered_cosine as slow_cosine

CHECKPOINT = "twins/sensorium2022_26872-17-20_sota.pth"
STIMULI = "stimuli/tiny_imagenet_36x64.npz"


def checkpoint(
    *, layers=3, channels=4, separable=True, behavior=0, stack=1, dense=False, shifter=False, predicted=True, seed=0
) -> dict[str, torch.Tensor]:
    """Make a state dict as the Sensorium code names it."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random) * 0.3

    state = {"core._input_weights_regularizer.laplace.filter": torch.zeros(1, 1, 3, 3)}
    for k in range(layers):
        p = f"core.features.layer{k}."
        seen = 1 + behavior if k == 0 else channels * (k if dense else 1)
        if k == 0:
            state[p + "conv.weight"] = draw(channels, seen, 5, 5)
        elif separable:
            state[p + "ds_conv.in_depth_conv.weight"] = draw(channels, seen, 1, 1)
            state[p + "ds_conv.spatial_conv.weight"] = draw(channels, 1, 3, 3)
            state[p + "ds_conv.out_depth_conv.weight"] = draw(channels, channels, 1, 1)
        else:
            state[p + "conv.weight"] = draw(channels, seen, 3, 3)
        for name in ("weight", "bias", "running_mean"):
            state[p + f"norm.{name}"] = draw(channels)
        state[p + "norm.running_var"] = torch.rand(channels, generator=random) + 0.5
        state[p + "norm.num_batches_tracked"] = torch.tensor(7)
    r, n = "readout.mouse.", 6
    state[r + "sigma"] = draw(1, n, 2, 2)
    state[r + "_features"] = draw(1, channels * stack, 1, n)
    state[r + "bias"] = draw(n)
    if predicted:
        state[r + "source_grid"] = draw(n, 2)
        for k, (i, o) in {"0": (2, 5), "2": (5, 2)}.items():
            state[r + f"mu_transform.{k}.weight"], state[r + f"mu_transform.{k}.bias"] = draw(o, i), draw(o)
    else:
        state[r + "_mu"] = draw(1, n, 1, 2)
    if shifter:
        for k, (i, o) in {"0": (2, 5), "2": (5, 2)}.items():
            state[f"shifter.mouse.mlp.{k}.weight"], state[f"shifter.mouse.mlp.{k}.bias"] = draw(o, i), draw(o)
    return state


@pytest.fixture
def saved(tmp_path):
    def save(state) -> str:
        path = tmp_path / "twin.pth"
        torch.save(state, path)
        return str(path)

    return save


def test_the_real_twin_predicts_what_the_slow_form_says(data):
    twin = load_twin(data(CHECKPOINT))
    assert (twin.name, twin.n_neurons, twin.neutral_behavior) == ("26872-17-20", 7776, ())
    stimuli = load_stimuli(data(STIMULI), tier="oracle")
    few = stimuli.select(stimuli.ids[:8])
    ours = predict_population(twin, few).mean
    state = torch.load(data(CHECKPOINT), weights_only=True, map_location="cpu")
    pixels = few.pixels.astype(np.float64)
    neurons = list(range(0, 7776, 97))
    slow = slow_predict(state, "26872-17-20", (pixels - pixels.mean()) / pixels.std(), neurons)
    assert np.abs(ours[:, neurons] - slow).max() < 1e-4 * slow.max()


def test_similarity_of_the_real_twin_agrees_with_float64(data):
    stimuli = load_stimuli(data(STIMULI), tier="oracle")
    target = target_from_twin(load_twin(data(CHECKPOINT)), stimuli)
    slow = slow_cosine(predict_population(load_twin(data(CHECKPOINT)), stimuli).mean)
    assert np.abs(target.matrix - slow).max() < 1e-5
    off = target.matrix[np.triu_indices(len(stimuli), 1)]
    assert 0.15 < off.std() < 0.21  # about 0.18 over all 5,100
    assert "1 for every neuron" in target.details["weights"]
    assert target.details["pixel_mean"] == pytest.approx(stimuli.pixels.mean())


def test_prediction_is_deterministic_and_does_not_depend_on_its_company(data):
    twin = load_twin(data(CHECKPOINT))
    stimuli = load_stimuli(data(STIMULI), tier="oracle")
    first, again = (predict_population(twin, stimuli).mean for _ in range(2))
    assert np.array_equal(first, again)
    # The same images in another order: the same responses, since the z-scoring is over the same pixels.
    backwards = predict_population(twin, stimuli.select(stimuli.ids[::-1])).mean[::-1]
    assert np.allclose(first, backwards, atol=2e-6)


def test_a_coarse_prediction_is_an_option_that_says_so(data):
    twin = load_twin(data(CHECKPOINT))
    few = load_stimuli(data(STIMULI), tier="oracle")
    few = few.select(few.ids[:20])
    fine, coarse = (target_from_twin(twin, few, precision=p) for p in ("float32", "bfloat16"))
    assert "precision" not in fine.details
    assert coarse.details["precision"] == "bfloat16: too coarse for a target that results rest on"
    assert 1e-5 < np.abs(fine.matrix - coarse.matrix).max() < 0.05  # coarser than what a target may differ by


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"separable": False},
        {"separable": False, "dense": True, "stack": 3},
        {"behavior": 3, "shifter": True},
        {"predicted": False, "stack": 2},
        {"layers": 5, "channels": 3},
    ],
)
def test_architectures_are_inferred(saved, stimuli, options):
    twin = load_twin(saved(checkpoint(**options)))
    population = predict_population(twin, stimuli)
    assert population.mean.shape == (len(stimuli), 6)
    assert np.isfinite(population.mean).all()
    assert (population.mean > 0).all()  # ELU + 1
    assert len(twin.model.core.layers) == options.get("layers", 3)
    assert twin.model.core.stack == options.get("stack", 1)
    assert len(twin.neutral_behavior) == options.get("behavior", 0)


def test_dense_layers_see_all_before_them(saved):
    assert load_twin(saved(checkpoint(separable=False, dense=True, layers=4))).model.core.sees == (0, 1, 2, 3)
    assert load_twin(saved(checkpoint(separable=False, layers=4))).model.core.sees == (0, 1, 1, 1)


def test_behaviour_and_gaze_change_the_prediction(saved):
    twin = load_twin(saved(checkpoint(behavior=2, shifter=True)))
    images = torch.randn(2, 1, 36, 64, generator=torch.Generator().manual_seed(0))
    calm = twin.model(images, torch.zeros(2, 2), torch.zeros(2, 2))
    running = twin.model(images, torch.ones(2, 2), torch.zeros(2, 2))
    looking_aside = twin.model(images, torch.zeros(2, 2), torch.ones(2, 2))
    assert not torch.allclose(calm, running)
    assert not torch.allclose(calm, looking_aside)


def test_one_scan_of_several(saved):
    state = checkpoint()
    state |= {k.replace("mouse", "other"): v + 1 for k, v in state.items() if "mouse" in k and v.is_floating_point()}
    path = saved(state)
    with pytest.raises(InputError, match=r"2 scans \(mouse, other\)"):
        load_twin(path)
    assert load_twin(path, scan="other").name == "other"
    with pytest.raises(InputError, match="no scan 'third'"):
        load_twin(path, scan="third")


def test_unknown_parameters_are_all_listed(saved):
    state = checkpoint() | {"core.features.layer1.se.weight": torch.ones(2), "modulator.mouse.w": torch.ones(1)}
    with pytest.raises(InputError, match=re.escape("core.features.layer1.se.weight, modulator.mouse.w")):
        load_twin(saved(state))


def test_incomplete_or_damaged_checkpoints(saved, tmp_path):
    state = checkpoint()
    del state["core.features.layer1.ds_conv.out_depth_conv.weight"]
    with pytest.raises(InputError, match=r"out_depth_conv\.weight is missing"):
        load_twin(saved(state))
    with pytest.raises(InputError, match="no neuron readout"):
        load_twin(saved({"weight": torch.ones(2)}))
    with pytest.raises(InputError, match="do not fit together"):
        load_twin(saved(checkpoint() | {"readout.mouse._features": torch.ones(1, 9, 1, 6)}))
    with pytest.raises(InputError, match="not finite"):
        load_twin(saved(checkpoint() | {"readout.mouse.bias": torch.full((6,), torch.nan)}))
    with pytest.raises(InputError, match="no such file"):
        load_twin(tmp_path / "missing.pth")


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_truncated_checkpoint(saved, tmp_path, part):
    whole = (path := tmp_path / "twin.pth", torch.save(checkpoint(), path))[0].read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(InputError, match="damaged"):
        load_twin(path)


def test_nothing_but_tensors_is_unpickled(saved):
    with pytest.raises(InputError, match="nothing else is ever unpickled"):
        load_twin(saved({"readout.mouse._features": torch.ones(1), "code": re.compile("x")}))


def test_stimuli_of_another_size(saved):
    twin = load_twin(saved(checkpoint()))
    small = Stimuli(np.array(["a", "b"]), np.arange(2 * 32 * 32).reshape(2, 32, 32).astype(np.uint8))
    with pytest.raises(InputError, match="takes images of 36x64, the stimuli are 32x32"):
        predict_population(twin, small)
    with pytest.raises(InputError, match="contrast"):
        predict_population(twin, Stimuli(np.array(["a"]), np.full((1, 36, 64), 9, np.uint8)))
