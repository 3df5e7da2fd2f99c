"""Fitting: what it learns, and what it says where it cannot."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from small_fits import QUICK, SMALL, Killed, fit_of, kill_at, steps_of, weights
from small_mouse import neurons_of, small_mouse, trials_of

from neuroprior.checkpoint import Checkpoint
from neuroprior.twin import FitSettings, TwinArchitecture, fit_twin, predict_population, score_twin
from neuroprior.twin.evaluate import predict_trials
from neuroprior.twin.fit import FitDivergedError
from neuroprior.types import InputError, Precision, Scan

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


def learns_something(mouse: Scan, architecture: TwinArchitecture, precision: Precision) -> None:
    settings = replace(QUICK, precision=precision, max_epochs=4, group_sparsity=0.01)
    made = fit_twin(mouse, architecture, settings)
    assert np.isfinite(predict_population(made[0], mouse.stimuli).mean).all()
    assert max(epoch.validation_correlation for epoch in made.history) > 0.15
    assert all(np.isfinite([epoch.loss, epoch.penalty]).all() for epoch in made.history)


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
