"""What must hold on a GPU as on the processor: the same numbers to rounding, and twice the same to the last bit.

On a CUDA device where there is one. NEUROPRIOR_TEST_DEVICE=cpu runs them on the processor, which tries the tests
themselves; with NEUROPRIOR_TEST_DEVICE=cuda a missing device fails instead of skipping.
"""

import copy
import os

import numpy as np
import pytest
import torch
from torch import nn

from neuroprior import SimilarityRegularizer
from neuroprior.classifier import (
    Checkpoint,
    Classification,
    JointStep,
    LabelledImages,
    ResNet,
    TrainingSettings,
    as_written,
    train,
)
from neuroprior.classifier.augmentation import Augmentation
from neuroprior.recordings import load_stimuli
from neuroprior.regularizer.drawn import on_device
from neuroprior.robustness import draw_noise, noise_accuracy
from neuroprior.similarity import centered_cosine
from neuroprior.twin import load_twin, predict_population
from neuroprior.types import Stimuli

CHECKPOINT = "twins/sensorium2022_26872-17-20_sota.pth"
STIMULI = "stimuli/tiny_imagenet_36x64.npz"
FEW = {"stimuli_per_step": 8, "pairs": "all"}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def device() -> torch.device:
    asked = os.environ.get("NEUROPRIOR_TEST_DEVICE", "")
    if asked == "cpu":
        return CPU
    if torch.cuda.is_available():
        return torch.device("cuda")
    if asked == "cuda":
        pytest.fail("NEUROPRIOR_TEST_DEVICE is cuda, but torch sees no CUDA device")
    pytest.skip("no CUDA device (NEUROPRIOR_TEST_DEVICE=cpu runs these tests on the processor)")


@pytest.fixture(autouse=True)
def _exact():
    """Full float32, and the same algorithm each time: torch's own default is TF32 in convolutions, 10 bits."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = False, False, True, False
    yield
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = before


def smooth_network() -> nn.Sequential:
    """A network whose gradient is continuous: a ReLU's would jump where rounding moves a sum across 0."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, bias=False), nn.BatchNorm2d(8), nn.ELU(),
        nn.Conv2d(8, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ELU(),
    )  # fmt: skip


def resnet(classes: int = 10) -> ResNet:
    torch.manual_seed(0)
    return ResNet(width=4, classes=classes)


