"""What a core is worth on other data: the features are the head's, and both classifiers are what they claim to be."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from neuroprior.classifier.datasets import load_packaged_digits
from neuroprior.classifier.episodes import episode_rows
from neuroprior.classifier.resnet import ResNet
from neuroprior.classifier.transfer import FewShot, core_features, few_shot_accuracy, linear_probe_accuracy
from neuroprior.types import InputError

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 1, 16, 20)).astype(np.uint8)
PIXELS = torch.from_numpy(IMAGES) / 255


def resnet() -> ResNet:
    """A network whose batch norm has seen something, left in training mode."""
    torch.manual_seed(0)
    network = ResNet(width=3, classes=4)
    network(torch.rand(32, 1, 16, 20))
    return network


def blobs(classes: int, each: int, *, spread: float, width: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian classes around random centres of unit variance."""
    rng = np.random.default_rng(seed)
    labels = np.arange(classes).repeat(each)
    centres = rng.standard_normal((classes, width))
    return (centres[labels] + spread * rng.standard_normal((classes * each, width))).astype(np.float32), labels


# Features


@pytest.mark.parametrize("batch_size", [1, 3, 500])
def test_features_are_what_the_head_sees(batch_size):
    network = resnet()
    features = torch.from_numpy(core_features(network, IMAGES, batch_size=batch_size))
    assert features.shape == (7, 24)
    with torch.no_grad():
        assert torch.allclose(network.head(features), network.eval()(PIXELS), atol=1e-5)


def test_the_network_stays_as_it_was():
    network = resnet()
    network.stage1.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    core_features(network, IMAGES)
    assert network.training
    assert network.stage2.training
    assert not network.stage1.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_layer_by_name():
    network = resnet()
    with torch.no_grad():
        logits = network.eval()(PIXELS)
        stage = network.stage2(network.stage1(network.stem(network.scaling(PIXELS))))
    assert np.allclose(core_features(network, IMAGES, layer="head"), logits, atol=1e-5)
    assert np.allclose(core_features(network, IMAGES, layer="stage2"), stage.mean(dim=(2, 3)), atol=1e-5)
    assert np.array_equal(core_features(network, IMAGES, layer="stage4"), core_features(network, IMAGES))
    with pytest.raises(InputError, match="did you mean 'stage4'"):
        core_features(network, IMAGES, layer="stage5")
    with pytest.raises(InputError, match="0 images"):
        core_features(network, IMAGES[:0])


def test_other_networks():
    torch.manual_seed(0)
    cnn = nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
    cnn(PIXELS)
    with torch.no_grad():
        assert np.allclose(core_features(cnn, IMAGES), cnn[1](cnn[0](PIXELS)).mean(dim=(2, 3)), atol=1e-6)
    assert core_features(cnn.bfloat16(), IMAGES).dtype == np.float32
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(320, 6), nn.Linear(6, 2))
    assert core_features(mlp, IMAGES, layer="1").shape == (7, 6)
    with pytest.raises(InputError, match=r"name it: layer="):
        core_features(mlp, IMAGES)
    tokens = nn.Sequential(nn.Flatten(2), nn.Flatten())
    with pytest.raises(InputError, match=r"output of '0' is \(7, 1, 320\)"):
        core_features(tokens, IMAGES, layer="0")


# Few shots


def slow_few_shot(features, labels, *, ways, shots, queries, episodes, seed, base_mean=None) -> tuple[float, float]:
    """An episode, a class and a query at a time."""
    mean = np.mean(features, axis=0, dtype=float) if base_mean is None else base_mean
    z = [(f - mean) / math.sqrt(sum((f - mean) ** 2)) for f in features.astype(float)]
    random = torch.Generator().manual_seed(seed)
    accuracy = []
    for _ in range(episodes):
        rows = episode_rows(torch.from_numpy(labels), ways=ways, shots=shots, queries=queries, random=random).tolist()
        by_class = [rows[k * (shots + queries) : (k + 1) * (shots + queries)] for k in range(ways)]
        prototypes = [sum(z[i] for i in of_class[:shots]) / shots for of_class in by_class]
        right = 0
        for k, of_class in enumerate(by_class):
            for i in of_class[shots:]:
                right += int(np.argmin([np.linalg.norm(z[i] - p) for p in prototypes])) == k
        accuracy.append(right / (ways * queries))
    return float(np.mean(accuracy)), float(np.std(accuracy, ddof=1) / math.sqrt(episodes))


