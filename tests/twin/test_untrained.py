"""The untrained twin: the architecture alone."""

import numpy as np
import pytest
import torch
from test_pretrained import checkpoint

from neuroprior.recordings import load_stimuli
from neuroprior.similarity import target_from_population
from neuroprior.twin import load_twin, predict_population, untrained_twin
from neuroprior.types import InputError


@pytest.fixture
def twin(tmp_path):
    torch.save(checkpoint(shifter=True, behavior=2), tmp_path / "twin.pth")
    return load_twin(tmp_path / "twin.pth")


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