def bars(n: int = 160) -> LabelledImages:
    """Two classes that a small network tells apart: horizontal and vertical gratings in noise."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, n)
    wave = 60 * np.sin(np.arange(16) * 1.6 + rng.random((n, 1)) * 6)
    clean = np.where(labels[:, None, None] == 0, wave[:, :, None], wave[:, None, :])
    pixels = np.clip(128 + clean + 30 * rng.standard_normal((n, 16, 16)), 0, 255).astype(np.uint8)
    return LabelledImages(pixels[:, None], labels, ("horizontal", "vertical"))


def floats(stimuli: Stimuli) -> torch.Tensor:
    return torch.from_numpy(stimuli.pixels.copy())[:, None].float() / 255


def loss_and_gradients(where, target, stimuli, autocast: bool = False, **options) -> tuple[float, torch.Tensor]:
    network = smooth_network().to(where)
    reg = SimilarityRegularizer(network, target, stimuli, taps=["2", "5"], **FEW, **options)
    with torch.autocast(where.type, torch.bfloat16, enabled=autocast):
        loss = reg()
    loss.backward()
    gradients = [p.grad.flatten().cpu() for p in (*network.parameters(), *reg.parameters())]
    return float(loss.detach()), torch.cat(gradients)


# Two convolutions and a similarity, each a sum of at most 15,360 products: float32 loses about sqrt(15,360) 2^-24, or
# 1e-5, whatever the order of summing. Ten times that is allowed. TF32 would lose 2^-11 a product, bfloat16 2^-9.
ROUNDING = 1e-4


@pytest.mark.parametrize("mean", ["lineage", "batch", "dataset"])
@pytest.mark.parametrize("scale", ["printed", "lineage"])
def test_the_regularisers_loss_and_gradients_are_the_processors(device, target, stimuli, mean, scale):
    expected, slope = loss_and_gradients(CPU, target, stimuli, mean=mean, scale=scale)
    found, found_slope = loss_and_gradients(device, target, stimuli, mean=mean, scale=scale)
    assert found == pytest.approx(expected, rel=ROUNDING)
    assert float((found_slope - slope).norm() / slope.norm()) < ROUNDING


def test_that_bound_is_one_that_short_floats_miss(device, target, stimuli):
    _, slope = loss_and_gradients(CPU, target, stimuli)
    _, rough = loss_and_gradients(device, target, stimuli, autocast=True)
    assert float((rough - slope).norm() / slope.norm()) > 10 * ROUNDING


def test_a_resnet_finds_images_alike_as_on_the_processor(device, target, stimuli):
    similarity = {}
    for where in (CPU, device):
        network = resnet().to(where, memory_format=torch.channels_last)
        reg = SimilarityRegularizer(network, target, stimuli, **FEW)
        similarity[where] = reg.similarity(floats(stimuli).to(where))
        assert similarity[where].device.type == where.type
    assert (similarity[device].cpu() - similarity[CPU]).abs().max() < 1e-5


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_same_training_twice_is_the_same_to_the_last_bit(device, target, stimuli, precision):
    settings = TrainingSettings(epochs=2, batch_size=32, augmentation="crop_flip", validation_fraction=0.2)

    def run(seed: int):
        network = resnet(classes=2).to(device, memory_format=torch.channels_last)
        reg = SimilarityRegularizer(network, target, stimuli, **FEW, seed=seed)
        history = train(network, bars(), settings, seed=seed, regularizer=reg, precision=precision)
        return history, network.state_dict(), reg.theta.detach()

    history, weights, theta = run(1)
    again, weights_again, theta_again = run(1)
    assert history == again
    assert all(torch.equal(value, weights_again[name]) for name, value in weights.items())
    assert torch.equal(theta, theta_again)
    assert all(value.device.type == device.type for value in weights.values())
    other, _, _ = run(2)
    assert history != other


def test_a_replayed_training_is_one_as_written_to_the_last_bit(device, target, stimuli):
    settings = TrainingSettings(epochs=2, batch_size=32, validation_fraction=0.2)

    def run(tape):
        network = resnet(classes=2).to(device, memory_format=torch.channels_last)
        reg = SimilarityRegularizer(network, target, stimuli, **FEW, every=2)
        return train(network, bars(), settings, seed=0, regularizer=reg, tape=tape), network.state_dict()

    history, weights = run(None if device.type == "cuda" else as_written)
    expected, expected_weights = run(as_written)
    assert history == expected
    assert all(torch.equal(value, expected_weights[name]) for name, value in weights.items())


def test_nothing_in_a_step_waits_for_the_device(device, target, stimuli):
    if device.type != "cuda":
        pytest.skip("the processor waits for itself")
    network = resnet(classes=2).to(device, memory_format=torch.channels_last)
    reg = SimilarityRegularizer(network, target, stimuli, **FEW)
    images = bars()
    augment = Augmentation(torch.from_numpy(images.pixels).to(device), "crop_flip")
    step = JointStep(network, Classification(32), augment, torch.from_numpy(images.labels).to(device), reg)
    random = torch.Generator().manual_seed(0)
    for checked in (False, True):  # the first one sets libraries up
        drawn = step.draw(torch.arange(32), random, random, slice(None))
        torch.cuda.set_sync_debug_mode("error" if checked else "default")
        try:
            sum(step.losses(on_device(drawn, device))).backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_a_training_that_was_stopped_goes_on_to_the_last_bit(device, target, stimuli, tmp_path):
    settings = TrainingSettings(epochs=2, batch_size=32, augmentation="crop_flip", validation_fraction=0.2)

    class Stopped(Exception):
        pass

    class StopsAt(Checkpoint):
        left = 3

        def save(self, state):
            super().save(state)
            self.left -= 1
            if not self.left:
                raise Stopped

    def run(checkpoint=None):
        network = resnet(classes=2).to(device, memory_format=torch.channels_last)
        reg = SimilarityRegularizer(network, target, stimuli, **FEW, seed=1)
        history = train(network, bars(), settings, seed=1, regularizer=reg, checkpoint=checkpoint)
        return history, {**network.state_dict(), "theta": reg.theta.detach()}

    history, weights = run()
    with pytest.raises(Stopped):
        run(StopsAt(tmp_path / "checkpoint", 0.0))
    again, weights_again = run(Checkpoint(tmp_path / "checkpoint", 0.0))
    assert history == again
    assert all(torch.equal(value, weights_again[name]) for name, value in weights.items())


def test_autocast_shortens_the_features_and_not_the_similarity(device, target, stimuli):
    network = resnet().to(device)
    reg = SimilarityRegularizer(network, target, stimuli, **FEW)
    images = floats(stimuli).to(device)
    with torch.autocast(device.type, torch.bfloat16):
        assert {f.dtype for f in reg.taps.features(network, images[:4])} == {torch.bfloat16}
        assert {s.dtype for s in reg.layer_similarities(images[:4])} == {torch.float32}
        task = nn.functional.cross_entropy(network(images[:4]), torch.arange(4, device=device))
        similarity = reg()
    assert similarity.dtype == torch.float32
    (task + similarity).backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in (*network.parameters(), *reg.parameters()))


def test_noise_curves_differ_by_borderline_images_at_most(device):
    network, shown, sigmas, seed = resnet(classes=2), bars(300), [0.0, 0.1, 0.3, 1.0], 3
    train(network, shown, TrainingSettings(epochs=3, batch_size=32, learning_rate=0.05), seed=0)
    images, labels = torch.from_numpy(shown.pixels).float() / 255, torch.from_numpy(shown.labels)
    expected = noise_accuracy(network, images, labels, sigmas, seed=seed).accuracy
    found = noise_accuracy(copy.deepcopy(network).to(device), images, labels, sigmas, seed=seed).accuracy
    noise = draw_noise(images, seed)
    for sigma, a, b in zip(sigmas, expected, found, strict=True):
        with torch.no_grad():
            logits = network.eval()(images + sigma * noise)
        borderline = int(((logits[:, 0] - logits[:, 1]).abs() < ROUNDING * logits.abs().max()).sum())
        assert borderline < 10  # of 300: else this would say nothing
        assert abs(a - b) * 300 <= borderline + 1e-9
    assert expected[0] > expected[-1] + 0.1


def test_a_regularisers_state_goes_on_where_it_stopped(device, target, stimuli, tmp_path):
    network = resnet().to(device).eval()

    def regularizer(seed: int) -> SimilarityRegularizer:
        return SimilarityRegularizer(network, target, stimuli, **FEW, seed=seed)

    def losses(reg: SimilarityRegularizer, n: int) -> list[float]:
        return [float(reg().detach()) for _ in range(n)]

    straight = losses(regularizer(3), 6)
    first = regularizer(3)
    head = losses(first, 3)
    torch.save(first.state_dict(), tmp_path / "reg.pt")
    for read_to in (CPU, device):
        second = regularizer(99)
        second.load_state_dict(torch.load(tmp_path / "reg.pt", map_location=read_to, weights_only=True))
        assert head + losses(second, 3) == straight
    assert losses(regularizer(4), 3) != head


def test_similarity_of_responses_is_numpys(device):
    responses = np.random.default_rng(0).gamma(1.0, size=(120, 3000)).astype(np.float32)
    expected = centered_cosine(responses)
    found = centered_cosine(torch.from_numpy(responses).to(device))
    assert found.device.type == device.type
    assert np.abs(found.cpu().numpy() - expected).max() < 1e-5


def test_the_real_twin_says_what_it_says_on_the_processor(device, data):
    twin = load_twin(data(CHECKPOINT))
    stimuli = load_stimuli(data(STIMULI), tier="oracle")
    few = stimuli.select(stimuli.ids[:24])
    expected = predict_population(twin, few).mean
    pixels = torch.from_numpy(few.pixels.astype(np.float32))
    images = ((pixels - pixels.mean()) / pixels.std(correction=0))[:, None]
    model = copy.deepcopy(twin.model).to(device)
    n = len(few)
    with torch.inference_mode():
        found = model(images.to(device), torch.zeros(n, 0, device=device), torch.zeros(n, 2, device=device))
        similarity = centered_cosine(found)
    assert np.abs(found.cpu().numpy() - expected).max() < 1e-4 * expected.max()
    assert np.abs(similarity.cpu().numpy() - centered_cosine(expected)).max() < 1e-5
