"""What a twin is made of: sizes that fit, parts that begin as if they were not there, names that are checked."""

import itertools

import pytest
import torch

from neuroprior.twin import EncodingModel, TwinArchitecture
from neuroprior.twin.model import Standardise
from neuroprior.types import InputError

IMAGE, NEURONS, BEHAVIOR = (12, 16), 6, 2


def model_of(architecture: TwinArchitecture, n_behavior: int = BEHAVIOR) -> EncodingModel:
    torch.manual_seed(0)
    size = architecture.map_size(IMAGE)
    where, bias = torch.rand(NEURONS, 2) - 0.5, torch.randn(NEURONS)
    return EncodingModel(
        architecture.new_core(n_behavior),
        architecture.new_readout(size, where, bias, torch.randn(NEURONS, 2)),
        architecture.new_shifter(),
        architecture.new_modulator(n_behavior, NEURONS),
        channels=architecture.behavior == "channels",
    )


@pytest.mark.parametrize(
    ("core", "readout", "behavior", "shifter"),
    [
        *itertools.product(
            ("separable", "stacked"),
            ("gaussian", "factorised"),
            ("gain", "modulator", "channels", "none"),
            ("mlp", "none"),
        )
    ],
)
def test_every_combination_of_parts_fits(core, readout, behavior, shifter):
    architecture = TwinArchitecture(
        core=core, readout=readout, behavior=behavior, shifter=shifter, channels=4, first_kernel=5, kernel=3
    )
    model = model_of(architecture).eval()
    maps = model.core(model.seen(torch.randn(3, 1, *IMAGE), torch.zeros(3, BEHAVIOR)))
    assert maps.shape == (3, architecture.n_features, *architecture.map_size(IMAGE))
    images = torch.randn(3, 1, *IMAGE)
    at_rest = model(images, torch.zeros(3, BEHAVIOR), torch.zeros(3, 2))
    assert at_rest.shape == (3, NEURONS)
    assert (at_rest >= 0).all()
    active = model(images, torch.ones(3, BEHAVIOR), torch.ones(3, 2))
    # shifter and modulator begin at nothing; behaviour as an image's channel is seen from the start
    assert torch.equal(at_rest, active) == (behavior != "channels")


@pytest.mark.parametrize("behavior", ["modulator", "channels"])
def test_a_scan_without_behaviour_has_a_model_without_it(behavior):
    model = model_of(TwinArchitecture(behavior=behavior, channels=4, first_kernel=5, kernel=3), n_behavior=0).eval()
    assert model(torch.randn(2, 1, *IMAGE), torch.zeros(2, 0), torch.zeros(2, 2)).isfinite().all()
    assert not list(model.modulator.parameters())


def test_the_modulator_begins_at_one_and_then_scales_each_neuron():
    modulator = TwinArchitecture().new_modulator(BEHAVIOR, NEURONS)
    behavior = torch.randn(9, BEHAVIOR)
    assert torch.equal(modulator(behavior), torch.ones(9, NEURONS))
    modulator.mlp[-1].bias.data[2] = 0.5
    gain = modulator(behavior)
    assert torch.allclose(gain[:, 2], torch.tensor(0.5).exp())
    assert torch.equal(gain[:, :2], torch.ones(9, 2))
    modulator.mlp[-1].weight.data.normal_()
    assert (modulator(behavior) > 0).all()
    nothing = TwinArchitecture(behavior="none").new_modulator(BEHAVIOR, NEURONS)
    assert torch.equal(nothing(behavior), torch.ones(9, 1))


@pytest.mark.parametrize("kind", ["gain", "modulator"])
def test_the_gain_comes_after_the_output_nonlinearity_and_that_of_the_drive_before_it(kind):
    model = model_of(TwinArchitecture(channels=4, first_kernel=5, kernel=3, behavior=kind)).eval()
    model.modulator.mlp[-1].bias.data.fill_(0.7)
    maps, behavior, pupil = torch.randn(3, 4, 8, 12), torch.zeros(3, BEHAVIOR), torch.zeros(3, 2)
    drive, gain, elu = model.readout(maps, pupil), torch.tensor(0.7).exp(), torch.nn.functional.elu
    expected = gain * (elu(drive) + 1) if kind == "gain" else elu(gain * drive) + 1
    assert torch.allclose(model.rates(maps, behavior, pupil), expected, atol=1e-5)


