"""The same numbers, stopped or not; when a fit slows down and ends; what it tells on its way."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_fits import QUICK, SMALL, Killed, fit_of, kill_at, other_responses, steps_of, weights
from small_mouse import small_mouse

from neuroprior.checkpoint import Checkpoint
from neuroprior.twin import FitEpoch, FitProgress, FittedTwins, fit_twin
from neuroprior.twin.evaluate import correlation, predict_trials
from neuroprior.twin.fit.fitting import _Fit
from neuroprior.twin.fit.so_far import FitSoFar
from neuroprior.types import InputError

# The same numbers, stopped or not


def test_the_same_seed_gives_the_same_bytes_and_leaves_random_numbers_alone(mouse, fitted):
    state = torch.random.get_rng_state()
    again = fit_twin(mouse, SMALL, QUICK)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert weights(again) == weights(fitted)
    assert again.history == fitted.history
    other = fit_twin(mouse, SMALL, replace(QUICK, seed=1))
    assert weights(other) != weights(fitted)


# fast enough to get worse now and then, so that waiting, restoring and slowing are kept too
RESTLESS = replace(QUICK, max_epochs=6, patience=2, least_gain=0.0, decays=2, learning_rate=0.1)


@pytest.fixture(scope="module")
def restless(mouse) -> FittedTwins:
    torch.set_num_threads(1)
    return fit_twin(mouse, SMALL, RESTLESS)


def test_a_fit_ends_with_its_best_weights_after_its_decays(mouse, restless):
    rates = [epoch.learning_rate for epoch in restless.history]
    followed = [epoch.validation_correlation for epoch in restless.history]
    expected, best, waited = RESTLESS.learning_rate, -1.0, 0
    for rate, reached in zip(rates, followed, strict=True):
        assert rate == pytest.approx(expected)
        waited, best = (0, reached) if reached > best else (waited + 1, best)
        if waited == RESTLESS.patience:
            expected, waited = expected * RESTLESS.decay, 0
    trials = fit_of([mouse], settings=RESTLESS).trials[0].validation
    found = correlation(
        predict_trials(restless[0], mouse, trials).astype(np.float64), mouse.responses[trials].astype(np.float64)
    )
    assert found.mean() == pytest.approx(max(followed), abs=1e-5)


@pytest.mark.parametrize("steps", [(1,), (2,), (6, 1, 3), (7,), (8, 9), (20,)])
def test_a_fit_that_is_killed_and_goes_on_gives_the_same_bytes(mouse, restless, tmp_path, steps):
    checkpoint = Checkpoint(tmp_path / "fit.safetensors", seconds=0)
    for step in steps:
        with pytest.raises(Killed):
            fit_twin(mouse, SMALL, RESTLESS, checkpoint=checkpoint, progress=kill_at(step))
    resumed = fit_twin(mouse, SMALL, RESTLESS, checkpoint=checkpoint)
    assert weights(resumed) == weights(restless)
    assert resumed.history == restless.history
    assert len({epoch.learning_rate for epoch in restless.history}) > 1  # it did decay


def test_a_fit_that_ended_is_taken_from_its_checkpoint(mouse, restless, tmp_path):
    checkpoint = Checkpoint(tmp_path / "fit.safetensors", seconds=0)
    done = fit_twin(mouse, SMALL, RESTLESS, checkpoint=checkpoint)
    assert weights(done) == weights(restless)
    told: list[FitProgress] = []
    again = fit_twin(mouse, SMALL, RESTLESS, checkpoint=checkpoint, progress=told.append)
    assert weights(again) == weights(done)
    assert again.history == done.history
    assert not told


def test_a_checkpoint_of_another_fit_is_refused(mouse, tmp_path):
    checkpoint = Checkpoint(tmp_path / "fit.safetensors", seconds=0)
    with pytest.raises(Killed):
        fit_twin(mouse, SMALL, QUICK, checkpoint=checkpoint, progress=kill_at(2))
    tier = mouse.tier.astype("<U10")
    tier[np.isin(mouse.trial_image, [1, 2])] = "validation"
    others = [
        (mouse, replace(SMALL, channels=5), QUICK, ()),
        (mouse, SMALL, replace(QUICK, seed=1), ()),
        (mouse, SMALL, QUICK, ("image-000",)),
        (other_responses(mouse, np.array([3])), SMALL, QUICK, ()),
        (replace(mouse, tier=tier), SMALL, QUICK, ()),
        (replace(mouse, behavior=mouse.behavior * 2), SMALL, QUICK, ()),
        (replace(mouse, pupil_center=None), SMALL, QUICK, ()),
        (replace(mouse, neuron_xyz=None), SMALL, QUICK, ()),
        ([mouse, small_mouse("second")], SMALL, QUICK, ()),
    ]
    for scans, architecture, settings, leave_out in others:
        with pytest.raises(InputError, match=r"the checkpoint is of another fit .* name another --out, or delete it"):
            fit_twin(scans, architecture, settings, leave_out=leave_out, checkpoint=checkpoint)


def test_slowing_down_begins_again_from_the_best_weights_without_momentum():
    models = torch.nn.ModuleList([torch.nn.Linear(2, 1)])
    optimizer = torch.optim.Adam(models.parameters(), 0.1)
    so_far = FitSoFar(models, optimizer, torch.Generator(), "test")
    kept = []
    for epoch, reached in enumerate((0.2, 0.5, 0.4)):
        models[0](torch.ones(3, 2)).sum().backward()
        optimizer.step()
        so_far.end_epoch(FitEpoch(epoch + 1, 1.0, 0.0, reached, 0.1), 0.0)
        kept.append(models[0].weight.detach().clone())
    assert so_far.waited == 1
    so_far.decay(0.3)
    assert torch.equal(models[0].weight, kept[1])
    assert not torch.equal(kept[2], kept[1])
    assert not optimizer.state
    assert (so_far.learning_rate, so_far.waited, so_far.decays) == (pytest.approx(0.03), 0, 1)


def test_a_small_gain_is_kept_and_waited_through():
    models = torch.nn.ModuleList([torch.nn.Linear(2, 1)])
    so_far = FitSoFar(models, torch.optim.Adam(models.parameters(), 0.1), torch.Generator(), "test")
    waited = []
    for epoch, reached in enumerate((0.2, 0.205, 0.208, 0.211, 0.25)):
        so_far.end_epoch(FitEpoch(epoch + 1, 1.0, 0.0, reached, 0.1), 0.01)
        waited.append(so_far.waited)
        assert so_far.best_correlation == reached
    assert waited == [0, 1, 2, 0, 0]  # gains add up: from 0.2 to 0.211 is one


def test_progress_counts_up_and_its_bounds_hold(mouse):
    told: list[FitProgress] = []
    made = fit_twin(mouse, SMALL, replace(QUICK, max_epochs=3), progress=told.append)
    places = [now.epoch - 1 + now.part for now in told]
    assert places == sorted(places)
    assert places[-1] == 3
    assert (told[0].seconds_at_least, told[0].seconds_at_most) == (None, None)  # nothing was measured yet
    assert all(0 <= now.seconds_at_least <= now.seconds_at_most for now in told[1:])
    assert told[-1].seconds_at_most > 0  # the last validation
    assert told[-1].best_correlation == max(epoch.validation_correlation for epoch in made.history[:-1])


def test_what_is_left_is_steps_and_validations_each_with_their_own_time(mouse, monkeypatch):
    """A step of 2 seconds (the first, compiled, of 50) and a validation of 31: no jump where an epoch ends."""
    now = [0.0]
    step, validation = _Fit._step, _Fit.validation_correlation

    def slow_step(self: _Fit, images: np.ndarray, where: str) -> None:
        now[0] += 2.0 if now[0] else 50.0
        step(self, images, where)

    def slow_validation(self: _Fit) -> float:
        now[0] += 31.0
        return validation(self)

    monkeypatch.setattr(_Fit, "_step", slow_step)
    monkeypatch.setattr(_Fit, "validation_correlation", slow_validation)
    monkeypatch.setattr("neuroprior.twin.fit.progress.time", SimpleNamespace(monotonic=lambda: now[0]))
    told: list[FitProgress] = []
    settings = replace(QUICK, max_epochs=5, patience=2, decays=0)
    fit_twin(mouse, SMALL, settings, progress=told.append)
    steps, images = len(steps_of(mouse)), len(fit_of([mouse]).validation_images)
    for k, at in enumerate(told[1:], 2):
        each = 31.0 if k > steps else 2.0 * images / QUICK.batch_images / 3  # until one was timed
        assert at.seconds_at_most == pytest.approx(2.0 * (5 * steps - k) + each * (5 - (k - 1) // steps))
    first, last = told[steps], told[-1]
    assert first.seconds_at_least == pytest.approx(2.0 * (2 * steps - 1) + 31.0 * 2)  # two epochs without a gain
    assert (last.seconds_at_least, last.seconds_at_most) == pytest.approx((31.0, 31.0))


def test_the_log_has_a_line_an_epoch(mouse, fitted):
    lines: list[tuple[int, dict[str, float | int]]] = []

    class Kept:
        def write(self, step: int, values) -> None:
            lines.append((step, dict(values)))

        def go_on_from(self, step: int) -> None:
            lines.append((step, {}))

        def close(self) -> None:
            lines.append((-1, {}))

    fit_twin(mouse, SMALL, QUICK, log=Kept())
    assert [step for step, _ in lines] == [0, *(lines[1][0] * k for k in (1, 2)), -1]
    for (_, values), epoch in zip(lines[1:-1], fitted.history, strict=True):
        assert values["loss"] == epoch.loss
        assert values["validation_correlation"] == epoch.validation_correlation
