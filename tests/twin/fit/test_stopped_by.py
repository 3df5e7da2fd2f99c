"""A fit's folder knows which trials training was stopped by: scored on them, its twins reach what training reached."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_mouse import small_mouse

from neuroprior.twin import FitSettings, TwinArchitecture, fit_in_folder, score_denoiser
from neuroprior.types import Scan

SMALL = TwinArchitecture(core="stacked", channels=4, n_layers=2, first_kernel=7, kernel=3, padded=False)
QUICK = FitSettings(max_epochs=2, batch_images=16, learning_rate=1e-2, validation_fraction=0.3)


def test_a_folder_knows_what_training_was_stopped_by(tmp_path: Path):
    """Though one scan scores images that the other holds out, and the animal was not tracked on all trials."""
    first, second = small_mouse(), small_mouse("second", seed=1)
    alone = fit_in_folder([first], tmp_path / "alone", SMALL, replace(QUICK, max_epochs=1)).validation_trials(first)
    behavior = first.behavior.copy()
    behavior[alone[:2]] = np.nan
    first = replace(first, behavior=behavior)
    names = first.trial_ids[alone[2:5]]
    second = replace(second, tier=np.where(np.isin(second.trial_ids, names), "oracle", second.tier))

    made = fit_in_folder([first, second], tmp_path / "both", SMALL, QUICK)
    held = [made.validation_trials(scan) for scan in (first, second)]
    assert held[0].tolist() == alone[5:].tolist()
    assert not np.isin(second.trial_ids[held[1]], names).any()
    best = max(epoch.validation_correlation for epoch in made.history[0])
    assert reached(made.twins, [first, second], held) == pytest.approx(best, abs=1e-5)
    assert reached(made.twins, [first, second], [alone, held[1]]) != pytest.approx(best, abs=1e-3)


def reached(twins, scans: list[Scan], trials: list[np.ndarray]) -> float:
    """Mean over the neurons of all scans of the correlation over these trials."""
    each = [
        score_denoiser(twin, scan, "validation", trials=some).single_trial
        for twin, scan, some in zip(twins, scans, trials, strict=True)
    ]
    return float(np.concatenate(each).mean())
