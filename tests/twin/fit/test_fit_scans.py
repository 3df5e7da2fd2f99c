"""Several scans in one fit: they share the core, and what one holds back none is trained on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_fits import QUICK, SMALL, other_responses, weights
from small_mouse import neurons_of, small_mouse

from neuroprior.twin import TwinArchitecture, fit_twin
from neuroprior.twin.core import Core
from neuroprior.twin.fit.fitting import _all_trials
from neuroprior.twin.fit.trials import image_bank
from neuroprior.types import InputError, Scan

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