def test_the_shifter_begins_at_rest_and_is_bounded():
    shifter = TwinArchitecture().new_shifter()
    pupil = torch.randn(9, 2)
    assert torch.equal(shifter(pupil), torch.zeros(9, 2))
    for weight in shifter.parameters():
        weight.data.normal_(std=5)
    assert shifter(pupil).abs().max() <= 1
    assert not torch.equal(shifter(pupil), torch.zeros(9, 2))
    assert torch.equal(TwinArchitecture(shifter="none").new_shifter()(pupil), torch.zeros(9, 2))


def test_recorded_units_do_not_matter_once_they_are_standardised():
    """Behaviour in mm/s or m/s, with its own mean and standard deviation, gives the same rates; without them, not."""
    model = model_of(TwinArchitecture(channels=4, first_kernel=5, kernel=3)).eval()
    for part in (model.modulator, model.shifter):
        for weight in part.parameters():
            weight.data.normal_()
    images, behavior, pupil = torch.randn(3, 1, *IMAGE), torch.randn(3, BEHAVIOR), torch.randn(3, 2)
    standard = model(images, behavior, pupil)
    model.behavior_scale = Standardise(torch.tensor([3.0, -1.0]), torch.tensor([10.0, 0.5]))
    model.pupil_scale = Standardise(torch.tensor([100.0, 80.0]), torch.tensor([7.0, 5.0]))
    recorded = behavior * torch.tensor([10.0, 0.5]) + torch.tensor([3.0, -1.0])
    looked = pupil * torch.tensor([7.0, 5.0]) + torch.tensor([100.0, 80.0])
    assert torch.allclose(model(images, recorded, looked), standard, atol=1e-4)
    assert not torch.allclose(model(images, behavior, pupil), standard, atol=1e-2)


def test_neurons_units_scale_the_rates():
    model = model_of(TwinArchitecture(channels=4, first_kernel=5, kernel=3)).eval()
    images, still = torch.randn(3, 1, *IMAGE), torch.zeros(3, 2)
    rates = model(images, still, still)
    model.unit = torch.arange(1.0, NEURONS + 1)
    assert torch.allclose(model(images, still, still), rates * torch.arange(1, NEURONS + 1))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"core": "dense"}, "core is 'dense'; choose separable, stacked"),
        ({"readout": "point"}, "readout is 'point'; choose gaussian, factorised"),
        ({"positions": "fixed"}, "positions is 'fixed'; choose free, cortical"),
        ({"covariance": "none"}, "covariance is 'none'; choose full, isotropic"),
        ({"shifter": "yes"}, "shifter is 'yes'; choose mlp, none"),
        ({"behavior": "speed"}, "behavior is 'speed'; choose gain, modulator, channels, none"),
        ({"channels": 0}, "channels is 0; it must be 1 or more"),
        ({"n_layers": 0}, "n_layers is 0; it must be 1 or more"),
        ({"kernel": 4}, "kernel is 4; give an odd one"),
        ({"first_spread": 0.0}, "first_spread is 0.0; it must be above 0"),
        ({"first_spread": float("nan")}, "first_spread is nan; it must be above 0"),
    ],
)
def test_what_does_not_exist_is_said(shapes_unchecked, wrong, said):
    with pytest.raises(InputError, match=said):
        TwinArchitecture(**wrong)


def test_images_smaller_than_the_first_filter_are_said():
    with pytest.raises(InputError, match="images of 15x30 are too small for a first filter of 15; set first_kernel"):
        TwinArchitecture(padded=False).map_size((15, 30))
    assert TwinArchitecture(padded=False).map_size((16, 30)) == (2, 16)


def test_cortical_positions_need_the_cortex():
    architecture = TwinArchitecture(positions="cortical")
    with pytest.raises(InputError, match="no neuron_xyz; use free ones"):
        architecture.new_readout((4, 8), torch.zeros(NEURONS, 2), torch.zeros(NEURONS), None)


@pytest.mark.parametrize("core", ["separable", "stacked"])
def test_a_padded_core_sees_to_the_image_edge_and_beyond_it_gray(core):
    padded = TwinArchitecture(core=core, channels=4, first_kernel=5, kernel=3, padded=True)
    assert padded.map_size(IMAGE) == IMAGE
    torch.manual_seed(0)
    model = padded.new_core(0).eval()
    assert model(torch.zeros(1, 1, *IMAGE)).shape[2:] == IMAGE
    images = torch.randn(2, 1, *IMAGE)
    surrounded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    first = model.layers[0]
    torch.manual_seed(0)
    bare = TwinArchitecture(core=core, channels=4, first_kernel=5, kernel=3, padded=False).new_core(0).eval().layers[0]
    assert torch.allclose(first(images), bare(surrounded), atol=1e-5)
    with pytest.raises(InputError, match="first_kernel is 4; give an odd one"):
        TwinArchitecture(first_kernel=4, padded=True)
