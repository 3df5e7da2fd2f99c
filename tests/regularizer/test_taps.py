"""Where the paper's layers are, in our networks and in others'."""

import pytest
import torch
from torch import nn

from neuroprior.classifier import GaussianBlur, ResNet
from neuroprior.regularizer import Taps, evenly_spaced_stages
from neuroprior.types import InputError

IMAGES = torch.rand(2, 1, 36, 64, generator=torch.Generator().manual_seed(0))
STAGES = ["stem", "stage1", "stage2", "stage3", "stage4"]


@pytest.mark.parametrize("architecture", ["resnet18", "resnet34"])
@pytest.mark.parametrize("front", [None, GaussianBlur(1.0)])
def test_five_taps_are_the_stem_and_the_stages(architecture, front):
    assert evenly_spaced_stages(ResNet(architecture, width=2, front=front), IMAGES, 5) == STAGES


def test_the_stages_are_layers_1_5_9_13_17(monkeypatch):
    """A network that does not name its stages is measured: both ways lead to the same layers of ResNet18."""
    assert evenly_spaced_stages(ResNet(width=2), IMAGES, 2) == ["stem", "stage4"]
    monkeypatch.delattr(ResNet, "stages")
    assert evenly_spaced_stages(ResNet(width=2, front=GaussianBlur(1.0)), IMAGES, 5) == STAGES
    deeper = evenly_spaced_stages(ResNet("resnet34", width=2), IMAGES, 5)
    assert (deeper[0], deeper[-1], len(set(deeper))) == ("stem", "stage4", 5)


def test_a_tap_sees_the_rectified_end_of_its_stage():
    network = ResNet(width=2).eval()
    stem, stage1 = Taps(network, ["stem", "stage1"]).features(network, IMAGES)
    x = network.stem(network.scaling(IMAGES))
    assert torch.equal(stem, x)
    assert torch.equal(stage1, network.stage1(x))
    assert (stem >= 0).all()
    assert (stage1 >= 0).all()


def test_nothing_beyond_the_deepest_tap_is_computed():
    network = ResNet(width=2)
    network.stage4.register_forward_hook(lambda *_: pytest.fail("stage4 was run"))
    Taps(network, ["stem", "stage1"]).features(network, IMAGES)


def test_plain_network_with_a_head_for_another_image_size():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(7, 10)
    )
    names = evenly_spaced_stages(model, IMAGES, 2)
    assert names == ["1", "4"]  # each convolution's ReLU, not the pooling after it
    assert [f.shape[1] for f in Taps(model, names).features(model, IMAGES)] == [2, 4]


def test_unknown_taps_list_those_that_exist():
    network = ResNet(width=2)
    with pytest.raises(InputError, match=r"'stage_1': no such module; did you mean 'stage1'\? there are: .*stem"):
        Taps(network, ["stage_1"])
    with pytest.raises(InputError, match="at least one"):
        Taps(network, [])
    with pytest.raises(InputError, match="each layer once"):
        Taps(network, ["stem", "stem"])
    with pytest.raises(InputError, match="30 layers asked of a network with 17"):
        evenly_spaced_stages(network, IMAGES, 30)


class Odd(nn.Module):
    """One module that takes and gives a pair, one that is never called."""

    def __init__(self):
        super().__init__()
        self.pair, self.unused = nn.Identity(), nn.Identity()

    def forward(self, x):
        self.pair((x, x))
        return x


def test_a_tap_that_is_no_feature_map_is_refused():
    model = Odd()
    with pytest.raises(InputError, match="'pair': its output is no tensor"):
        Taps(model, ["pair"]).features(model, IMAGES)
    with pytest.raises(InputError, match="'unused': not used"):
        Taps(model, ["unused"]).features(model, IMAGES)


def test_hooks_do_not_stay():
    network = ResNet(width=2)
    Taps(network, STAGES).features(network, IMAGES)
    evenly_spaced_stages(network, IMAGES, 5)
    assert all(not module._forward_hooks for module in network.modules())


def test_what_a_tap_gives_does_not_depend_on_other_taps():
    """A module used twice would give its first call alone and its last beside a deeper tap."""

    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.relu = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3), nn.ReLU()

        def forward(self, x):
            return self.relu(self.second(self.relu(self.first(x))))

    images = torch.rand(2, 1, 12, 12)
    with pytest.raises(InputError, match="tap 'relu': used 2 times a pass"):
        _check(Shared(), ["relu"], images)
    for inplace in (False, True):
        model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=inplace))
        if inplace:
            with pytest.raises(InputError, match="tap '1': what follows overwrites its output"):
                _check(model, ["1"], images)
        else:
            _check(model, ["1"], images)
    _check(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(9, 2)), ["0"], images)  # a head of another size


def _check(model: nn.Module, names: list[str], images: torch.Tensor) -> None:
    Taps(model, names).check(model, images)
