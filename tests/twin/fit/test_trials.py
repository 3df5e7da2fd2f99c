"""Which trials are fitted, stopped by and left out, and what is known of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_mouse import small_mouse, trials_of

from neuroprior.twin import FitSettings
from neuroprior.twin.fit.trials import (
    HeldBack,
    ScanTrials,
    held_back,
    held_out,
    image_bank,
    scan_trials,
    stopping_trials,
)
from neuroprior.types import InputError, Scan, Stimuli

SETTINGS = FitSettings(validation_fraction=0.2)


def sorted_trials(
    scan: Scan,
    settings: FitSettings = SETTINGS,
    left_out: frozenset[str] = frozenset(),
    held: HeldBack = HeldBack(),  # noqa: B008 # frozen
    **needs: bool,
) -> ScanTrials:
    rows = {name: row for row, name in enumerate(image_bank([scan]).ids.tolist())}
    return scan_trials(scan, rows, settings, left_out, held, **needs)


@pytest.fixture(scope="module")
def mouse() -> Scan:
    return small_mouse()


def test_every_trial_is_fitted_or_stopped_by_or_oracle(mouse):
    trials = sorted_trials(mouse)
    oracle = np.flatnonzero(mouse.tier == "oracle")
    every = np.concatenate([trials.train, trials.validation, oracle])
    assert sorted(every.tolist()) == list(range(len(mouse.trial_image)))
    assert not set(mouse.trial_image[trials.train]) & set(mouse.trial_image[trials.validation])
    assert 0.1 < len(trials.validation) / (len(trials.train) + len(trials.validation)) < 0.3
    assert trials.dropped == 0


def test_a_tier_of_validation_is_what_training_is_stopped_by(mouse):
    tier = mouse.tier.astype("<U10")
    some = np.isin(mouse.trial_image, [3, 50, 77])
    tier[some] = "validation"
    trials = sorted_trials(replace(mouse, tier=tier))
    assert trials.validation.tolist() == np.flatnonzero(some).tolist()
    assert trials.train.tolist() == np.flatnonzero(tier == "train").tolist()


def test_images_left_out_are_in_no_list(mouse):
    names = frozenset(["image-003", "image-077", "image-100", "oracle-01"])
    trials = sorted_trials(mouse, left_out=names)
    used = np.concatenate([trials.train, trials.validation])
    assert not set(mouse.trial_ids[used].tolist()) & names
    assert len(used) == 120 - 3
    assert trials.dropped == 0


def test_images_left_out_do_not_stop_a_fit_either(mouse):
    """Not where the scan has validation trials of its own: what a fold leaves out must not choose its best epoch."""
    tier = mouse.tier.astype("<U10")
    tier[np.isin(mouse.trial_ids, [f"image-{k:03d}" for k in range(20)])] = "validation"
    names = frozenset(f"image-{k:03d}" for k in range(5))
    trials = sorted_trials(replace(mouse, tier=tier), left_out=names)
    assert set(mouse.trial_ids[trials.validation].tolist()) == {f"image-{k:03d}" for k in range(5, 20)}


def test_all_scans_hold_out_the_same_images_in_any_order():
    ids = np.array([f"photograph-{k}" for k in range(4000)])
    held = held_out(ids, 0.1, 0)
    order = np.random.default_rng(0).permutation(len(ids))
    assert np.array_equal(held_out(ids[order], 0.1, 0), held[order])
    assert np.array_equal(held_out(ids[:7], 0.1, 0), held[:7])  # whatever else a scan shows
    assert abs(held.mean() - 0.1) < 0.02
    assert (held <= held_out(ids, 0.2, 0)).all()  # a larger part holds the smaller
    other = held_out(ids, 0.1, 1)
    assert abs((held & other).mean() - 0.01) < 0.008  # another seed's are others


def test_what_another_scan_holds_back_is_not_trained_on_and_counted(mouse):
    """Its oracle images are in no list; its validation images may still be this scan's own."""
    alone = sorted_trials(mouse)
    shown = mouse.trial_ids
    fitted, stopping = (sorted(set(shown[some].tolist())) for some in (alone.train, alone.validation))
    held = HeldBack(
        oracle=frozenset([fitted[0], stopping[0], "of another scan"]), validation=frozenset([fitted[1], stopping[1]])
    )
    trials = sorted_trials(mouse, held=held)
    assert set(fitted) - set(shown[trials.train].tolist()) == {fitted[0], fitted[1]}
    assert set(stopping) - set(shown[trials.validation].tolist()) == {stopping[0]}
    assert (alone.held_back, trials.held_back) == (0, 3)
    assert sorted_trials(mouse, left_out=frozenset(fitted[:1]), held=held).held_back == 2  # the fold left one out
    with pytest.raises(InputError, match=r"0 trials to train on \(\d+ show images that another scan holds back\)"):
        sorted_trials(mouse, held=HeldBack(validation=frozenset(fitted)))


