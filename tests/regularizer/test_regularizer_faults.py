"""What the regulariser refuses or points out: a target, features or options that cannot be meant."""

import warnings

import pytest
import torch
from small_regularizer import regularizer
from torch import nn

from neuroprior.types import InputError, Stimuli


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


def test_a_layer_used_twice_is_not_chosen_silently(target, stimuli):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x):
            return self.conv(self.conv(x)).flatten(1)

    with pytest.raises(InputError, match="used several times a pass; name them"):
        regularizer(Twice(), target, stimuli, taps=1)


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
