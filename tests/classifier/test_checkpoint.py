"""A training that was stopped at any step, and goes on in a fresh process's place, ends with the same bytes."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from neuroprior import SimilarityRegularizer
from neuroprior.classifier import Checkpoint, LabelledImages, ResNet, TrainingSettings, train
from neuroprior.types import InputError

IMAGES = LabelledImages(
    np.random.default_rng(0).integers(0, 256, (90, 1, 32, 32)).astype(np.uint8),
    np.arange(90, dtype=np.int64) % 10,
    tuple(str(k) for k in range(10)),
)
SETTINGS = TrainingSettings(epochs=3, batch_size=16, learning_rate=0.05, validation_fraction=0.1)
STEPS = 3 * 5


class Stopped(Exception):
    """As if the process had been killed just after a checkpoint was written."""


class StopsAt(Checkpoint):
    """Keeps the state after every step, and stops after `at` of them."""

    def __init__(self, path: Path, at: float) -> None:
        super().__init__(path, seconds=0.0)
        self.left = at

    def save(self, state):
        super().save(state)
        self.left -= 1
        if self.left == 0:
            raise Stopped


def outcome(stimuli, target, checkpoint=None, mean="lineage", **options):
    """Train from the seed's first weights, as a process would, and return all that comes of it."""
    torch.manual_seed(0)
    network = ResNet(width=2).to(memory_format=torch.channels_last)
    regularizer = None
    if target is not None:
        regularizer = SimilarityRegularizer(
            network, target, stimuli, taps=2, alpha=5.0, mean=mean, pairs="all", stimuli_per_step=12, seed=3
        )
    history = train(network, IMAGES, SETTINGS, seed=1, regularizer=regularizer, checkpoint=checkpoint, **options)
    state = {**network.state_dict(), **({"theta": regularizer.theta.detach()} if regularizer is not None else {})}
    return history, state


def assert_same(one, two):
    assert str(one[0]) == str(two[0])  # nan is unequal to itself, its name is not
    assert one[1].keys() == two[1].keys()
    assert all(torch.equal(value, two[1][name]) for name, value in one[1].items())


@pytest.mark.parametrize("at", [1, 4, 5, 6, 11, STEPS])
def test_stopped_once(tmp_path, stimuli, target, at):
    whole = outcome(stimuli, target)
    path = tmp_path / "checkpoint"
    with pytest.raises(Stopped):
        outcome(stimuli, target, StopsAt(path, at))
    assert_same(outcome(stimuli, target, Checkpoint(path, 0.0)), whole)


@pytest.mark.parametrize(
    ("mean", "precision", "regularized"),
    [("dataset", "float32", True), ("lineage", "bfloat16", True), ("lineage", "float32", False)],
)
def test_stopped_at_every_step(tmp_path, stimuli, target, mean, precision, regularized):
    """Each stretch takes one step and stops; what is alive is thrown away every time."""
    target = target if regularized else None
    whole = outcome(stimuli, target, mean=mean, precision=precision)
    path = tmp_path / "checkpoint"
    for _ in range(STEPS):
        with pytest.raises(Stopped):
            outcome(stimuli, target, StopsAt(path, 1), mean, precision=precision)
    assert_same(outcome(stimuli, target, StopsAt(path, math.inf), mean, precision=precision), whole)


def test_keeping_changes_nothing(tmp_path, stimuli, target):
    kept = outcome(stimuli, target, Checkpoint(tmp_path / "checkpoint", 0.0))
    assert_same(kept, outcome(stimuli, target))