def test_what_is_held_back_is_what_any_scan_holds_back(mouse):
    tier = np.where(np.isin(mouse.trial_ids, ["image-003", "image-050"]), "validation", mouse.tier.astype("<U10"))
    other = replace(mouse, name="other", tier=tier)
    held = held_back([mouse, other], SETTINGS)
    by_hash = set(mouse.trial_ids[sorted_trials(mouse).validation].tolist())
    assert held.validation == by_hash | {"image-003", "image-050"}
    assert held.oracle == {f"oracle-{k:02d}" for k in range(10)}
    assert held_back([other], SETTINGS).validation == {"image-003", "image-050"}


@pytest.mark.parametrize("tiers", ["train", "validation"])
def test_what_training_was_stopped_by_is_known_afterwards(mouse, tiers):
    """Without the fit at hand: as it was, less what was oracle elsewhere and what was not tracked."""
    if tiers == "validation":
        tier = np.where(mouse.trial_image < 30, "validation", mouse.tier.astype("<U10"))
        mouse = replace(mouse, tier=tier)
    behavior, pupil = mouse.behavior.copy(), mouse.pupil_center.copy()
    first = sorted_trials(mouse).validation
    behavior[first[2]], pupil[first[3]] = np.nan, np.nan
    gaps = replace(mouse, behavior=behavior, pupil_center=pupil)
    held = HeldBack(oracle=frozenset(mouse.trial_ids[first[:1]].tolist()))
    for needs, lost in (({"needs_behavior": True}, [0, 2, 3]), ({"needs_behavior": False}, [0, 3])):
        trials = sorted_trials(gaps, held=held, needs_pupil=True, **needs)
        known = stopping_trials(gaps, SETTINGS, held, needs_pupil=True, **needs)
        assert np.array_equal(known, trials.validation)
        assert np.array_equal(known, np.delete(first, lost))


def test_responses_below_0_are_said(mouse):
    """A Poisson loss has no meaning for them; on trials that are not fitted they do no harm."""
    responses = mouse.responses.copy()
    responses[sorted_trials(mouse).validation] *= -1
    assert len(sorted_trials(replace(mouse, responses=responses)).train)
    scored = ((responses - responses.mean(axis=0)) / responses.std(axis=0)).astype(np.float32)
    with pytest.raises(
        InputError, match=r"scan mouse: [4-8]\d % of the responses to train on are below 0; give rates of 0 or more"
    ):
        sorted_trials(replace(mouse, responses=scored))
    one = mouse.responses.copy()
    one[sorted_trials(mouse).train[-1], 5] = -1e-3
    with pytest.raises(InputError, match=r"scan mouse: 0\.0\d+ % of the responses to train on are below 0"):
        sorted_trials(replace(mouse, responses=one))


