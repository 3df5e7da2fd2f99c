"""Fitting: it learns, it repeats itself to the byte, it goes on where it was stopped, and it says what it cannot do."""

from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_mouse import neurons_of, small_mouse, trials_of

from neuroprior.checkpoint import Checkpoint
from neuroprior.twin import (
    FitEpoch,
    FitProgress,
    FitSettings,
    FittedTwins,
    TwinArchitecture,
    fit_twin,
    predict_population,
    score_twin,
)
from neuroprior.twin.core import Core
from neuroprior.twin.evaluate import correlation, predict_trials
from neuroprior.twin.fit import FitDivergedError, fitting
from neuroprior.twin.fit.fitting import _EPS, _all_trials, _Fit
from neuroprior.twin.fit.models import new_models
from neuroprior.twin.fit.so_far import FitSoFar
from neuroprior.twin.fit.trials import image_bank
from neuroprior.types import InputError, Precision, Scan

SMALL = TwinArchitecture(core="stacked", channels=4, n_layers=2, first_kernel=7, kernel=3, padded=False)
QUICK = FitSettings(max_epochs=2, batch_images=16, learning_rate=1e-2, validation_fraction=0.2)


@pytest.fixture(scope="module")
def mouse() -> Scan:
    return small_mouse()


@pytest.fixture(scope="module")
def fitted(mouse) -> FittedTwins:
    torch.set_num_threads(1)
    return fit_twin(mouse, SMALL, QUICK)


def weights(twins: FittedTwins) -> list[str]:
    """SHA-256 of each twin's parameters and buffers."""
    return [twin.digest for twin in twins]


def other_responses(scan: Scan, trials: np.ndarray) -> Scan:
    """The scan with other responses on these trials."""
    responses = scan.responses.copy()
    responses[trials] = 3 * responses[trials][::-1] + 1
    return replace(scan, responses=responses)


# It learns


def test_a_small_mouse_is_learned(mouse):
    settings = replace(QUICK, max_epochs=14, patience=14)
    learned = fit_twin(mouse, SMALL, settings)
    followed = [epoch.validation_correlation for epoch in learned.history]
    assert max(followed) > 0.55  # 0.23 after the first epoch; 0.65 when it ends by itself
    assert max(followed) > followed[0] + 0.2
    assert learned.history[-1].loss < learned.history[0].loss
    (twin,) = learned
    assert not any(p.requires_grad for p in twin.model.parameters())
    scores = score_twin(twin, mouse)
    assert np.array_equal(twin.accuracy, scores.accuracy)
    assert scores.oracle_fraction > 0.8
    assert np.array_equal(twin.weights, twin.snr * twin.accuracy)
    rates = predict_population(twin, mouse.stimuli)
    assert np.array_equal(rates.weights, twin.weights)
    assert (rates.mean >= 0).all()
    mean = mouse.responses.mean(axis=0)
    assert np.corrcoef(rates.mean.mean(axis=0), mean)[0, 1] > 0.9  # in units of the responses
    assert abs(rates.mean.mean() / mean.mean() - 1) < 0.1
    shuffled = neurons_of(mouse, [*range(1, 30), 0])
    assert score_twin(twin, shuffled).accuracy.mean() < 0.5 * twin.accuracy.mean()


def test_behaviour_that_matters_is_learned_and_neutral_behaviour_is_its_mean():
    running = small_mouse(gain=0.8, noise=0.1)
    settings = replace(QUICK, max_epochs=8, learning_rate=2e-2)
    train = running.tier == "train"
    faster = replace(running, behavior=running.behavior + np.float32([3, 0]))  # by a standard deviation: exp(0.8)
    reached, raised = {}, {}
    for kind in ("none", "modulator", "channels", "gain"):
        twin = fit_twin(running, replace(SMALL, behavior=kind), settings)[0]
        now, then = (predict_trials(twin, scan, np.arange(60)).mean() for scan in (running, faster))
        reached[kind], raised[kind] = twin.accuracy.mean(), then / now
        assert np.allclose(twin.neutral_behavior, running.behavior[train].mean(axis=0), atol=1.0)
        assert np.allclose(twin.neutral_pupil, running.pupil_center[train].mean(axis=0), atol=2.0)
    # rates were simulated with a gain; a modulator scales the drive before ELU + 1, so it can say less
    assert reached["none"] + 0.02 < reached["modulator"] < reached["channels"] - 0.1
    assert raised["none"] == 1
    assert raised["modulator"] > 1.05
    assert raised["channels"] > 1.5
    assert reached["gain"] > reached["modulator"] + 0.1
    assert raised["gain"] > 1.5


