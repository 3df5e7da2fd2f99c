"""The borrowed network: given back as it was, asked as it wants to be, and counted."""

import pytest
import torch
from torch import nn

from neuroprior.robustness.victim import Victim, margin
from neuroprior.types import InputError
from robustness.networks import small_cnn


def images(n: int = 10, seed: int = 0, channels: int = 1) -> torch.Tensor:
    return torch.rand(n, channels, 16, 16, generator=torch.Generator().manual_seed(seed))


LABELS = torch.arange(10)


class Scaled(nn.Module):
    """A network that takes pixels of [0, 255]."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x / 255)


def test_the_network_is_given_back_as_it_was():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 14 * 14, 3))
    net.train()
    net[1].eval()
    net[0].bias.requires_grad_(False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    asked = [parameter.requires_grad for parameter in net.parameters()]
    victim = Victim(net)
    with pytest.raises(KeyError), victim.borrowed():  # noqa: PT012
        assert not any(module.training for module in net.modules())
        assert not any(parameter.requires_grad for parameter in net.parameters())
        victim.logits(images())
        _, gradient = victim.ascent(images(), LABELS % 3, margin)
        assert (gradient != 0).any()
        raise KeyError
    assert [module.training for module in net] == [True, False, True, True, True]
    assert [parameter.requires_grad for parameter in net.parameters()] == asked
    assert all(parameter.grad is None for parameter in net.parameters())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_the_gradient_is_of_each_image_alone_and_no_other_is_touched():
    net, x = small_cnn(), images().requires_grad_(True)
    logits, gradient = Victim(net).ascent(x.detach(), LABELS, margin)
    (whole,) = torch.autograd.grad(margin(net(x), LABELS).sum(), x)
    assert torch.allclose(gradient, whole, atol=1e-6)
    assert torch.allclose(logits, net(x), atol=1e-5)
    assert x.grad is None
    assert all(parameter.grad is None for parameter in net.parameters())


def test_gradients_are_taken_even_where_they_are_switched_off():
    victim = Victim(small_cnn())
    with torch.no_grad():
        _, gradient = victim.ascent(images(), LABELS, margin)
    assert (gradient.flatten(1).abs().amax(1) > 0).all()


@pytest.mark.parametrize("batch_size", [1, 3, 8, 64])
def test_images_are_counted_and_fillers_are_not(batch_size):
    net = small_cnn()
    victim, whole = Victim(net, batch_size=batch_size), Victim(net)
    logits = victim.logits(images())
    assert (victim.forwards, victim.gradients) == (10, 0)
    also, gradient = victim.ascent(images(), LABELS, margin)
    assert (victim.forwards, victim.gradients) == (20, 10)
    assert logits.shape == also.shape == (10, 10)
    assert torch.allclose(logits, whole.logits(images()), atol=1e-5)
    assert torch.allclose(gradient, whole.ascent(images(), LABELS, margin)[1], atol=1e-5)


def test_fillers_change_no_rows_answer():
    """A row is answered the same alone and in company, and at each place."""
    victim = Victim(small_cnn())
    together = victim.logits(images(16))
    for row in (0, 7, 15):
        assert torch.allclose(victim.logits(images(16)[row : row + 1])[0], together[row], atol=1e-6)
    sizes = []
    net = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
    net.register_forward_hook(lambda module, given, answer: sizes.append(len(given[0])))
    counted = Victim(net, batch_size=20)
    counted.logits(images(29))
    counted.logits(images(29), batch_size=3)
    assert sizes[:2] == [20, 16]  # 20, the most there may be; 9, filled up to a multiple of eight
    assert sizes[2:] == [3] * 9 + [2]  # exactly so many at a time
    assert counted.forwards == 58


def test_probabilities_are_attacked_by_their_logarithm():
    net = small_cnn()
    logits = Victim(net)
    probabilities = Victim(nn.Sequential(net, nn.Softmax(1)), outputs="probabilities")
    answers = probabilities.logits(images())
    assert torch.equal(answers.argmax(1), logits.logits(images()).argmax(1))
    assert torch.allclose(answers, logits.logits(images()).log_softmax(1), atol=1e-5)

    def cross_entropy(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.nll_loss(z.log_softmax(1), y, reduction="none")

    for loss in (margin, cross_entropy):
        _, expected = logits.ascent(images(), LABELS, loss)
        assert torch.allclose(probabilities.ascent(images(), LABELS, loss)[1], expected, atol=1e-5)


def test_probabilities_of_exactly_zero_stay_finite():
    victim = Victim(nn.Sequential(small_cnn(), Times(1e4), nn.Softmax(1)), outputs="probabilities")
    logits, gradient = victim.ascent(images(), LABELS, margin)
    assert logits.isfinite().all()
    assert gradient.isfinite().all()


class Times(nn.Module):
    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x


def test_bounds_are_the_networks_own_and_gradients_are_of_the_unit_range():
    net = small_cnn()
    plain, scaled = Victim(net), Victim(Scaled(net), bounds=(0.0, 255.0))
    assert torch.allclose(scaled.logits(images()), plain.logits(images()), atol=1e-5)
    _, expected = plain.ascent(images(), LABELS, margin)
    assert torch.allclose(scaled.ascent(images(), LABELS, margin)[1], expected, atol=1e-5)
    mended = Victim(net, bounds=(-1.0, 1.0), preprocess=lambda x: (x + 1) / 2)  # bounds first, then preprocess
    assert torch.allclose(mended.logits(images()), plain.logits(images()), atol=1e-5)


def test_gray_images_are_shown_three_times_and_distances_are_the_gray_images():
    torch.manual_seed(0)
    color = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 10))
    victim = Victim(color, channels=3)
    shown = images().expand(-1, 3, -1, -1)
    assert torch.allclose(victim.logits(images()), Victim(color).logits(shown), atol=1e-6)
    _, gradient = victim.ascent(images(), LABELS, margin)
    _, each = Victim(color).ascent(shown, LABELS, margin)
    assert gradient.shape == images().shape
    assert torch.allclose(gradient, each.sum(1, keepdim=True), atol=1e-6)


def test_a_network_in_half_precision_answers_in_float32():
    victim = Victim(small_cnn().to(torch.bfloat16))
    logits, gradient = victim.ascent(images(), LABELS, margin)
    assert logits.dtype == gradient.dtype == torch.float32


def test_a_network_without_a_way_back_has_no_gradient():
    class Detached(nn.Module):
        def forward(self, x):
            return x.detach().flatten(1)[:, :10]

    _, gradient = Victim(Detached()).ascent(images(), LABELS, margin)
    assert gradient.shape == images().shape
    assert (gradient == 0).all()


def test_the_margin_is_positive_where_the_network_is_wrong():
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, -1.0], [1.0, 1.0, 0.0]])
    assert margin(logits, torch.tensor([0, 2, 1])).tolist() == [-1.0, 6.0, 0.0]


class Answering(nn.Module):
    """A network that gives the wrong thing."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def forward(self, x: torch.Tensor):
        z = x.flatten(1)[:, :10]
        return {"tuple": (z, z), "vector": z[:, 0], "one class": z[:, :1], "one image": z[:1], "map": z[:, :, None]}[
            self.kind
        ]


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("tuple", "gives a tuple, not a tensor of logits; wrap it"),
        ("vector", r"gives \(16,\) for 16 images; it must give \(image, class\)"),
        ("one class", r"gives \(16, 1\)"),
        ("one image", r"gives \(1, 10\) for 16 images"),
        ("map", r"gives \(16, 10, 1\)"),
    ],
)
def test_what_is_no_classifier_is_told_in_one_line(shapes_unchecked, kind, says):
    with pytest.raises(InputError, match=says) as refused:
        Victim(Answering(kind)).logits(images())
    assert "\n" not in str(refused.value)


