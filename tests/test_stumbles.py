"""What a newcomer gets wrong first is one line that says how to mend it, or simply works."""

import numpy as np
import pytest
import torch
from torch import nn

import neuroprior as npr
from neuroprior.cli import main
from neuroprior.types import InputError

STIMULI = npr.packaged_photographs(n_train=6, n_oracle=2)
IMAGES, LABELS = torch.rand(4, 1, 8, 8), torch.arange(4)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 4))


def target() -> npr.SimilarityTarget:
    return npr.SimilarityTarget(np.eye(8, dtype=np.float32), STIMULI.ids, STIMULI.digest, "user")


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (lambda: npr.SimilarityRegularizer(network(), target().matrix, STIMULI), "pass a SimilarityTarget"),
        (
            lambda: npr.SimilarityRegularizer(network(), target(), STIMULI.pixels),
            "pass the Stimuli that the target is of",
        ),
        (lambda: npr.Stimuli(["a", "b"], np.zeros((2, 4, 4), np.uint8)), r"got a list; np\.array\(ids\)"),
        (lambda: npr.masking_report(network(), IMAGES, LABELS, radius=0.1), "give the networks by name"),
        (
            lambda: npr.minimal_perturbations(network(), IMAGES, LABELS, attacks=["ddn"], norm="L2"),
            "norm 'L2' is not one of l0, l1, l2, linf",
        ),
    ],
)
def test_one_line_that_says_what_to_pass(shapes_unchecked, what, says):
    with pytest.raises(InputError, match=says):
        what()


def test_one_attack_and_one_radius_need_no_list(shapes_unchecked):
    net = network()
    one = npr.minimal_perturbations(net, IMAGES, LABELS, attacks="ddn", norm="l2")
    several = npr.minimal_perturbations(net, IMAGES, LABELS, attacks=["ddn"], norm="l2")
    assert np.array_equal(one.distances(), several.distances())
    left = npr.accuracy_under_attack(net, IMAGES, LABELS, 0.01, strength="quick")
    assert left.radii == (0.01,)


def test_a_group_without_a_command_prints_its_help_and_an_unquoted_list_is_told(capsys):
    with pytest.raises(SystemExit) as left:
        main(["target"])
    assert left.value.code == 2
    assert "\n  build " in capsys.readouterr().err
    with pytest.raises(SystemExit) as left:
        main(["run", "recipes/quick.yaml", "--set", "conditions=[none,", "blur]"])
    assert left.value.code == 2
    assert "in quotes, where it has blanks" in capsys.readouterr().err