@pytest.mark.parametrize("base_mean", [None, np.full(8, 0.5, dtype=np.float32)])
def test_few_shot_is_the_slow_one(base_mean):
    features, labels = blobs(7, 12, spread=1.5)
    sizes = {"ways": 4, "shots": 2, "queries": 5, "episodes": 60, "seed": 3}
    got = few_shot_accuracy(features, labels, base_mean=base_mean, **sizes)
    accuracy, error = slow_few_shot(features, labels, base_mean=base_mean, **sizes)
    assert (got.accuracy, got.standard_error) == (pytest.approx(accuracy), pytest.approx(error))
    assert (got.n_episodes, got.ways, got.shots) == (60, 4, 2)
    assert 0.3 < accuracy < 0.9


def test_separated_points_are_all_right():
    features, labels = blobs(6, 20, spread=1e-4)
    assert few_shot_accuracy(features, labels, episodes=50) == FewShot(1.0, 0.0, 50, 5, 1)


@pytest.mark.parametrize("shots", [1, 5])
def test_classes_that_are_alike_are_told_apart_by_chance(shots):
    """The contrapositive: what one class has of its own is seen."""
    features = np.random.default_rng(0).standard_normal((20 * 300, 6)).astype(np.float32)
    labels = np.arange(20).repeat(300)
    got = few_shot_accuracy(features, labels, shots=shots, episodes=300)
    assert abs(got.accuracy - 0.2) < 4 * got.standard_error
    features[:, 0] += labels % 2
    got = few_shot_accuracy(features, labels, shots=shots, episodes=300)
    assert got.accuracy > 0.2 + 4 * got.standard_error


def test_a_dead_network_is_worth_chance():
    features = np.full((6 * 20, 512), 0.1, dtype=np.float32)
    assert few_shot_accuracy(features, np.arange(6).repeat(20), episodes=10) == FewShot(0.2, 0.0, 10, 5, 1)


def test_rotation_scale_and_origin_do_not_matter_and_one_axis_does():
    features, labels = blobs(8, 20, spread=1.5)
    features = features.astype(np.float64)
    base_mean = np.linspace(-1.0, 1.0, 8)
    rotation, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((8, 8)))
    stretched = features * np.array([30.0, *[1.0] * 7])
    for mean in (None, base_mean):
        moved_mean = None if mean is None else 7 * mean @ rotation + 2
        got = few_shot_accuracy(features, labels, episodes=100, base_mean=mean)
        assert few_shot_accuracy(7 * features @ rotation + 2, labels, episodes=100, base_mean=moved_mean) == got
        assert (
            few_shot_accuracy(stretched, labels, episodes=100, base_mean=mean).accuracy
            < got.accuracy - 3 * got.standard_error
        )
    far = np.full(8, 100.0)
    assert few_shot_accuracy(features, labels, episodes=100, base_mean=far) != got


def test_more_shots_are_better():
    features, labels = blobs(10, 60, spread=1.5)
    got = [few_shot_accuracy(features, labels, shots=shots, episodes=200) for shots in (1, 3, 10, 30)]
    for fewer, more in pairwise(got):
        assert more.accuracy - fewer.accuracy > 3 * math.hypot(more.standard_error, fewer.standard_error)


def test_same_seed_same_episodes_for_all_networks():
    """Two networks on the same episodes differ by less than on episodes of their own."""
    features, labels = blobs(10, 40, spread=1.0)
    other = features + 0.05 * np.random.default_rng(5).standard_normal(features.shape).astype(np.float32)
    assert few_shot_accuracy(features, labels, seed=1) == few_shot_accuracy(features, labels, seed=1)
    assert few_shot_accuracy(features, labels, seed=1) != few_shot_accuracy(features, labels, seed=2)
    paired = [
        few_shot_accuracy(features, labels, seed=s, episodes=20).accuracy
        - few_shot_accuracy(other, labels, seed=s, episodes=20).accuracy
        for s in range(20)
    ]
    unpaired = [
        few_shot_accuracy(features, labels, seed=s, episodes=20).accuracy
        - few_shot_accuracy(other, labels, seed=s + 100, episodes=20).accuracy
        for s in range(20)
    ]
    assert np.std(paired) < np.std(unpaired) / 2


def test_handwritten_digits():
    """The pixels of one image a digit tell five digits apart far better than chance, five images better still."""
    _, digits = load_packaged_digits()
    pixels = (digits.pixels.reshape(len(digits), -1) / 255).astype(np.float32)
    one, five = (few_shot_accuracy(pixels, digits.labels, shots=shots, episodes=200) for shots in (1, 5))
    assert 0.5 < one.accuracy < 0.7 < five.accuracy < 0.85
    shuffled = np.random.default_rng(0).permutation(digits.labels)
    chance = few_shot_accuracy(pixels, shuffled, episodes=200)
    assert abs(chance.accuracy - 0.2) < 4 * chance.standard_error


