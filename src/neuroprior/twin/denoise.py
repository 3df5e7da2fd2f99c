"""Twins -> SimilarityTarget: how alike the denoised populations find images, averaged over scans (Eq. 6)."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from neuroprior.recordings.given import given_scans
from neuroprior.similarity import average_targets, target_from_population
from neuroprior.twin.architecture import TwinArchitecture
from neuroprior.twin.evaluate import TwinScores, check_scored, predict_trials, score_twin, scores_of
from neuroprior.twin.fit import FitProgress, FitSettings, FittedTwins, fit_twin
from neuroprior.twin.fit.trials import fold_of
from neuroprior.twin.model import Twin, no_twin
from neuroprior.twin.predict import check_size, neuron_weights, pixel_scale, predict_population
from neuroprior.types import (
    AnyTarget,
    Float32,
    InputError,
    Int64,
    Population,
    Precision,
    Scan,
    SimilarityTarget,
    Stimuli,
    Tier,
    Weighting,
)
from neuroprior.types.given import refuse_other

__all__ = [
    "CrossfitTwin",
    "Denoiser",
    "fit_crossfit",
    "mean_details",
    "predict_denoised",
    "score_denoiser",
    "target_details",
    "target_from_twin",
]

_USUAL_ARCHITECTURE, _USUAL_SETTINGS = TwinArchitecture(), FitSettings()


@dataclass(frozen=True, slots=True, eq=False)
class CrossfitTwin:
    """Twins of one scan, each fitted without one fold of the training images.

    `folds[k]` has not seen the images of fold k (`fold_of(ids, len(folds), seed)`).
    """

    folds: tuple[Twin, ...]
    seed: int

    def __post_init__(self) -> None:
        if len(self.folds) < 2:
            raise InputError(f"crossfit: {len(self.folds)} folds; give 2 or more")

    @property
    def name(self) -> str:
        """Of the scan."""
        return self.folds[0].name


Denoiser = Twin | CrossfitTwin
"""What predicts one scan's neurons."""


def fit_crossfit(
    scans: Scan | Sequence[Scan],
    n_folds: int,
    architecture: TwinArchitecture = _USUAL_ARCHITECTURE,
    settings: FitSettings = _USUAL_SETTINGS,
    *,
    fit: Callable[[int, tuple[str, ...]], FittedTwins] | None = None,
    progress: Callable[[int, FitProgress], None] | None = None,
) -> tuple[CrossfitTwin, ...]:
    """Fit the scans `n_folds` times, each time without a fold of the images: one `CrossfitTwin` a scan.

    A target of them is out of sample: no image is predicted by a model that was trained on responses to it. `fit`: does
    the fit of a fold, told its number and the ids to leave out, in place of `fit_twin` (to keep each on disk, say).
    Raises `InputError` for fewer than 2 folds, and as `fit_twin`.
    """
    if n_folds < 2:
        raise InputError(f"crossfit: {n_folds} folds; give 2 or more, or fit without crossfit")
    scans = given_scans("crossfit", scans)
    every = np.unique(np.concatenate([scan.stimuli.ids for scan in scans]))
    fold = fold_of(every, n_folds, settings.seed)
    fitted = []
    for k in range(n_folds):
        left_out = tuple(every[fold == k].tolist())
        if fit is not None:
            fitted.append(fit(k, left_out))
            continue
        tell = None if progress is None else partial(progress, k)
        fitted.append(fit_twin(scans, architecture, settings, leave_out=left_out, progress=tell))
    return tuple(CrossfitTwin(tuple(twins), settings.seed) for twins in zip(*fitted, strict=True))


def predict_denoised(
    twin: Denoiser,
    stimuli: Stimuli,
    *,
    weighting: Weighting | None = None,
    v_power: float = 1.0,
    precision: Precision = "float32",
    progress: Callable[[int, int], None] | None = None,
) -> Population:
    """`rho_hat_ia` at neutral behaviour and gaze, with weights `w_a v_a^n`: `predict_population`, crossfit or not.

    Of a crossfit, the model that left an image out predicts it; images that no fold was trained on (the oracle's, or
    new ones) have a fold all the same, and v is the mean over folds.
    """
    if isinstance(twin, Twin):
        return predict_population(
            twin, stimuli, weighting=weighting, v_power=v_power, precision=precision, progress=progress
        )
    mean: Float32[np.ndarray, "image neuron"] | None = None
    done = 0
    fold = fold_of(stimuli.ids, len(twin.folds), twin.seed)
    for k, member in enumerate(twin.folds):
        rows = np.flatnonzero(fold == k)
        if not len(rows):
            continue
        # z-scored as all stimuli together, also by a twin without numbers of its own
        pixel_mean, pixel_std = pixel_scale(member, stimuli)
        part = predict_population(
            replace(member, pixel_mean=pixel_mean, pixel_std=pixel_std),
            stimuli.select(stimuli.ids[rows]),
            weighting="none",
            precision=precision,
            progress=None if progress is None else partial(_tell, progress, done, len(stimuli)),
        )
        mean = np.empty((len(stimuli), part.mean.shape[1]), dtype=np.float32) if mean is None else mean
        mean[rows] = part.mean
        done += len(rows)
    assert mean is not None  # stimuli hold one image or more
    weights = np.mean([neuron_weights(member, weighting, v_power) for member in twin.folds], axis=0)
    return Population(stimuli.ids, mean, weights.astype(np.float32), "twin")


