"""The loss of a fit: a mean of responses, whatever the batch, the neurons and the trials' numbers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_fits import QUICK, SMALL, fit_of
from small_mouse import neurons_of, small_mouse, trials_of

from neuroprior.twin import fit_twin
from neuroprior.twin.fit import fitting
from neuroprior.twin.fit.fitting import _EPS, _Fit


@pytest.mark.parametrize("variant", [{}, {"readout": "factorised"}, {"behavior": "channels"}], ids=str)
def test_half_the_digits_are_the_cores_alone(mouse, variant):
    """Shifts, gains and what is read out of the maps are float32, and so is all of validation."""
    fit = fit_of([mouse], replace(SMALL, **variant), replace(QUICK, precision="bfloat16"))
    model = fit.models[0]
    seen: dict[str, list[torch.dtype]] = {}
    for name, part in {
        "core": model.core,
        "shifter": model.shifter,
        "gain": model.modulator,
        "out": model.readout,
    }.items():
        part.register_forward_hook(lambda _, given, out, name=name: seen.setdefault(name, []).append(out.dtype))
    after_step(fit, fit.images[:20])
    assert {name: set(found) for name, found in seen.items()} == {
        "core": {torch.bfloat16},
        "shifter": {torch.float32},
        "gain": {torch.float32},
        "out": {torch.float32},
    }
    seen.clear()
    fit.validation_correlation()
    assert set(seen["core"]) == {torch.float32}


def after_step(fit: _Fit, images: np.ndarray) -> tuple[float, float, torch.Tensor]:
    """Loss and penalty of a step, and the gradient of the core's first filters."""
    before = fit.so_far.sums.clone()
    fit._step(images, "a test")
    loss, penalty = (fit.so_far.sums - before).tolist()
    return loss / fit._n_responses(images), penalty / len(images), fit.core.filters.grad.clone()


@pytest.mark.parametrize("behavior", ["gain", "modulator", "channels"])
def test_the_loss_is_the_mean_poisson_loss_of_a_response(mouse, behavior):
    """Of every training trial as the whole model predicts it, however the core's work is shared."""
    scans = [mouse, neurons_of(trials_of(small_mouse("second", seed=1), np.arange(90)), slice(0, 12))]
    fit = fit_of(scans, replace(SMALL, behavior=behavior))
    total, count = 0.0, 0
    for model, trials in zip(fit.models, fit.trials, strict=True):
        behaviour, pupil = trials.conditions(trials.train)
        with torch.no_grad():
            rates = model(fit.bank.z_scored(trials.row[trials.train]), behaviour, pupil) / model.unit
        r = torch.from_numpy(trials.scan.responses[trials.train] / trials.unit)
        total += float((rates - r * (rates + _EPS).log()).sum())
        count += r.numel()
    loss, _, _ = after_step(fit, fit.images)
    assert loss == pytest.approx(total / count, rel=1e-5)


@pytest.mark.parametrize("behavior", ["gain", "channels"])
def test_the_validation_correlation_is_that_of_each_held_out_trial(mouse, behavior):
    """However the core's work is shared between trials and scans."""
    scans = [mouse, neurons_of(trials_of(small_mouse("second", seed=1), np.arange(150)), slice(0, 12))]
    fit = fit_of(scans, replace(SMALL, behavior=behavior))
    found = []
    for model, trials in zip(fit.models, fit.trials, strict=True):
        behaviour, pupil = trials.conditions(trials.validation)
        with torch.no_grad():
            rates = model(fit.bank.z_scored(trials.row[trials.validation]), behaviour, pupil)
        responses = trials.scan.responses[trials.validation].astype(np.float64)
        found += [np.corrcoef(a, b)[0, 1] for a, b in zip(rates.double().numpy().T, responses.T, strict=True)]
    assert fit.validation_correlation() == pytest.approx(np.mean(found), abs=1e-5)


def test_images_taken_a_few_at_a_time_give_the_same_step(mouse, monkeypatch):
    scans = [mouse, trials_of(small_mouse("second", seed=1), np.arange(90))]
    found = []
    for at_once in (1000, 7):
        monkeypatch.setattr(fitting, "_IMAGES_AT_ONCE", at_once)
        fit = fit_of(scans)
        found.append((*after_step(fit, fit.images), fit.models[1].readout.features.grad))
    (loss, penalty, slope, features), few = found
    assert few[:2] == pytest.approx((loss, penalty), rel=1e-5)
    assert torch.allclose(few[2], slope, atol=1e-6, rtol=1e-3)
    assert torch.allclose(few[3], features, atol=1e-6, rtol=1e-3)


