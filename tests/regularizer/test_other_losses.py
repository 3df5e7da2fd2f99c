"""The second losses that the regulariser is compared with: mere exposure, and regression to the responses."""

import numpy as np
import pytest
import torch
from torch import nn

from neuroprior import SimilarityRegularizer
from neuroprior.classifier import ResNet
from neuroprior.regularizer import Exposure, ResponseRegression
from neuroprior.types import InputError, Population, Stimuli


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ResNet(width=2)


def statistics(model: nn.Module) -> torch.Tensor:
    return torch.cat([m.running_mean for m in model.modules() if isinstance(m, nn.BatchNorm2d)])


def test_exposure_is_the_regulariser_without_its_teaching(network, target, stimuli):
    """Batch norm remembers exactly what it remembers beside the regulariser; no weight gets a gradient."""
    start = {k: v.clone() for k, v in network.state_dict().items()}
    remembered = []
    for second in (
        Exposure(network, stimuli, stimuli_per_step=6, seed=4),
        SimilarityRegularizer(network, target, stimuli, stimuli_per_step=6, seed=4),
    ):
        network.load_state_dict(start)
        loss = second()
        remembered.append(statistics(network).clone())
        assert float(loss.detach()) == 0 or isinstance(second, SimilarityRegularizer)
    assert torch.equal(*remembered)
    assert not torch.equal(remembered[0], torch.zeros_like(remembered[0]))
    kept = statistics(network).clone()
    Exposure(network, stimuli, stimuli_per_step=6, batch_norm="task")()
    assert torch.equal(statistics(network), kept)
    rarely = Exposure(network, stimuli, stimuli_per_step=6, every=2)
    counted = []
    for _ in range(4):
        rarely()
        counted.append(int(network.stem[1].num_batches_tracked))
    assert np.diff(counted).tolist() == [0, 1, 0]
    exposure = Exposure(network, stimuli, stimuli_per_step=6)
    assert list(exposure.parameters()) == []
    assert not exposure().requires_grad


def responses_of(features: np.ndarray, stimuli: Stimuli, seed: int = 0) -> Population:
    """Responses that a linear readout of these features explains exactly, in odd units."""
    rng = np.random.default_rng(seed)
    mean = 7 + 1e-3 * features @ rng.standard_normal((features.shape[1], 12))
    return Population(stimuli.ids, mean.astype(np.float32), np.ones(12, dtype=np.float32), "twin")


def test_a_readout_that_knows_nothing_costs_one_and_one_that_can_know_costs_nothing(network, stimuli):
    network.eval().requires_grad_(False)
    images = torch.from_numpy(stimuli.pixels.copy())[:, None].float() / 255
    features = nn.functional.adaptive_avg_pool2d(network.stem(network.scaling(images)), (2, 2)).flatten(1).numpy()
    population = responses_of(features, stimuli)
    loss = ResponseRegression(network, population, stimuli, "stem", grid=(2, 2), stimuli_per_step=len(stimuli))
    assert float(loss().detach()) == pytest.approx(1, rel=1e-4)
    optimizer = torch.optim.LBFGS(loss.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)
    assert float(loss().detach()) < 1e-3


def test_its_scale_ignores_units_and_the_number_of_neurons(network, stimuli):
    network.eval()
    rng = np.random.default_rng(1)
    mean = rng.random((len(stimuli), 9)).astype(np.float32)

    def value(responses: np.ndarray, **options) -> float:
        population = Population(stimuli.ids, responses, np.ones(responses.shape[1], dtype=np.float32), "recorded")
        loss = ResponseRegression(network, population, stimuli, stimuli_per_step=len(stimuli), **options)
        assert {name for name, _ in loss.named_parameters()} == {"readout.weight", "readout.bias"}
        return float(loss().detach())

    assert value(mean) == pytest.approx(value(1000 * mean + 5), rel=1e-4)
    assert value(mean) == pytest.approx(value(np.concatenate([mean, mean], axis=1)), rel=1e-4)
    assert value(mean, alpha=3.0) == pytest.approx(3 * value(mean), rel=1e-4)
    assert value(mean, neurons_per_step=4) == pytest.approx(1, rel=1e-4)


def test_the_network_learns_from_it_and_the_draws_go_on(network, stimuli):
    rng = np.random.default_rng(1)
    population = Population(
        stimuli.ids, rng.random((len(stimuli), 5)).astype(np.float32), np.ones(5, dtype=np.float32), "recorded"
    )
    loss = ResponseRegression(network, population, stimuli, 2, stimuli_per_step=6, neurons_per_step=3)
    nn.init.ones_(loss.readout.weight)
    loss().backward()
    assert network.stem[0].weight.grad is not None
    again = ResponseRegression(network, population, stimuli, 2, stimuli_per_step=6, neurons_per_step=3, seed=9)
    again.load_state_dict(loss.state_dict())
    network.eval()
    assert float(loss().detach()) == float(again().detach())


def test_what_it_refuses(network, stimuli):
    constant = Population(
        stimuli.ids, np.ones((len(stimuli), 3), dtype=np.float32), np.ones(3, dtype=np.float32), "recorded"
    )
    with pytest.raises(InputError, match="no neuron's response differs"):
        ResponseRegression(network, constant, stimuli, stimuli_per_step=8)
    some = Population(
        stimuli.ids, np.eye(len(stimuli), dtype=np.float32), np.ones(len(stimuli), dtype=np.float32), "recorded"
    )
    with pytest.raises(InputError, match="20 of 40 images are not among these 20"):
        ResponseRegression(network, some, stimuli.select(stimuli.ids[:20]))
    with pytest.raises(InputError, match="neurons_per_step is 0"):
        ResponseRegression(network, some, stimuli, stimuli_per_step=8, neurons_per_step=0)
