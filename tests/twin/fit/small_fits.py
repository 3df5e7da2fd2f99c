"""Small fits of the small mouse: their settings, one step of one, one that is killed."""

from dataclasses import replace

import numpy as np
import torch

from neuroprior.twin import FitProgress, FitSettings, FittedTwins, TwinArchitecture
from neuroprior.twin.fit.fitting import _all_trials, _Fit
from neuroprior.twin.fit.models import new_models
from neuroprior.twin.fit.trials import image_bank
from neuroprior.types import Scan

SMALL = TwinArchitecture(core="stacked", channels=4, n_layers=2, first_kernel=7, kernel=3, padded=False)
QUICK = FitSettings(max_epochs=2, batch_images=16, learning_rate=1e-2, validation_fraction=0.2)


def weights(twins: FittedTwins) -> list[str]:
    """SHA-256 of each twin's parameters and buffers."""
    return [twin.digest for twin in twins]


def other_responses(scan: Scan, trials: np.ndarray) -> Scan:
    """The scan with other responses on these trials."""
    responses = scan.responses.copy()
    responses[trials] = 3 * responses[trials][::-1] + 1
    return replace(scan, responses=responses)


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


def steps_of(scan: Scan) -> range:
    """The steps of an epoch."""
    return range(-(-len(fit_of([scan]).images) // QUICK.batch_images))
