"""A step that is recorded and replayed trains as one that is run as written; and nothing in it waits for the device."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from neuroprior import SimilarityRegularizer
from neuroprior.classifier import (
    Classification,
    EpisodeLoss,
    FewShotTask,
    JointStep,
    LabelledImages,
    Recorded,
    ResNet,
    TrainingSettings,
    as_written,
    train,
)
from neuroprior.classifier.augmentation import Augmentation
from neuroprior.regularizer import Exposure, Ramp, ResponseRegression
from neuroprior.types import Population

SETTINGS = TrainingSettings(epochs=2, batch_size=16, validation_fraction=0.2, learning_rate=0.05, schedule="linear")


@pytest.fixture(autouse=True)
def in_torch_operations(monkeypatch):
    """As on a GPU: a tape sees no loops of the processor's, and falls back; what it is held against must do so too."""
    monkeypatch.setattr("neuroprior.classifier.normalised._is_fast", lambda *_: False)


class Tape(TorchDispatchMode):
    """What a CUDA graph does, on the processor: operations on memory, without the Python that asked for them."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        made = function(*args, **kwargs)
        self.operations.append((function, args, kwargs, made))
        return made

    def replay(self) -> None:
        with torch.no_grad():
            for function, args, kwargs, made in self.operations:
                again = function(*args, **kwargs)
                for old, new in zip(tree_leaves(made), tree_leaves(again), strict=True):
                    if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)


def recording(work: Callable[[], None]) -> Callable[[], None]:
    tape = Tape()
    with tape:
        work()
    return tape.replay


class Waits(TorchDispatchMode):
    """Refuses what would hold up a processor until the device has come so far."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name()
        assert not any(word in name for word in ("_local_scalar_dense", "nonzero", "is_nonzero", "unique")), name
        return function(*args, **(kwargs or {}))


@pytest.fixture
def images() -> LabelledImages:
    rng = np.random.default_rng(0)
    return LabelledImages(
        rng.integers(0, 255, (100, 1, 16, 16), dtype=np.uint8), rng.integers(0, 3, 100), ("a", "b", "c")
    )


def second(kind: str, network: ResNet, target, stimuli):
    few = {"stimuli_per_step": 6, "seed": 1}
    match kind:
        case "none":
            return None
        case "lineage" | "batch" | "dataset":
            return SimilarityRegularizer(network, target, stimuli, mean=kind, pairs="all", **few)
        case "ramp":
            return SimilarityRegularizer(network, target, stimuli, alpha=Ramp(0.0, 30.0, 8), **few)
        case "every":
            return SimilarityRegularizer(network, target, stimuli, every=2, **few)
        case "exposure":
            return Exposure(network, stimuli, **few)
        case _:
            rng = np.random.default_rng(0)
            seen = Population(
                stimuli.ids, rng.random((len(stimuli), 9)).astype(np.float32), np.ones(9, np.float32), "recorded"
            )
            return ResponseRegression(network, seen, stimuli, neurons_per_step=5, **few)


KINDS = ("none", "lineage", "batch", "dataset", "ramp", "every", "exposure", "regression")


def trained(tape, kind, images, target, stimuli):
    torch.manual_seed(0)
    network = ResNet(width=2, classes=3)
    loss = second(kind, network, target, stimuli)
    history = train(network, images, SETTINGS, seed=0, regularizer=loss, tape=tape)
    return history, {**network.state_dict(), **({} if loss is None else dict(loss.named_parameters()))}, loss


@pytest.mark.parametrize("kind", KINDS)
def test_a_replayed_training_is_one_as_written_to_the_last_bit(kind, images, target, stimuli):
    history, weights, loss = trained(recording, kind, images, target, stimuli)
    expected, expected_weights, expected_loss = trained(as_written, kind, images, target, stimuli)
    assert [str(one) for one in history] == [str(one) for one in expected]  # nan is not itself
    assert all(torch.equal(value, expected_weights[name]) for name, value in weights.items())
    if loss is not None:
        assert str(loss.state_dict()) == str(expected_loss.state_dict())
        assert loss.correlations() == expected_loss.correlations()
    plain, _, _ = trained(
        None, kind, images, target, stimuli
    )  # the optimiser rounds otherwise, and training amplifies it
    assert history[-1].task_loss == pytest.approx(plain[-1].task_loss, rel=1e-2)
    assert history[-1].similarity_loss == pytest.approx(plain[-1].similarity_loss, rel=2e-2, nan_ok=True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_devices_part_of_a_step_waits_for_nothing(kind, images, target, stimuli):
    network = ResNet(width=2, classes=3)
    loss = second(kind, network, target, stimuli)
    task = Classification(16)
    augment = Augmentation(torch.from_numpy(images.pixels), "crop_flip")
    step = JointStep(network, task, augment, torch.from_numpy(images.labels), loss)
    assert step.replayable
    random = torch.Generator().manual_seed(0)
    rows = task.epoch(torch.from_numpy(images.labels), random)[0]
    given = step.draw(rows, random, random, slice(None))
    with Waits():
        sum(step.losses(given)).backward()
    with pytest.raises(AssertionError, match="_local_scalar_dense"), Waits():
        float(torch.ones(()))


def test_what_is_not_the_same_at_each_step_is_not_replayed(images):
    def perturb(network, images, labels, noise):
        return images

    augment, labels = Augmentation(torch.from_numpy(images.pixels), "none"), torch.from_numpy(images.labels)
    network = ResNet(width=2, classes=3)
    assert not JointStep(network, Classification(16), augment, labels, perturb=perturb).replayable
    assert not JointStep(network, FewShotTask(EpisodeLoss(3, 2, 2)), augment, labels).replayable  # it looks at labels


def test_each_shape_has_a_recording_of_its_own():
    recorded: list[int] = []

    def tape(work):
        recorded.append(1)
        return recording(work)

    total = torch.zeros(())

    def add(given):
        total.add_(given["x"].sum())
        return total

    add_up = Recorded(add, torch.device("cpu"), tape)
    for n in range(6):
        for size in (2, 3):
            add_up({"x": torch.full((size,), float(n))})
    assert float(total) == 5 * sum(range(6))
    assert len(recorded) == 2