def score_denoiser(
    twin: Denoiser, scan: Scan, tier: Tier = "oracle", *, trials: Int64[np.ndarray, " some"] | None = None
) -> TwinScores:
    """`score_twin`, crossfit or not: of a crossfit, each trial is predicted by the model that did not see its image.

    Oracle images, which no fold was trained on, are predicted by the mean over folds.
    """
    if isinstance(twin, Twin):
        return score_twin(twin, scan, tier, trials=trials)
    chosen = np.flatnonzero(scan.tier == tier) if trials is None else trials
    check_scored(scan, tier, chosen)
    fold = fold_of(scan.stimuli.ids, len(twin.folds), twin.seed)[scan.trial_image[chosen]]
    nobody_saw = scan.tier[chosen] == "oracle"
    rates = np.zeros((len(chosen), scan.responses.shape[1]), dtype=np.float32)
    for k, member in enumerate(twin.folds):
        own = np.flatnonzero((fold == k) & ~nobody_saw)
        rates[own] = predict_trials(member, scan, chosen[own])
        rates[nobody_saw] += predict_trials(member, scan, chosen[nobody_saw]) / len(twin.folds)
    return scores_of(rates, scan, chosen, tier)


def target_from_twin(
    twin: Denoiser | Sequence[Denoiser],
    stimuli: Stimuli,
    *,
    weighting: Weighting | None = None,
    v_power: float = 1.0,
    precision: Precision = "float32",
    progress: Callable[[int, int], None] | None = None,
) -> SimilarityTarget:
    """S_model (Eq. 6): Eq. 2 of the denoised responses, each neuron weighted by `w_a v_a^n`; of several, the mean.

    `weighting`, `v_power`: as in `neuron_weights`. A target of `precision: bfloat16` says that it is coarse.
    `progress` is told images done and images in all, of each twin in turn.
    """
    twins: Sequence[Denoiser] = [twin] if isinstance(twin, Denoiser | str | os.PathLike) else list(twin)
    if not twins:
        raise InputError("target_from_twin: no twin given; pass one or more")
    for one in twins:
        if not isinstance(one, Denoiser):
            raise no_twin("target_from_twin", one)
    refuse_other("target_from_twin", stimuli, Stimuli)
    targets = []
    for one in twins:
        population = predict_denoised(
            one, stimuli, weighting=weighting, v_power=v_power, precision=precision, progress=progress
        )
        details = target_details(one, stimuli, weighting=weighting, v_power=v_power, precision=precision)
        targets.append(target_from_population(population, stimuli, details=details))
    if len(targets) == 1:
        return targets[0]
    mean = average_targets(targets)
    return replace(mean, details={**mean.details, **mean_details(twins, targets)})


def _tell(progress: Callable[[int, int], None], before: int, of: int, done: int, _: int) -> None:
    progress(before + done, of)


def target_details(
    twin: Denoiser,
    stimuli: Stimuli,
    *,
    weighting: Weighting | None = None,
    v_power: float = 1.0,
    precision: Precision = "float32",
) -> dict[str, str | float | int]:
    """Say how a target of this twin is made, for every table that uses it."""
    one = twin if isinstance(twin, Twin) else twin.folds[0]
    check_size(one, stimuli)
    mean, std = pixel_scale(one, stimuli)
    said: dict[str, str | float | int] = {}
    if one.neutral_behavior:
        values = ", ".join(f"{value:g}" for value in one.neutral_behavior)
        said["neutral_behavior"] = f"{values} (assumed: not in the checkpoint)" if one.neutral_is_assumed else values
    said |= {
        "twin": one.name,
        "twin_digest": one.digest,
        "weights": _weights_said(one, weighting, v_power),
        "pixel_mean": mean,
        "pixel_std": std,
    }
    if isinstance(twin, CrossfitTwin):
        said["crossfit"] = f"{len(twin.folds)} folds, seed {twin.seed}: each image by a model that did not see it"
        said["twin_digest"] = ", ".join(member.digest for member in twin.folds)
    if precision == "bfloat16":
        said["precision"] = "bfloat16: too coarse for a target that results rest on"
    return said


def mean_details(twins: Sequence[Denoiser], targets: Sequence[AnyTarget]) -> dict[str, str]:
    """Say of which twins a mean of their targets is; where they are weighted otherwise, what each one's weights are."""
    said = {"twins": ", ".join(one.name for one in twins)}
    weights = [str(target.details["weights"]) for target in targets]
    if len(set(weights)) > 1:
        said["weights"] = "; ".join(f"{twin.name}: {how}" for twin, how in zip(twins, weights, strict=True))
    return said


def _weights_said(twin: Twin, weighting: Weighting | None, v_power: float) -> str:
    if twin.weights is None and weighting in (None, "none"):
        return "1 for every neuron (ready-made twin: no recording, so no w and v)"
    v = "v" if v_power == 1 else f"v^{v_power:g}"
    said = {"snr-v": f"w {v} (Eq. 1, 6)", "snr": "w (Eq. 1)", "v": v, "none": "1 for every neuron (asked for)"}
    return said[weighting or "snr-v"]
