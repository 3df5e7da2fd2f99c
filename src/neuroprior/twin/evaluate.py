"""How well a twin predicts: of trials it was not trained on, with each trial's own behaviour and gaze."""

from dataclasses import dataclass

import numpy as np
import torch

from neuroprior.reliability import oracle_correlation
from neuroprior.twin.model import Twin, no_twin
from neuroprior.twin.predict import check_size, passes, pixel_scale, rates_of
from neuroprior.types import Float32, Float64, InputError, Int64, Scan, Tier
from neuroprior.types.given import refuse_other

__all__ = ["TwinScores", "explained_variance", "predict_trials", "score_twin", "scores_of"]

_FEV_THRESHOLD = 0.15


@dataclass(frozen=True, slots=True, eq=False)
class TwinScores:
    """Scores of every neuron on the trials of one tier; NaN where one is not defined (a neuron that never varies).

    `single_trial`: Pearson's r of prediction and response over trials; v_a is this on oracle trials, negatives 0.
    `to_average`: r of mean prediction and mean response, over images with repeats. `feve`: fraction of the explainable
    variance explained (`explained_variance`), NaN where less than `fev_threshold` of the variance is explainable.
    `oracle`: r of each response with the mean of the image's other trials, what a perfect model of the mean reaches
    about. All but `single_trial` are None where no image has two trials.
    """

    tier: str
    n_trials: int
    n_images: int
    single_trial: Float64[np.ndarray, " neuron"]
    to_average: Float64[np.ndarray, " neuron"] | None
    feve: Float64[np.ndarray, " neuron"] | None
    oracle: Float64[np.ndarray, " neuron"] | None
    fev_threshold: float = _FEV_THRESHOLD

    @property
    def accuracy(self) -> Float32[np.ndarray, " neuron"]:
        """v_a (Eq. 6): `single_trial`, 0 where it is negative or not defined."""
        kept: np.ndarray = np.nan_to_num(np.maximum(self.single_trial, 0.0), nan=0.0).astype(np.float32)
        return kept

    @property
    def oracle_fraction(self) -> float | None:
        """Slope through 0 of `single_trial` over `oracle` (Walker et al. 2019): how much of what repeats say."""
        if self.oracle is None:
            return None
        known = np.isfinite(self.oracle) & np.isfinite(self.single_trial)
        x, y = self.oracle[known], self.single_trial[known]
        return float(x @ y / (x @ x)) if (x @ x) > 0 else None


def predict_trials(twin: Twin, scan: Scan, trials: Int64[np.ndarray, " some"]) -> Float32[np.ndarray, "some neuron"]:
    """rho_ta of these trials, with the behaviour and pupil position of each, in units of the recorded responses.

    What was not tracked on a trial is taken as neutral. Raises `InputError` where the scan has other channels or
    neurons than the twin.
    """
    check_size(twin, scan.stimuli)
    if scan.responses.shape[1] != twin.n_neurons:
        raise InputError(
            f"scan {scan.name}: {scan.responses.shape[1]} neurons, and the twin {twin.name} has {twin.n_neurons}; "
            "score a twin on the scan that it was fitted to"
        )
    behavior, pupil = _conditions(twin, scan, trials)
    scale = pixel_scale(twin, scan.stimuli)
    rates = np.empty((len(trials), twin.n_neurons), dtype=np.float32)
    for rows in passes(len(trials)):
        pixels = scan.stimuli.pixels[scan.trial_image[trials[rows]]]
        rates[rows] = rates_of(twin, pixels, scale, torch.from_numpy(behavior[rows]), torch.from_numpy(pupil[rows]))
    return rates


def score_twin(
    twin: Twin, scan: Scan, tier: Tier = "oracle", *, trials: Int64[np.ndarray, " some"] | None = None
) -> TwinScores:
    """Score a twin on `trials`, or all of `tier`. Raises `InputError` where these are none, or of another size.

    A twin is not trained on oracle images; scores on its training tier say how well it fits, not how well it predicts.
    """
    if not isinstance(twin, Twin):
        raise no_twin("score_twin", twin)
    refuse_other("score_twin", scan, Scan)
    trials = np.flatnonzero(scan.tier == tier) if trials is None else trials
    check_scored(scan, tier, trials)
    return scores_of(predict_trials(twin, scan, trials), scan, trials, tier)


