"""The untrained twin: the architecture alone."""

import copy

import numpy as np
import pytest
import torch
from test_pretrained import checkpoint
from test_saved import NEURONS, SIZE, made_twin

from neuroprior.recordings import load_stimuli, packaged_photographs
from neuroprior.similarity import target_from_population
from neuroprior.twin import EncodingModel, Twin, TwinArchitecture, load_twin, predict_population, untrained_twin
from neuroprior.types import InputError, Stimuli


@pytest.fixture
def twin(tmp_path):
    torch.save(checkpoint(shifter=True, behavior=2), tmp_path / "twin.pth")
    return load_twin(tmp_path / "twin.pth")


@pytest.fixture
def images(stimuli):
    """Of the size that `made_twin` takes."""
    height, width = SIZE
    return Stimuli(stimuli.ids, stimuli.pixels[:, :height, :width].copy())


def test_architecture_stays_and_every_weight_is_new(twin, stimuli):
    before = {name: value.clone() for name, value in twin.model.state_dict().items()}
    untrained = untrained_twin(twin, 0, stimuli)
    after = untrained.model.state_dict()
    assert {name: value.shape for name, value in before.items()} == {name: value.shape for name, value in after.items()}
    drawn = [name for name in before if name.startswith(("core", "readout", "shifter")) and "num_batches" not in name]
    assert not [name for name in drawn if torch.equal(before[name], after[name])]
    assert all(torch.equal(before[name], value) for name, value in twin.model.state_dict().items())
    assert not any(module.training for module in untrained.model.modules())
    assert "untrained" in untrained.name
    assert untrained.weights is None
    assert untrained.digest != twin.digest


@pytest.mark.parametrize("behavior", ["gain", "modulator"])
@pytest.mark.parametrize("readout", ["gaussian", "factorised"])
def test_of_a_fitted_twin_shifter_and_gains_are_at_rest_and_the_readout_is_of_its_kind(readout, behavior, images):
    """As before a fit's first step; drawn ones would shift neurons off the maps, where they see nothing."""
    twin = made_twin(readout=readout, behavior=behavior)
    model = untrained_twin(twin, 0, images).model
    given = torch.randn(50, 2)
    assert not torch.equal(twin.model.shifter(given), torch.zeros(50, 2))
    assert torch.equal(model.shifter(given), torch.zeros(50, 2))
    assert not torch.equal(twin.model.modulator(given), torch.ones(50, NEURONS))
    assert torch.equal(model.modulator(given), torch.ones(50, NEURONS))
    assert type(model.readout) is type(twin.model.readout)
    assert (model.readout.positions.abs() <= 1).all()
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: v.shape for k, v in twin.model.state_dict().items()
    }


def test_a_factorised_readout_varies_as_much_as_a_point_does():
    """Rates of many neurons: within a factor of two of those that read one point each, not faded and not blown up."""
    photographs = packaged_photographs(n_train=100)
    spread = {}
    for readout in ("gaussian", "factorised"):
        architecture = TwinArchitecture(channels=8, first_kernel=9, readout=readout)
        size = photographs.pixels.shape[1:]
        where = torch.zeros(100, 2)
        model = EncodingModel(
            architecture.new_core(0),
            architecture.new_readout(architecture.map_size(size), where, torch.zeros(100), None).settled(),
            architecture.new_shifter(),
            channels=False,
        )
        twin = Twin("mouse", model.eval(), size, 100, None, None, (), False, "0")
        rates = predict_population(untrained_twin(twin, 0, photographs), photographs).mean
        spread[readout] = (rates.std(axis=0) / rates.mean(axis=0)).mean()
    assert 0.5 < spread["factorised"] / spread["gaussian"] < 1


def test_without_shifter_and_modulator_the_draw_is_the_one_that_results_were_made_with(tmp_path, stimuli):
    """Layers in the core's order, then positions, then features: published controls rest on it."""
    torch.save(checkpoint(behavior=2), tmp_path / "plain.pth")
    model = untrained_twin(load_twin(tmp_path / "plain.pth"), 3, stimuli).model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        for conv in (module for module in model.core.modules() if isinstance(module, torch.nn.Conv2d)):
            again = copy.deepcopy(conv)
            again.reset_parameters()
            assert torch.equal(again.weight, conv.weight)
        n_neurons, n_features = model.readout.features.shape
        assert torch.equal(model.readout.positions, torch.empty(n_neurons, 2).uniform_(-1, 1))
        assert torch.equal(model.readout.features, torch.randn(n_neurons, n_features) * n_features**-0.5)
    assert not model.readout.bias.any()


def test_the_seed_decides(twin, stimuli):
    one, same, other = (untrained_twin(twin, seed, stimuli) for seed in (1, 1, 2))
    random_state = torch.random.get_rng_state()
    rates = [predict_population(t, stimuli).mean for t in (one, same, other)]
    assert np.array_equal(rates[0], rates[1])
    assert not np.allclose(rates[0], rates[2], atol=0.01)
    assert one.digest == same.digest != other.digest
    assert torch.equal(random_state, torch.random.get_rng_state())


def test_every_layer_is_normalised_on_the_stimuli(twin, stimuli):
    """What goes into each nonlinearity has mean 0 and variance 1 a channel, in evaluation mode."""
    untrained = untrained_twin(twin, 0, stimuli)
    maps = []
    for layer in untrained.model.core.layers:
        layer[1].register_forward_hook(lambda module, given, put_out: maps.append(put_out))
    pixels = torch.from_numpy(stimuli.pixels.astype(np.float32))
    images = ((pixels - pixels.mean()) / pixels.std(correction=0))[:, None]
    with torch.no_grad():
        untrained.model(images, torch.zeros(len(images), 2), torch.zeros(len(images), 2))
    assert len(maps) == 3
    for put_out in maps:
        assert torch.allclose(put_out.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-3)
        assert torch.allclose(put_out.var(dim=(0, 2, 3)), torch.ones(4), atol=1e-2)


def test_seeds_and_sizes_that_do_not_fit_are_said(twin, stimuli):
    with pytest.raises(InputError, match="seed is -1; it must be 0 or more"):
        untrained_twin(twin, -1, stimuli)
    with pytest.raises(InputError, match="takes images of 36x64"):
        untrained_twin(twin, 0, type(stimuli)(stimuli.ids, stimuli.pixels[:, :, :36]))


def test_the_real_architecture_untrained_tells_photographs_apart(data):
    """Rates vary as much as they are large (not by 0.2 % of it), and S is neither flat nor the mouse's."""
    twin = load_twin(data("twins/sensorium2022_26872-17-20_sota.pth"))
    photographs = load_stimuli(data("stimuli/tiny_imagenet_36x64.npz"), tier="oracle")
    trained, untrained = (predict_population(t, photographs) for t in (twin, untrained_twin(twin, 0, photographs)))
    assert 0.3 < (untrained.mean.std(axis=0) / untrained.mean.mean(axis=0)).mean() < 0.8
    pairs = np.triu_indices(len(photographs), 1)
    s_trained, s = (target_from_population(p, photographs).matrix[pairs] for p in (trained, untrained))
    assert 0.08 < s.std() < 0.2
    assert 0.1 < np.corrcoef(s, s_trained)[0, 1] < 0.7