def test_a_trial_that_was_not_tracked_is_dropped_and_counted_once(mouse):
    trials = sorted_trials(mouse)
    behavior, pupil = mouse.behavior.copy(), mouse.pupil_center.copy()
    oracle = np.flatnonzero(mouse.tier == "oracle")
    behavior[trials.train[:3], 1] = np.nan
    behavior[trials.validation[0]] = np.inf
    behavior[oracle[:5]] = np.nan  # not of training: no loss
    pupil[trials.train[2:5], 0] = np.nan
    gaps = replace(mouse, behavior=behavior, pupil_center=pupil)
    dropped = sorted_trials(gaps)
    assert dropped.dropped == 6
    assert np.array_equal(dropped.train, trials.train[5:])
    assert np.array_equal(dropped.validation, trials.validation[1:])
    used = np.concatenate([dropped.train, dropped.validation])
    assert all(part.isfinite().all() for part in dropped.conditions(used))
    assert np.array_equal(dropped.conditions(used)[0].numpy(), mouse.behavior[used])


def test_what_was_not_tracked_gets_its_mean_where_that_is_asked(mouse):
    behavior, pupil = mouse.behavior.copy(), mouse.pupil_center.copy()
    behavior[:20, 1] = np.nan
    pupil[30:35] = np.nan
    gaps = replace(mouse, behavior=behavior, pupil_center=pupil)
    trials = sorted_trials(gaps, replace(SETTINGS, missing_behavior="mean"))
    assert trials.dropped == 0
    assert len(trials.train) == len(sorted_trials(mouse).train)
    assert np.allclose(trials.behavior[:20, 1], np.nanmean(behavior[:, 1]), rtol=1e-6)
    assert np.array_equal(trials.behavior[:, 0], mouse.behavior[:, 0])
    assert np.allclose(trials.pupil[30:35], np.nanmean(pupil, axis=0), rtol=1e-6)


def test_what_the_twin_does_not_take_costs_no_trial(mouse):
    behavior, pupil = np.full_like(mouse.behavior, np.nan), np.full_like(mouse.pupil_center, np.nan)
    blind = replace(mouse, behavior=behavior, pupil_center=pupil)
    trials = sorted_trials(blind, needs_behavior=False, needs_pupil=False)
    assert trials.dropped == 0
    assert np.isfinite(trials.behavior).all()
    assert np.isfinite(trials.pupil).all()
    with pytest.raises(InputError, match=r"0 trials to train on.*have no behaviour or pupil: --missing-behavior mean"):
        sorted_trials(blind, needs_pupil=False)


def test_a_scan_without_behaviour_and_pupil_has_none(mouse):
    trials = sorted_trials(replace(mouse, behavior=None, behavior_names=(), pupil_center=None))
    behavior, pupil = trials.conditions(trials.train)
    assert behavior.shape == (len(trials.train), 0)
    assert not pupil.any()


def test_units_and_means_are_numpys_of_the_training_trials(mouse):
    many = small_mouse(n_images=700, n_neurons=4)  # more than one part of rows
    lifted = replace(many, responses=many.responses + np.float32([0, 10, 1000, 0]))
    trials = sorted_trials(lifted)
    assert len(trials.train) > 512
    fitted = lifted.responses[trials.train].astype(np.float64)
    assert np.allclose(trials.mean, fitted.mean(axis=0), rtol=1e-6)
    assert np.allclose(trials.unit, fitted.std(axis=0), rtol=1e-5)
    assert np.allclose(trials.responses(trials.train).numpy().std(axis=0), 1, atol=1e-3)
    assert not np.allclose(trials.mean[0], lifted.responses[:, 0].mean(), rtol=1e-4)  # of all trials


def test_a_neuron_that_hardly_responds_is_not_blown_up(mouse):
    responses = mouse.responses.copy()
    responses[:, 3] = 0
    responses[:, 4] *= 1e-6
    trials = sorted_trials(replace(mouse, responses=responses))
    least = 0.01 * responses[trials.train].std(axis=0).mean()
    assert np.allclose(trials.unit[3:5], least, rtol=1e-4)
    assert trials.responses(trials.train)[:, 3:5].max() < 0.01