def check_scored(scan: Scan, tier: str, trials: Int64[np.ndarray, " some"]) -> None:
    """Raise `InputError` where there are too few trials for a score."""
    if len(trials) < 2:
        raise InputError(f"scan {scan.name}: {len(trials)} trials of tier {tier}; a score needs 2 or more")


def scores_of(
    rates: Float32[np.ndarray, "some neuron"], scan: Scan, trials: Int64[np.ndarray, " some"], tier: str
) -> TwinScores:
    """Score predictions of two or more trials, whoever made them; `tier`: what the trials are called."""
    predicted = rates.astype(np.float64)
    responses = scan.responses[trials].astype(np.float64)
    image = scan.trial_image[trials]
    single = correlation(predicted, responses)
    _, counts = np.unique(image, return_counts=True)
    if (counts >= 2).sum() < 2:
        return TwinScores(tier, len(trials), len(counts), single, None, None, None)
    kept = np.isin(image, np.unique(image)[counts >= 2])
    means = [_means(values[kept], image[kept]) for values in (predicted, responses)]
    return TwinScores(
        tier,
        len(trials),
        len(counts),
        single,
        correlation(*means),
        explained_variance(predicted[kept], responses[kept], image[kept]),
        oracle_correlation(responses[kept], image[kept]),
    )


def explained_variance(
    predicted: Float64[np.ndarray, "trial neuron"],
    responses: Float64[np.ndarray, "trial neuron"],
    image: Int64[np.ndarray, " trial"],
    threshold: float = _FEV_THRESHOLD,
) -> Float64[np.ndarray, " neuron"]:
    """FEVE = 1 - (mean (r - rho)^2 - noise) / (Var r - noise), noise the mean variance (ddof 1) over repeats.

    NaN where `1 - noise / Var r`, the explainable part, is below `threshold` (Cadena et al. 2019: 0.15).
    """
    rows = np.unique(image, return_inverse=True)[1]
    counts = np.bincount(rows)
    centred = responses - _means(responses, image)[rows]
    weight = 1 / np.maximum(counts - 1, 1)[rows]
    noise = (np.square(centred) * weight[:, None]).sum(axis=0) / np.count_nonzero(counts > 1)
    total = responses.var(axis=0, ddof=1)
    error = np.square(responses - predicted).mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        explainable = 1 - noise / total
        found: np.ndarray = np.where(explainable >= threshold, 1 - (error - noise) / (total - noise), np.nan)
    return found


def correlation(
    a: Float64[np.ndarray, "trial neuron"], b: Float64[np.ndarray, "trial neuron"]
) -> Float64[np.ndarray, " neuron"]:
    """Pearson's r of each column; NaN where one does not vary."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    size = np.sqrt(np.square(a).sum(axis=0) * np.square(b).sum(axis=0))
    with np.errstate(divide="ignore", invalid="ignore"):
        r: np.ndarray = (a * b).sum(axis=0) / np.where(size > 0, size, np.nan)
    return r


def _means(values: np.ndarray, image: np.ndarray) -> np.ndarray:
    order = np.argsort(image, kind="stable")
    _, starts, counts = np.unique(image[order], return_index=True, return_counts=True)
    means: np.ndarray = np.add.reduceat(values[order], starts, axis=0) / counts[:, None]
    return means


def _conditions(twin: Twin, scan: Scan, trials: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Behaviour and pupil position of these trials; neutral where the animal was not tracked."""
    neutral = np.array(twin.neutral_behavior, dtype=np.float32)
    behavior = np.tile(neutral, (len(trials), 1))
    if len(neutral):
        channels = 0 if scan.behavior is None else scan.behavior.shape[1]
        if channels != len(neutral) or (twin.behavior_names and twin.behavior_names != scan.behavior_names):
            raise InputError(
                f"scan {scan.name}: behaviour {', '.join(scan.behavior_names) or 'none'}, and twin {twin.name} takes "
                f"{', '.join(twin.behavior_names) or f'{len(neutral)} channels'}; give it the scan it was fitted to"
            )
        assert scan.behavior is not None
        given = scan.behavior[trials]
        behavior = np.where(np.isfinite(given), given, neutral)
    still = np.array(twin.neutral_pupil, dtype=np.float32)
    pupil = np.tile(still, (len(trials), 1))
    if scan.pupil_center is not None:
        where = scan.pupil_center[trials]
        pupil = np.where(np.isfinite(where).all(axis=1, keepdims=True), where, still)
    return behavior, pupil