def test_images_that_do_not_fit_are_told_in_one_line():
    with pytest.raises(InputError, match=r"cannot take images of \(3, 16, 16\)") as refused:
        Victim(small_cnn()).logits(images(channels=3))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "settings", [{"bounds": (1.0, 0.0)}, {"batch_size": 0}, {"outputs": "odds"}, {"bounds": (0.0, float("nan"))}]
)
def test_settings_that_make_no_sense_are_refused(shapes_unchecked, settings):
    with pytest.raises(InputError, match=r"^victim: .*; give bounds \(low, high\)"):
        Victim(small_cnn(), **settings)


def test_a_module_before_the_network_is_borrowed_with_it():
    before = nn.BatchNorm2d(1)
    before.train()
    mean = before.running_mean.clone()
    victim = Victim(small_cnn(), preprocess=before)
    with victim.borrowed():
        victim.logits(images() + 1)
        assert not before.training
        assert not before.weight.requires_grad
    assert before.training
    assert before.weight.requires_grad
    assert torch.equal(before.running_mean, mean)


def test_inside_inference_mode_there_is_a_gradient_all_the_same():
    victim = Victim(small_cnn())
    _, expected = victim.ascent(images(), LABELS, margin)
    with torch.inference_mode():
        _, gradient = victim.ascent(images(), LABELS, margin)
    assert torch.equal(gradient, expected)