def test_gaze_is_learned():
    """The pupil moves all fields by 1.5 pixels a standard deviation: right as it goes right, up as it goes down."""
    architecture = replace(SMALL, channels=8)
    moving = small_mouse(gaze=1.5, n_images=300, n_neurons=60, noise=0.3)
    (twin,) = fit_twin(moving, architecture, FitSettings(max_epochs=30, batch_images=16, learning_rate=1e-2))
    rows, columns = architecture.map_size(moving.stimuli.pixels.shape[1:])
    with torch.no_grad():
        at_rest, right, down = twin.model.shifter(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    pixels = torch.tensor([columns - 1, rows - 1]) / 2
    assert torch.allclose((right - at_rest) * pixels, torch.tensor([1.5, 0.0]), atol=0.4)
    assert torch.allclose((down - at_rest) * pixels, torch.tensor([0.0, -1.5]), atol=0.4)


@pytest.mark.parametrize(
    "variant",
    [
        {"behavior": "channels"},
        {"behavior": "modulator"},
        {"behavior": "none", "shifter": "none"},
        {"readout": "factorised"},
        {"readout": "factorised", "behavior": "channels"},
        {"core": "separable", "positions": "cortical", "covariance": "isotropic"},
        {"linear": True},
    ],
    ids=lambda variant: " ".join(map(str, variant.values())),
)
def test_every_variant_learns_something_and_predicts(mouse, variant):
    learns_something(mouse, replace(SMALL, **variant), "float32")


@pytest.mark.parametrize(
    "variant", [{"core": "separable"}, {"readout": "factorised", "behavior": "channels"}], ids=["separable", "channels"]
)
def test_half_the_digits_are_enough_to_learn(mouse, variant):
    learns_something(mouse, replace(SMALL, **variant), "bfloat16")


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


def learns_something(mouse: Scan, architecture: TwinArchitecture, precision: Precision) -> None:
    settings = replace(QUICK, precision=precision, max_epochs=4, group_sparsity=0.01)
    made = fit_twin(mouse, architecture, settings)
    assert np.isfinite(predict_population(made[0], mouse.stimuli).mean).all()
    assert max(epoch.validation_correlation for epoch in made.history) > 0.15
    assert all(np.isfinite([epoch.loss, epoch.penalty]).all() for epoch in made.history)


# The loss


def fit_of(scans: list[Scan], architecture: TwinArchitecture = SMALL, settings: FitSettings = QUICK) -> _Fit:
    """A fit before its first step, its models in evaluation: no draws, no batch statistics."""
    bank = image_bank(scans)
    trials = _all_trials(scans, bank, architecture, settings, frozenset())
    torch.manual_seed(0)
    fit = _Fit(new_models(trials, bank, architecture), trials, bank, settings, "test")
    for model in fit.models:  # shifts and gains are 0 and 1 to begin with, which would hide mistakes
        for part in (model.shifter, model.modulator):
            for weight in part.parameters():
                weight.data.normal_(std=0.2)
    fit.module_list.eval()
    return fit


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


# Several scans


def core_passes(monkeypatch, scans: list[Scan], architecture: TwinArchitecture = SMALL) -> int:
    """Images that the core sees in training."""
    seen, forward = [], Core.forward

    def counted(self, images):
        if self.training:
            seen.append(len(images))
        return forward(self, images)

    with monkeypatch.context() as patched:
        patched.setattr(Core, "forward", counted)
        fit_twin(scans, architecture, replace(QUICK, max_epochs=1))
    return sum(seen)


def test_scans_that_share_images_share_the_core(monkeypatch, mouse):
    second = small_mouse("second", seed=1)
    alone = core_passes(monkeypatch, [mouse])
    assert core_passes(monkeypatch, [mouse, second]) == alone
    renamed = replace(second, stimuli=replace(second.stimuli, ids=np.char.add("b-", second.stimuli.ids)))
    assert core_passes(monkeypatch, [mouse, renamed]) > 1.8 * alone
    # behaviour beside the image: every trial is a pass of its own
    assert core_passes(monkeypatch, [mouse, second], replace(SMALL, behavior="channels")) == 2 * alone


def test_each_scan_gets_its_twin_with_the_common_core(mouse):
    second = neurons_of(small_mouse("second", seed=1), slice(0, 7))
    first, other = fit_twin([mouse, second], SMALL, QUICK)
    assert (first.name, other.name, first.n_neurons, other.n_neurons) == ("mouse", "second", 30, 7)
    images = torch.randn(2, 1, 16, 24)
    assert torch.equal(first.model.core(images), other.model.core(images))
    assert first.digest != other.digest
    assert (first.pixel_mean, first.pixel_std) == (other.pixel_mean, other.pixel_std)


def test_what_is_held_back_is_never_trained_on(mouse, fitted):
    """Its responses may be anything: the weights stay as they are, to the byte."""
    oracle = np.flatnonzero(mouse.tier == "oracle")
    assert weights(fit_twin(other_responses(mouse, oracle), SMALL, QUICK)) == weights(fitted)
    names = ["image-004", "image-040", "image-111"]
    some = np.flatnonzero(np.isin(mouse.trial_ids, names))
    left_out = [
        weights(fit_twin(scan, SMALL, QUICK, leave_out=names)) for scan in (mouse, other_responses(mouse, some))
    ]
    assert left_out[0] == left_out[1]
    assert left_out[0] != weights(fitted)
    assert weights(fit_twin(other_responses(mouse, some), SMALL, QUICK)) != weights(fitted)


def test_an_oracle_image_of_one_scan_is_held_back_in_all(mouse):
    """The core is common: what one scan's neurons said to it would be learned from."""
    second = small_mouse("second", seed=1)
    names = ["image-004", "image-040", "image-111"]
    tier = np.where(np.isin(second.trial_ids, names), "oracle", second.tier)
    second = replace(second, tier=tier)
    some = np.flatnonzero(np.isin(mouse.trial_ids, names))
    one, other = (weights(fit_twin([first, second], SMALL, QUICK)) for first in (mouse, other_responses(mouse, some)))
    assert one == other


def with_validation(scan: Scan, names: list[str]) -> Scan:
    """The scan with these images in tier validation."""
    return replace(scan, tier=np.where(np.isin(scan.trial_ids, names), "validation", scan.tier.astype("<U10")))


def test_what_one_scan_is_stopped_by_is_held_back_in_all(mouse):
    """The core is common: what a scan is stopped by must not be learned from in another."""
    names = [f"image-{k:03d}" for k in range(7, 30)]
    first, second = with_validation(mouse, names), small_mouse("second", seed=1)
    own, others = _all_trials([first, second], image_bank([first, second]), SMALL, QUICK, frozenset())
    held = set(second.trial_ids[others.validation].tolist())  # by the hash of their ids
    assert held - set(names)
    assert set(names) - held
    for trials in (own, others):
        assert not set(trials.scan.trial_ids[trials.train].tolist()) & (held | set(names))
    assert set(first.trial_ids[own.validation].tolist()) == set(names)
    some = np.flatnonzero(np.isin(second.trial_ids, sorted(set(names) - held)))
    too = np.flatnonzero(np.isin(first.trial_ids, sorted(held - set(names))))
    made = fit_twin([first, second], SMALL, QUICK)
    for scans in ([first, other_responses(second, some)], [other_responses(first, too), second]):
        assert weights(fit_twin(scans, SMALL, QUICK)) == weights(made)
    assert made.notes == (
        f"scan mouse: {len(too)} trials left out, as another scan holds their images back",
        f"scan second: {len(some)} trials left out, as another scan holds their images back",
    )
    assert weights(fit_twin(other_responses(second, some), SMALL, QUICK)) != weights(fit_twin(second, SMALL, QUICK))


def test_scans_that_hold_back_the_same_images_lose_no_trials(mouse):
    scans = [mouse, small_mouse("second", seed=1)]
    bank = image_bank(scans)
    for both in (scans, [with_validation(scan, ["image-004", "image-040"]) for scan in scans]):
        trials = _all_trials(both, bank, SMALL, QUICK, frozenset(["image-007"]))
        assert [one.held_back for one in trials] == [0, 0]
        alone = _all_trials(both[:1], bank, SMALL, QUICK, frozenset(["image-007"]))
        assert np.array_equal(trials[0].train, alone[0].train)


def test_scans_that_cannot_be_fitted_together_are_said(mouse):
    with pytest.raises(InputError, match="no scan given"):
        fit_twin([], SMALL, QUICK)
    with pytest.raises(InputError, match="two scans are called 'mouse'; give each a name of its own"):
        fit_twin([mouse, mouse], SMALL, QUICK)
    still = replace(mouse, name="still", behavior=None, behavior_names=())
    with pytest.raises(
        InputError, match=r"one core cannot take both as channels: use --behavior gain \(behavior='gain'\)"
    ):
        fit_twin([mouse, still], replace(SMALL, behavior="channels"), QUICK)
    assert len(fit_twin([mouse, still], SMALL, replace(QUICK, max_epochs=1))) == 2
    with pytest.raises(InputError, match="no neuron_xyz; use free ones"):
        fit_twin(replace(mouse, neuron_xyz=None), replace(SMALL, positions="cortical"), QUICK)
    with pytest.raises(InputError, match="too small for a first filter of 16"):
        fit_twin(mouse, replace(SMALL, first_kernel=16, padded=False), QUICK)


def test_a_neuron_whose_cortical_place_is_not_known_is_fitted_where_places_are_free(mouse):
    xyz = mouse.neuron_xyz.copy()
    xyz[[3, 8], [0, 1]] = np.nan, np.inf
    lost = replace(mouse, neuron_xyz=xyz)
    (twin,) = fit_twin(lost, SMALL, replace(QUICK, max_epochs=1))
    assert twin.model.readout.positions.isfinite().all()
    with pytest.raises(
        InputError, match=r"scan mouse: neuron_xyz of 2 of 30 neurons is not finite.*take --positions free"
    ):
        fit_twin(lost, replace(SMALL, positions="cortical"), QUICK)
    deep = xyz.copy()
    deep[[3, 8]] = mouse.neuron_xyz[[3, 8]]
    deep[:, 2] = np.nan  # depth says nothing about where a neuron looks
    assert fit_twin(replace(mouse, neuron_xyz=deep), replace(SMALL, positions="cortical"), replace(QUICK, max_epochs=1))


# The same numbers, stopped or not


def test_the_same_seed_gives_the_same_bytes_and_leaves_random_numbers_alone(mouse, fitted):
    state = torch.random.get_rng_state()
    again = fit_twin(mouse, SMALL, QUICK)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert weights(again) == weights(fitted)
    assert again.history == fitted.history
    other = fit_twin(mouse, SMALL, replace(QUICK, seed=1))
    assert weights(other) != weights(fitted)


class Killed(Exception):
    """Raised where a process would have been killed."""


def kill_at(step: int):
    """Progress that raises at the `step`-th step told of."""
    told: list[FitProgress] = []

    def progress(now: FitProgress) -> None:
        told.append(now)
        if len(told) == step:
            raise Killed

    return progress


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


# What goes wrong


def test_a_loss_that_is_not_finite_stops_and_names_step_and_learning_rate(mouse):
    with pytest.raises(
        FloatingPointError, match=r"loss is (nan|inf) at epoch 1, step \d+, learning rate 1e\+30.*no epoch was finished"
    ) as stopped:
        fit_twin(mouse, SMALL, replace(QUICK, learning_rate=1e30))
    assert stopped.value.fitted is None


def test_the_best_twins_outlive_a_loss_that_is_not_finite(mouse, fitted, tmp_path):
    checkpoint = Checkpoint(tmp_path / "fit.safetensors", seconds=0)
    settings = replace(QUICK, max_epochs=4)
    with pytest.raises(Killed):
        fit_twin(mouse, SMALL, settings, checkpoint=checkpoint, progress=kill_at(2 * len(steps_of(mouse)) + 2))
    state = checkpoint.load()
    for name, value in state["models"].items():
        if name.endswith("readout.features"):
            value[3] = torch.nan
    checkpoint.save(state)
    with pytest.raises(FitDivergedError, match=r"loss is nan at epoch 3, step 2, learning rate 0.01") as stopped:
        fit_twin(mouse, SMALL, settings, checkpoint=checkpoint)
    kept = stopped.value.fitted
    assert [epoch.validation_correlation for epoch in kept.history] == [
        epoch.validation_correlation for epoch in fitted.history
    ]
    assert weights(kept) == weights(fitted)  # of the two epochs before
    assert np.isfinite(predict_population(kept[0], mouse.stimuli).mean).all()


def test_predictions_that_are_not_finite_are_no_best_epoch(mouse):
    """At such a rate one step takes the weights to where nothing can be predicted, with no loss of it seen."""
    lost = replace(QUICK, learning_rate=1e30, batch_images=len(fit_of([mouse]).images))
    with pytest.raises(
        FitDivergedError, match=r"predictions are not finite after epoch 1.*no epoch was finished"
    ) as error:
        fit_twin(mouse, SMALL, lost)
    assert error.value.fitted is None


def steps_of(scan: Scan) -> range:
    """The steps of an epoch."""
    return range(-(-len(fit_of([scan]).images) // QUICK.batch_images))


def test_a_scan_without_repeats_trains_and_says_once_that_its_neurons_count_alike(mouse):
    once = trials_of(mouse, np.flatnonzero(mouse.tier == "train"), "once")
    made = fit_twin([mouse, once], SMALL, replace(QUICK, max_epochs=1))
    (said,) = made.notes
    assert said.startswith("scan once: its neurons have no w and v, and count alike (")
    assert "0 of 0 images have 2 or more trials" in said
    assert made[0].weights is not None
    assert (made[1].snr, made[1].accuracy, made[1].weights) == (None, None, None)
    assert (predict_population(made[1], mouse.stimuli).weights == 1).all()


def test_trials_that_were_not_tracked_are_dropped_and_said_or_imputed(mouse):
    behavior = mouse.behavior.copy()
    behavior[np.flatnonzero(mouse.tier == "train")[:9], 0] = np.nan
    gaps = replace(mouse, behavior=behavior)
    dropped = fit_twin(gaps, SMALL, QUICK)
    assert dropped.notes == ("scan mouse: 9 trials left out, as behaviour or pupil was not tracked on them",)
    imputed = fit_twin(gaps, SMALL, replace(QUICK, missing_behavior="mean"))
    assert imputed.notes == ()
    assert len({*weights(dropped), *weights(imputed), *weights(fit_twin(mouse, SMALL, QUICK))}) == 3
    for twins in (dropped, imputed):
        assert np.isfinite(predict_population(twins[0], mouse.stimuli).mean).all()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"batch_images": 0}, "batch_images is 0; it must be 1 or more"),
        ({"patience": 0}, "patience is 0; it must be 1 or more"),
        ({"decays": -1}, "decays is -1; it must be 0 or more"),
        ({"smoothness": float("nan")}, "smoothness is nan; it must be 0 or more"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be above 0"),
        ({"decay": 1.0}, "decay is 1.0; it must be between 0 and 1"),
        ({"validation_fraction": 0.0}, "validation_fraction is 0.0; it must be between 0 and 1"),
        ({"missing_behavior": "zero"}, "missing_behavior is 'zero'; choose drop or mean"),
        ({"precision": "float16"}, "precision is 'float16'; choose float32 or bfloat16"),
        ({"least_gain": float("inf")}, "least_gain is inf; it must be 0 or more, and finite"),
        ({"batch_images": 2.5}, "batch_images is 2.5; give a whole number"),
        ({"seed": 2**63}, r"seed is 9223372036854775808; it must be below 2\^63"),
        ({"decay": "0.3"}, "decay is '0.3'; give a number"),
    ],
)
def test_settings_out_of_range_are_said(shapes_unchecked, wrong, said):
    with pytest.raises(InputError, match=said):
        FitSettings(**wrong)


@pytest.mark.parametrize("name", [name for name, value in asdict(FitSettings()).items() if not isinstance(value, str)])
def test_no_setting_may_be_nan(shapes_unchecked, name):
    with pytest.raises(InputError, match=f"fit: {name} is nan; "):
        FitSettings(**{name: float("nan")})