def test_the_bank_holds_every_image_once(mouse):
    few = trials_of(mouse, np.flatnonzero(mouse.trial_image < 40), "few")
    order = np.random.default_rng(0).permutation(len(few.stimuli))[:60]
    shown = np.concatenate([order[order < 40], order[order >= 40]])
    other = Scan(
        "other",
        Stimuli(np.append(mouse.stimuli.ids[shown], "new"), np.append(mouse.stimuli.pixels[shown], [shown_new()], 0)),
        np.arange(len(shown) + 1),
        np.ones((len(shown) + 1, 2), dtype=np.float32),
        np.full(len(shown) + 1, "train"),
    )
    bank = image_bank([mouse, other])
    assert bank.ids.tolist() == [*mouse.stimuli.ids.tolist(), "new"]
    assert np.array_equal(bank.pixels[:-1], mouse.stimuli.pixels)
    seen = mouse.stimuli.pixels[np.unique(mouse.trial_image[mouse.tier == "train"])]
    assert image_bank([mouse]).mean == pytest.approx(seen.mean(dtype=np.float64))
    assert image_bank([mouse]).std == pytest.approx(seen.std(dtype=np.float64))
    trials = sorted_trials(mouse)
    assert np.array_equal(image_bank([mouse]).ids[trials.row], mouse.trial_ids)


def shown_new() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (16, 24), dtype=np.uint8)


def test_z_scored_training_images_have_mean_0_and_standard_deviation_1(mouse):
    bank = image_bank([mouse])
    images = bank.z_scored(np.arange(120))
    assert images.shape == (120, 1, 16, 24)
    assert abs(float(images.mean())) < 1e-5
    assert abs(float(images.std(correction=0)) - 1) < 1e-5
    assert torch.allclose(images[7, 0] * bank.std + bank.mean, torch.from_numpy(bank.pixels[7]).float(), atol=1e-3)


def test_one_id_with_other_pixels_is_said(mouse):
    pixels = mouse.stimuli.pixels.copy()
    pixels[5, 3, 3] ^= 1
    with pytest.raises(InputError, match="scan second: image 'image-005' has other pixels than in an earlier scan"):
        image_bank([mouse, replace(mouse, name="second", stimuli=Stimuli(mouse.stimuli.ids, pixels))])


def test_scans_of_two_image_sizes_are_said(mouse):
    smaller = replace(mouse, name="second", stimuli=Stimuli(mouse.stimuli.ids, mouse.stimuli.pixels[:, :12]))
    with pytest.raises(InputError, match=r"scan second: images of 12x24, and of 16x24 in scan mouse; .* resize"):
        image_bank([mouse, smaller])


def test_images_and_neurons_that_never_differ_are_said(mouse):
    flat = replace(mouse, stimuli=Stimuli(mouse.stimuli.ids, np.full_like(mouse.stimuli.pixels, 90)))
    with pytest.raises(InputError, match="all pixels of all training images are equal"):
        image_bank([flat])
    silent = replace(mouse, responses=np.zeros_like(mouse.responses))
    with pytest.raises(InputError, match="no neuron's response differs from trial to trial"):
        sorted_trials(silent)


def test_nothing_to_train_on_or_stop_by_is_said(mouse):
    oracle = trials_of(mouse, np.flatnonzero(mouse.tier == "oracle"))
    with pytest.raises(InputError, match="no trial is of tier train"):
        image_bank([oracle])
    with pytest.raises(InputError, match="scan mouse: 0 trials to train on; a twin needs 2 or more"):
        sorted_trials(mouse, left_out=frozenset(mouse.stimuli.ids.tolist()))
    with pytest.raises(InputError, match="0 trials to stop by"):
        sorted_trials(mouse, replace(SETTINGS, validation_fraction=1e-9))