def test_few_shot_errors(shapes_unchecked):
    features, labels = blobs(5, 20, spread=1.0)
    with pytest.raises(InputError, match="5 classes for 6 ways"):
        few_shot_accuracy(features, labels, ways=6)
    with pytest.raises(InputError, match=r"class 4 has 15 images for 1 shots \+ 15 queries"):
        few_shot_accuracy(features[:-5], labels[:-5])
    with pytest.raises(InputError, match="episodes is 1"):
        few_shot_accuracy(features, labels, episodes=1)
    with pytest.raises(InputError, match=r"base_mean is \(3,\)"):
        few_shot_accuracy(features, labels, base_mean=np.zeros(3, dtype=np.float32))
    with pytest.raises(InputError, match=r"features are \(100, 8\), labels \(99,\)"):
        few_shot_accuracy(features, labels[1:])
    features[33, 2] = np.nan
    with pytest.raises(InputError, match=r"1 images have features that are not finite \(first: row 33\)"):
        few_shot_accuracy(features, labels)


# The linear probe


def halves(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    return features[::2], labels[::2], features[1::2], labels[1::2]


def test_probe_of_separated_and_of_meaningless_features():
    features, labels = blobs(5, 40, spread=0.05)
    assert linear_probe_accuracy(*halves(features, labels)) == 1.0
    shuffled = np.random.default_rng(0).permutation(np.arange(4).repeat(500))
    noise = np.random.default_rng(1).standard_normal((2000, 3)).astype(np.float32)
    assert abs(linear_probe_accuracy(*halves(noise, shuffled)) - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 1000)


def test_probe_reaches_the_bayes_rate():
    """Two classes at -1 and 1 along one axis, unit noise: the best that can be is Phi(1) = 0.8413."""
    labels = np.arange(2).repeat(10_000)
    features = np.random.default_rng(2).standard_normal((20_000, 4)).astype(np.float32)
    features[:, 1] += 2 * labels - 1
    accuracy = linear_probe_accuracy(*halves(features, labels))
    assert abs(accuracy - 0.8413) < 4 * math.sqrt(0.8413 * 0.1587 / 10_000)


def test_probe_ignores_units_names_and_constant_features():
    features, labels = blobs(5, 60, spread=1.5)
    accuracy = linear_probe_accuracy(*halves(features, labels))
    assert 0.4 < accuracy < 1
    units = np.logspace(-3, 3, 8).astype(np.float32)
    assert linear_probe_accuracy(*halves(features * units + 5 * units, labels)) == accuracy
    assert linear_probe_accuracy(*halves(features, np.array([30, 2, -1, 8, 5])[labels])) == accuracy
    constant = np.full((300, 2), 0.1, dtype=np.float32)
    constant[1::2] = 0.7  # differs between the halves alone
    assert linear_probe_accuracy(*halves(np.hstack([features, constant]), labels)) == accuracy
    assert linear_probe_accuracy(*halves(features[:, :2], labels)) < accuracy


def test_probe_is_scikit_learns():
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels = blobs(6, 100, spread=2.0)
    train, y, test, y_test = halves(features, labels)
    mean, spread = train.mean(axis=0, dtype=float), train.std(axis=0, dtype=float)
    for l2 in (1e-4, 1e-2, 1.0):
        theirs = linear_model.LogisticRegression(C=1 / (l2 * len(train)), tol=1e-8, max_iter=2000)
        theirs.fit((train - mean) / spread, y)
        assert linear_probe_accuracy(train, y, test, y_test, l2=[l2]) == theirs.score((test - mean) / spread, y_test)


def test_probe_chooses_the_strength():
    """Few images, many features: one strength is too weak and one so strong that only the means are left."""
    features, labels = blobs(3, 40, spread=3.0, width=60)
    parts = halves(features, labels)
    strengths = (1e-6, 1.0, 1e6)
    alone = {strength: linear_probe_accuracy(*parts, l2=[strength]) for strength in strengths}
    chosen = linear_probe_accuracy(*parts, l2=strengths)
    assert chosen == linear_probe_accuracy(*parts, l2=strengths[::-1])
    assert chosen == alone[1.0]
    assert alone[1.0] > alone[1e-6]


def test_probe_errors(shapes_unchecked):
    features, labels = blobs(3, 20, spread=1.0)
    with pytest.raises(InputError, match="test label 2 is not among them; train on images of each"):
        linear_probe_accuracy(features[:40], labels[:40], features, labels)
    with pytest.raises(InputError, match="1 classes in the training part; train"):
        linear_probe_accuracy(features[:20], labels[:20], features[:20], labels[:20])
    with pytest.raises(InputError, match=r"l2 is \[0\]"):
        linear_probe_accuracy(features, labels, features, labels, l2=[0])
    wrong = features.copy()
    wrong[7] = np.inf
    with pytest.raises(InputError, match=r"test part: 1 images .* \(first: row 7\)"):
        linear_probe_accuracy(features, labels, wrong, labels)
