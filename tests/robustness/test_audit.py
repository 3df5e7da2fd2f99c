"""What is seen of a network before it is attacked: each kind of bad one in one line, a good one without a word."""

import pytest
import torch
from torch import nn

from neuroprior.robustness.audit import audit
from neuroprior.robustness.victim import Victim
from neuroprior.types import InputError
from robustness.networks import small_cnn


def images(n: int = 20) -> torch.Tensor:
    return torch.rand(n, 1, 16, 16, generator=torch.Generator().manual_seed(0))


LABELS = torch.arange(20) % 10


class After(nn.Module):
    """The small network, and what is done to its logits."""

    def __init__(self, change):
        super().__init__()
        self.net, self.change = small_cnn(), change

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.change(self.net(x), x)


def always_dropping(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return nn.functional.dropout(z, 0.5, training=True)


def nan_where_dark(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.where(x[:, :1, 0, 0] < 0.5, torch.nan, z)


def nan_by_chance(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Not finite for the last rows of a batch: from the second pass on, the first is whole."""
    nan_by_chance.passes += 1
    return z if nan_by_chance.passes == 1 else z * torch.nan


def norm_without_statistics() -> nn.Sequential:
    net = small_cnn()
    return nn.Sequential(net[0], nn.BatchNorm2d(8, track_running_stats=False), *list(net)[1:])


def flat_norm_without_statistics() -> nn.Sequential:
    return nn.Sequential(small_cnn(), nn.BatchNorm1d(10, track_running_stats=False))


@pytest.mark.parametrize("training", [True, False])
def test_a_good_network_passes_without_remark_and_is_given_back(training):
    net = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5), small_cnn()).train(training)
    victim = Victim(net)
    seen = audit(victim, images(), LABELS)
    assert seen.remarks == ()
    assert (seen.n, seen.classes, seen.channels, seen.dead_gradients, seen.unsound) == (20, 10, 1, 0, 0)
    assert seen.repeatable == 0
    assert 0 <= seen.batch_invariance < 1e-4
    assert net.training == training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in net.parameters())
    assert victim.channels is None


def test_accuracy_is_of_the_images_seen():
    net = small_cnn()
    right = Victim(net).logits(images()).argmax(1)
    labels = torch.where(torch.arange(20) < 5, (right + 1) % 10, right)
    assert audit(Victim(net), images(), labels).accuracy == pytest.approx(15 / 20)
    assert audit(Victim(net), images().repeat(3, 1, 1, 1), labels.repeat(3)).n == 32


@pytest.mark.parametrize(
    ("net", "says"),
    [
        (lambda: After(always_dropping), "two passes over the same images differ .*dropout"),
        (norm_without_statistics, "depend on its batch .*running ones"),
        (lambda: nn.Sequential(small_cnn(), nn.Softmax(1)), r"gives probabilities .*outputs='probabilities'"),
        (lambda: After(lambda z, x: z * torch.nan), "no finite logits for any image"),
        (lambda: After(lambda z, x: z.detach()), "gradient is zero .*for every image"),
        (lambda: After(lambda z, x: (10 * z).round()), "gradient is zero .*for every image"),
    ],
    ids=["dropout", "batch norm", "probabilities", "nan", "detached", "rounded"],
)
def test_a_bad_network_is_refused_in_one_line(net, says):
    with pytest.raises(InputError, match=rf"^audit: .*{says}") as refused:
        audit(Victim(net()), images(), LABELS)
    assert "\n" not in str(refused.value)


def test_batch_norm_of_vectors_without_statistics_is_refused_in_one_line():
    """It cannot even take one image alone: PyTorch's own error is a ValueError of another kind."""
    with pytest.raises(InputError) as refused:
        audit(Victim(flat_norm_without_statistics()), images(), LABELS)
    assert "\n" not in str(refused.value)


def test_a_network_that_is_finite_only_once_is_refused():
    nan_by_chance.passes = 0
    with pytest.raises(InputError, match="two passes"):
        audit(Victim(After(nan_by_chance)), images(), LABELS)


def test_a_network_whose_gradient_is_never_finite_is_refused():
    """sqrt(0) adds nothing to the logits, and NaN to each gradient."""
    net = After(lambda z, x: z + torch.arange(10.0) * (0 * x).sum((1, 2, 3))[:, None].sqrt())
    with pytest.raises(InputError, match="gradient"):
        audit(Victim(net), images(), LABELS)


def test_logits_are_not_taken_for_probabilities():
    with pytest.raises(InputError, match="do not sum to 1; leave it out for logits"):
        audit(Victim(small_cnn(), outputs="probabilities"), images(), LABELS)
    softmax = Victim(nn.Sequential(small_cnn(), nn.Softmax(1)), outputs="probabilities")
    assert audit(softmax, images(), LABELS).remarks == ()


def test_some_images_that_are_not_finite_are_remarked_on():
    seen = audit(Victim(After(nan_where_dark)), images(), LABELS)
    dark = int((images()[:, 0, 0, 0] < 0.5).sum())
    assert 0 < dark < 20
    assert seen.unsound == dark
    assert seen.remarks == (f"{dark} of 20 samples have logits that are not finite: quarantined",)
    assert seen.dead_gradients == 0


def test_some_images_without_gradient_are_remarked_on():
    net = After(lambda z, x: torch.where(x[:, :1, 0, 0] < 0.5, z.detach(), z))
    seen = audit(Victim(net), images(), LABELS)
    dark = int((images()[:, 0, 0, 0] < 0.5).sum())
    assert seen.dead_gradients == dark
    assert seen.remarks == (f"{dark} of 20 samples have no gradient: attacks by gradient may fail on them",)


def test_labels_out_of_range_are_refused_wherever_they_stand():
    x, y = images().repeat(3, 1, 1, 1), LABELS.repeat(3)
    for bad in (10, -1):
        labels = y.clone()
        labels[-1] = bad  # beyond the samples that are looked at
        with pytest.raises(InputError, match="10 classes; give labels 0 to 9"):
            audit(Victim(small_cnn()), x, labels)


def test_a_colour_network_is_shown_gray_images_three_times():
    torch.manual_seed(0)
    color = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 10))
    victim = Victim(color)
    seen = audit(victim, images(), LABELS)
    assert (seen.channels, victim.channels) == (3, 3)
    assert len(seen.remarks) == 1
    assert "three channels" in seen.remarks[0]


def test_images_of_the_wrong_size_are_told_as_they_are():
    """That three channels fail too is not what a reader wants to hear."""
    victim = Victim(small_cnn())
    with pytest.raises(InputError, match=r"cannot take images of \(1, 20, 20\)"):
        audit(victim, torch.rand(4, 1, 20, 20), LABELS[:4])
    assert victim.channels is None


def test_probabilities_in_half_precision_are_seen_too():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Softmax(1)).to(torch.bfloat16)
    x = torch.rand(8, 1, 8, 8)
    with pytest.raises(InputError, match="probabilities"):
        audit(Victim(network), x, torch.zeros(8, dtype=torch.int64))