def test_the_loss_does_not_grow_with_the_batch(mouse):
    whole = after_step(fit_of([mouse]), fit_of([mouse]).images)
    fit = fit_of([mouse], settings=replace(QUICK, learning_rate=1e-12))
    parts = [after_step(fit, fit.images[k::4]) for k in range(4)]
    sizes = np.array([len(fit.images[k::4]) for k in range(4)])
    assert np.average([loss for loss, _, _ in parts], weights=sizes) == pytest.approx(whole[0], rel=1e-5)
    assert all(penalty == pytest.approx(whole[1], rel=1e-5) for _, penalty, _ in parts)
    mean = sum(float(n) * slope for n, (_, _, slope) in zip(sizes, parts, strict=True)) / float(sizes.sum())
    assert torch.allclose(mean, whole[2], atol=1e-6, rtol=1e-3)


def test_the_loss_does_not_grow_with_the_neurons(mouse):
    """Every neuron twice: the same loss, the same penalty, the same gradient of the core."""
    one, two = fit_of([mouse]), fit_of([neurons_of(mouse, [*range(30), *range(30)])])
    two.core.load_state_dict(one.core.state_dict())
    for name in ("features", "bias"):
        getattr(two.models[0].readout, name).data = torch.cat([getattr(one.models[0].readout, name).data] * 2)
    two.models[0].readout.places.positions.data = torch.cat([one.models[0].readout.positions.data] * 2)
    two.models[0].shifter.load_state_dict(one.models[0].shifter.state_dict())
    held, doubled = one.models[0].modulator.mlp, two.models[0].modulator.mlp
    doubled[0].load_state_dict(held[0].state_dict())
    for name in ("weight", "bias"):
        getattr(doubled[2], name).data = torch.cat([getattr(held[2], name).data] * 2)
    a, b = after_step(one, one.images[:20]), after_step(two, two.images[:20])
    assert b[:2] == pytest.approx(a[:2], rel=1e-5)
    assert torch.allclose(b[2], a[2], atol=1e-6, rtol=1e-3)


def test_each_penalty_is_counted_as_often_as_it_is_asked_for(mouse):
    bare = replace(QUICK, smoothness=0.0, group_sparsity=0.0, readout_l1=0.0)
    images = fit_of([mouse]).images[:5]

    def penalty(**strengths: float) -> float:
        return after_step(fit_of([mouse], settings=replace(bare, **strengths)), images)[1]

    assert penalty() == 0
    each = [penalty(**{name: 1.0}) for name in ("smoothness", "group_sparsity", "readout_l1")]
    assert min(each) > 0
    assert penalty(smoothness=2.0, group_sparsity=0.5, readout_l1=3.0) == pytest.approx(
        2 * each[0] + 0.5 * each[1] + 3 * each[2], rel=1e-5
    )


def test_an_epochs_loss_is_the_mean_of_a_response_where_images_have_other_numbers_of_trials(mouse, monkeypatch):
    """Each step's loss is a mean over its own responses: a step of many counts for more."""
    rng = np.random.default_rng(0)
    train = np.flatnonzero(mouse.tier == "train")
    often = np.repeat(train, np.where(rng.random(len(train)) < 0.1, 12, 1))
    uneven = trials_of(mouse, np.concatenate([often, np.flatnonzero(mouse.tier == "oracle")]))
    told: list[
        tuple[float, int, int]
    ] = []  # what was added to a step's mean, of how many responses, to how many images
    part = _Fit._loss

    def kept(self: _Fit, images: np.ndarray, count: int) -> torch.Tensor:
        found = part(self, images, count)
        told.append((found.item(), count, len(images)))
        return found

    monkeypatch.setattr(_Fit, "_loss", kept)
    (epoch,) = fit_twin(uneven, SMALL, replace(QUICK, max_epochs=1)).history
    losses, responses, images = (np.array(column, dtype=np.float64) for column in zip(*told, strict=True))
    assert responses.std() > 0.1 * responses.mean()
    assert epoch.loss == pytest.approx(np.average(losses, weights=responses), rel=1e-6)
    assert abs(np.average(losses, weights=images) / epoch.loss - 1) > 1e-3  # batches of 16: one part a step
