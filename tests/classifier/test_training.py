"""Joint training: the schedule, the draws, the best epoch, and the same numbers from the same seed."""

import json

import numpy as np
import pytest
import torch

from neuroprior import SimilarityRegularizer
from neuroprior.classifier import JsonLines, LabelledImages, ResNet, TrainingSettings, evaluate, learning_rate, train
from neuroprior.classifier.augmentation import Augmentation
from neuroprior.types import InputError


@pytest.fixture(scope="module")
def bars() -> LabelledImages:
    """Two classes that a small network tells apart: horizontal and vertical gratings in noise."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    wave = 60 * np.sin(np.arange(16) * 1.6 + rng.random((400, 1)) * 6)
    clean = np.where(labels[:, None, None] == 0, wave[:, :, None], wave[:, None, :])
    pixels = np.clip(128 + clean + 30 * rng.standard_normal((400, 16, 16)), 0, 255).astype(np.uint8)
    return LabelledImages(pixels[:, None], labels, ("horizontal", "vertical"))


SETTINGS = TrainingSettings(epochs=3, batch_size=32, augmentation="crop", validation_fraction=0.2, learning_rate=0.05)


def network() -> ResNet:
    torch.manual_seed(0)
    return ResNet(width=4, classes=2)


def test_the_papers_schedule_at_its_own_length_and_compressed():
    settings = TrainingSettings()
    by_epoch = [learning_rate(settings, e / 40) for e in range(40)]
    assert by_epoch == pytest.approx([0.1 * 0.3 ** ((e % 20) // 4) for e in range(40)])
    assert by_epoch[20] == 0.1  # the restart
    assert [learning_rate(settings, p) for p in (0.0, 0.49, 0.5, 0.999)] == pytest.approx([0.1, 0.00081, 0.1, 0.00081])


def test_the_linear_schedule_rises_and_falls_to_nothing():
    settings = TrainingSettings(schedule="linear")
    rates = [learning_rate(settings, p / 1000) for p in range(1000)]
    assert rates[0] == 0
    assert max(rates) == pytest.approx(0.1)
    assert rates.index(max(rates)) == 150
    assert rates[-1] < 2e-4
    assert rates == sorted(rates[:151]) + sorted(rates[151:], reverse=True)


def test_it_learns(bars):
    trained = network()
    history = train(trained, bars, SETTINGS, seed=0)
    assert evaluate(trained, bars)[1] > 0.9
    assert [log.epoch for log in history] == [1, 2, 3]
    assert all(np.isnan(log.similarity_loss) for log in history)


def test_it_ends_with_the_epoch_of_least_validation_loss(bars):
    trained = network()
    history = train(trained, bars, SETTINGS, seed=0)
    order = torch.randperm(len(bars), generator=torch.Generator().manual_seed(0)).numpy()
    assert evaluate(trained, bars.rows(order[:80]))[0] == pytest.approx(min(log.validation_loss for log in history))


def test_same_seed_same_numbers(bars, target, stimuli):
    def run(seed: int) -> tuple[list[float], torch.Tensor]:
        net = network()
        reg = SimilarityRegularizer(net, target, stimuli, pairs="all", stimuli_per_step=6, seed=seed)
        history = train(net, bars, SETTINGS, seed=seed, regularizer=reg)
        return [x for log in history for x in (log.task_loss, log.similarity_loss, *log.gamma)], net.head.weight

    (a, weights_a), (b, weights_b), (c, _) = run(1), run(1), run(2)
    assert a == b
    assert torch.equal(weights_a, weights_b)
    assert a != c


def test_the_regulariser_pulls_and_its_loss_is_logged_without_alpha(bars, target, stimuli):
    def last(alpha: float) -> float:
        net = network()
        reg = SimilarityRegularizer(net, target, stimuli, alpha=alpha, pairs="all", stimuli_per_step=20)
        return train(net, bars, SETTINGS, seed=0, regularizer=reg)[-1].similarity_loss

    assert last(30.0) < last(0.01)


def test_reg_ends_with_the_state_of_the_kept_epoch(bars, target, stimuli):
    net = network()
    reg = SimilarityRegularizer(net, target, stimuli, pairs="all", stimuli_per_step=6)
    history = train(net, bars, SETTINGS, seed=0, regularizer=reg)
    kept = min(history, key=lambda log: log.validation_loss)
    assert tuple(reg.gamma.tolist()) == kept.gamma


def test_a_loss_that_explodes_stops_with_step_and_rate(bars):
    with pytest.raises(FloatingPointError, match=r"by step \d+ of epoch 1 \(learning rate \d"):
        train(network(), bars, TrainingSettings(epochs=1, batch_size=32, learning_rate=1e12), seed=0)


def test_crops_and_flips_are_shifts_of_the_reflected_image():
    image = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8)
    padded = np.pad(image[0, 0].numpy(), 4, mode="reflect").astype(np.float32) / 255
    allowed = {padded[y : y + 8, x : x + 8].tobytes() for y in range(9) for x in range(9)}
    flipped = {
        np.ascontiguousarray(padded[y : y + 8, x : x + 8][:, ::-1]).tobytes() for y in range(9) for x in range(9)
    }
    random = torch.Generator().manual_seed(0)
    for kind, may in (("crop", allowed), ("crop_flip", allowed | flipped)):
        augment = Augmentation(image, kind)
        drawn = augment.images(augment.draw(torch.zeros(400, dtype=torch.long), random))
        seen = {crop.contiguous().numpy().tobytes() for crop in drawn[:, 0]}
        assert seen <= may
        assert len(seen) > 60  # of 81, or 162
    plain = Augmentation(image, "none")
    assert torch.equal(
        plain.images(plain.draw(torch.zeros(3, dtype=torch.long), random)), image.expand(3, -1, -1, -1).float() / 255
    )


def test_colour_images_keep_their_channels_apart():
    image = torch.stack([torch.full((8, 8), k, dtype=torch.uint8) for k in (10, 20, 30)])[None]
    augment = Augmentation(image, "crop_flip")
    crop = augment.images(augment.draw(torch.zeros(2, dtype=torch.long), torch.Generator().manual_seed(0)))
    assert torch.allclose(crop * 255, torch.tensor([10.0, 20.0, 30.0]).view(1, 3, 1, 1).expand(2, 3, 8, 8))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"epochs": 0}, "epochs 0"),
        ({"validation_fraction": 1.0}, "validation_fraction is 1.0"),
        ({"learning_rate": 0.0}, "above 0"),
    ],
)
def test_settings_out_of_range(options, says):
    with pytest.raises(InputError, match=says):
        TrainingSettings(**options)


def test_too_few_images_for_a_batch(bars):
    with pytest.raises(InputError, match="fewer than one batch of 64"):
        train(network(), bars.rows(slice(0, 40)), TrainingSettings(epochs=1), seed=0)


def test_perturbed_batches_are_the_batches_of_the_same_seed(bars):
    """What an attack draws is drawn beside what order and augmentation draw: conditions stay paired."""

    def batches(perturbed: bool) -> list[torch.Tensor]:
        seen = []

        def look(net, images, labels, noise):
            assert noise.shape == images.shape
            assert -1 <= float(noise.min()) < -0.9 < 0.9 < float(noise.max()) <= 1
            seen.append(images.clone())
            return images

        net = network()
        if not perturbed:
            net.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()) if net.training else None)
        train(net, bars, SETTINGS, seed=3, perturb=look if perturbed else None)
        return seen

    plain, attacked = batches(False), batches(True)
    assert len(plain) == len(attacked) == 30
    assert all(torch.equal(a, b) for a, b in zip(plain, attacked, strict=True))


def test_alpha_zero_finds_nothing_alike(bars, target, stimuli):
    net = network()
    reg = SimilarityRegularizer(net, target, stimuli, alpha=0.0, stimuli_per_step=6)
    history = train(net, bars, SETTINGS, seed=0, regularizer=reg)
    assert all(np.isnan(log.similarity_loss) for log in history)
    assert all(log.n_pairs == 0 for log in history)


def test_after_a_failure_the_network_holds_its_best_epoch(bars):
    """The good state is not lost: what was best is what is there."""
    net = network()
    settings = TrainingSettings(
        epochs=3, batch_size=32, augmentation="crop", validation_fraction=0.2, schedule="linear"
    )
    best = []

    def sabotage(log):
        best.append({k: v.clone() for k, v in net.state_dict().items()})
        with torch.no_grad():
            net.head.bias.fill_(float("nan"))

    with pytest.raises(FloatingPointError, match=r"epoch 2.*the network holds the weights of its best epoch, 1"):
        train(net, bars, settings, seed=0, on_epoch=sabotage)
    assert all(torch.equal(value, best[0][name]) for name, value in net.state_dict().items())


def test_the_log_has_both_losses_gamma_and_correlations(bars, target, stimuli, tmp_path):
    net = network()
    reg = SimilarityRegularizer(net, target, stimuli, taps=["stem", "stage2"], pairs="all", stimuli_per_step=6)
    history = train(net, bars, SETTINGS, seed=0, regularizer=reg, log=JsonLines(tmp_path / "log.jsonl"))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    first = lines[0]
    wanted = {"task_loss", "similarity_loss", "learning_rate", "images_per_second", "epoch", "step"}
    wanted |= {f"{what}/{tap}" for what in ("gamma", "similarity_correlation") for tap in ("stem", "stage2")}
    assert set(first) == {*wanted, "similarity_correlation/mixed"}
    assert [line["validation_loss"] for line in lines if "validation_loss" in line] == [
        log.validation_loss for log in history
    ]
    assert all(line["images_per_second"] > 0 for line in lines if "images_per_second" in line)