def test_what_is_left_out_would_be_noticed(tmp_path, stimuli, target):
    """The contrapositive: a state without one of its parts leads elsewhere, so each of them is needed."""
    whole = outcome(stimuli, target)
    path = tmp_path / "checkpoint"
    for part in ("modules", "momentum", "random", "task_sum"):
        with pytest.raises(Stopped):
            outcome(stimuli, target, StopsAt(path, 7))
        state = Checkpoint(path).load()
        assert state is not None
        fresh = tmp_path / "fresh"
        with pytest.raises(Stopped):
            outcome(stimuli, target, StopsAt(fresh, 1))
        other = Checkpoint(fresh).load()
        assert other is not None
        state[part] = other[part]
        Checkpoint(path).save(state)
        with pytest.raises(AssertionError):
            assert_same(outcome(stimuli, target, Checkpoint(path)), whole)
        path.unlink()
        fresh.unlink()


def test_round_trip(tmp_path):
    state = {
        "tensors": [torch.arange(6).reshape(2, 3).T, torch.zeros(0), torch.tensor(1.5, dtype=torch.float64)],
        "plain": {"inf": math.inf, "none": None, "yes": True, "text": "é", "float": 0.1 + 0.2, "deep": [[1], []]},
    }
    checkpoint = Checkpoint(tmp_path / "checkpoint")
    assert checkpoint.load() is None
    checkpoint.save(state)
    back = checkpoint.load()
    assert back is not None
    assert back["plain"] == state["plain"]
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(back["tensors"], state["tensors"], strict=True))
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]
    with pytest.raises(TypeError, match="/x is a set, which cannot be kept"):
        checkpoint.save({"x": {1}})


def test_a_damaged_file_is_named(tmp_path):
    checkpoint = Checkpoint(tmp_path / "checkpoint")
    checkpoint.save({"a": torch.zeros(100)})
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:-50])
    with pytest.raises(InputError, match=r"checkpoint: damaged .*delete it"):
        checkpoint.load()


def test_a_save_that_fails_half_way_leaves_the_old_state(tmp_path, monkeypatch):
    checkpoint = Checkpoint(tmp_path / "checkpoint")
    checkpoint.save({"a": torch.zeros(3)})

    def half(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("neuroprior.checkpoint.save_file", half)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save({"a": torch.ones(3)})
    monkeypatch.undo()
    kept = checkpoint.load()
    assert kept is not None
    assert torch.equal(kept["a"], torch.zeros(3))
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_time_between_saves(tmp_path):
    assert not Checkpoint(tmp_path / "a", 1000.0).is_due()
    assert Checkpoint(tmp_path / "a", 0.0).is_due()


def test_dropout_attacks_and_rare_comparisons_resume_too(tmp_path, stimuli, target):
    """What draws from torch's own generator, from the attack's, and what is computed every third step only."""

    def run(checkpoint=None):
        torch.manual_seed(0)
        network = torch.nn.Sequential(
            torch.nn.Conv2d(1, 4, 5, 3), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.AdaptiveAvgPool2d(2),
            torch.nn.Flatten(), torch.nn.Linear(16, 10),
        )  # fmt: skip
        reg = SimilarityRegularizer(network, target, stimuli, taps=["1"], stimuli_per_step=6, every=3)

        def move(net, images, labels, noise):
            return (images + 0.1 * noise).clamp(0, 1)

        history = train(network, IMAGES, SETTINGS, seed=1, regularizer=reg, perturb=move, checkpoint=checkpoint)
        return history, network.state_dict()

    whole = run()
    for at in (2, 6):
        path = tmp_path / f"checkpoint-{at}"
        with pytest.raises(Stopped):
            run(StopsAt(path, at))
        torch.manual_seed(99)  # another process would not stand where this one stood
        assert_same(run(Checkpoint(path, 0.0)), whole)


def test_the_checkpoint_of_another_training_is_refused(tmp_path, stimuli, target):
    path = tmp_path / "checkpoint"
    with pytest.raises(Stopped):
        outcome(stimuli, target, StopsAt(path, 4))
    torch.manual_seed(0)
    network = ResNet(width=2)
    regularizer = SimilarityRegularizer(network, target, stimuli, taps=2, stimuli_per_step=12)
    with pytest.raises(InputError, match="checkpoint is of another training"):
        train(network, IMAGES, SETTINGS, seed=2, regularizer=regularizer, checkpoint=Checkpoint(path))
