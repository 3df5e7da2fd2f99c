"""How well any model can do: the agreement of a recording's similarity with itself."""

from dataclasses import dataclass
from math import sqrt
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch

from neuroprior.reliability import ImageIds, RepeatedTrials
from neuroprior.similarity.oracle import halves, oracle_of, used_trials
from neuroprior.similarity.unit import Responses, as_weights
from neuroprior.types import Float64, InputError, Int64, Shaped

__all__ = ["CEILING_IMAGES", "CEILING_TRIALS", "NoiseCeiling", "noise_ceiling"]

Resampled: TypeAlias = Literal["images", "neurons", "both"]

CEILING_TRIALS, CEILING_IMAGES = 4, 3
"""Trials of an image that two halves need, and such images that a correlation of pairs needs."""

_LIMIT = 1 - 1e-12  # of a correlation, before its atanh


@dataclass(frozen=True, slots=True)
class NoiseCeiling:
    """Reliability of S^oracle (pairs i < j): its correlation with that of as many new trials of the same neurons.

    `mean` lies in the 95 % interval from `low` to `high`. A model cannot be expected to correlate with S^oracle better
    than `best_model`, which S^oracle of endless trials would reach.
    """

    mean: float
    low: float
    high: float
    resampled: Resampled
    n_images: int
    n_neurons: int
    n_splits: int
    n_resamples: int

    @property
    def best_model(self) -> float:
        """`sqrt(mean)`; 0 where the halves do not agree at all."""
        return sqrt(max(self.mean, 0.0))


def noise_ceiling(
    responses: Shaped[Responses, "trial neuron"],
    image_ids: ImageIds,
    weights: Shaped[Responses, " neuron"],
    seed: int,
    *,
    resampled: Resampled = "both",
    n_splits: int = 20,
    n_resamples: int = 200,
) -> NoiseCeiling:
    """`2 r / (1 + r)`, `r` the correlation over pairs `i < j` of the S^oracle of two halves of the trials.

    `r` is averaged, as atanh r, over `n_splits` random halvings; Spearman and Brown's formula carries it to all trials.
    It takes noise to fall with their number, where a product of two noisy vectors falls faster: of a very noisy
    recording it says a little less than is true. Images with fewer than 4 trials are left out.

    The interval is of a bootstrap over images, neurons or both at once, each resample with a halving of its own: 95 %
    of the atanh r around their mean, laid around that of all images and neurons (a resample of neurons holds fewer
    different ones and agrees less well: its place is biased, its width is not). Images drawn twice count twice with
    others, and never as a pair with themselves. Resampling both at once errs towards too wide an interval.
    Raises as `oracle_similarity` does; at least 3 images are needed.
    """
    if resampled not in get_args(Resampled):
        raise InputError(f"noise ceiling: resampled {resampled!r} is not one of {', '.join(get_args(Resampled))}")
    if n_splits < 1 or n_resamples < 2:
        raise InputError(f"noise ceiling: {n_splits} splits and {n_resamples} resamples; give at least 1 and 2")
    trials = used_trials(responses, image_ids, least=CEILING_TRIALS)
    n, n_neurons = len(trials.ids), responses.shape[1]
    if n < CEILING_IMAGES:
        raise InputError(
            f"noise ceiling: {n} images have {CEILING_TRIALS} or more trials; a correlation of pairs needs "
            f"{CEILING_IMAGES}"
        )
    w = as_weights(weights, responses, "noise ceiling")
    random = np.random.default_rng(seed)
    once = np.ones(n, dtype=np.int64)
    center = float(np.mean([_agreement(responses, w, trials, once, random) for _ in range(n_splits)]))
    drawn = np.empty(n_resamples)
    for b in range(n_resamples):
        images, weighted = once, w
        if resampled != "neurons":
            images = _times_drawn(n, random, least=3)
        if resampled != "images":
            # a neuron c times over is a neuron whose weight is sqrt(c) times as large
            weighted = w * torch.from_numpy(np.sqrt(_times_drawn(n_neurons, random, least=1))).to(w)
        drawn[b] = _agreement(responses, weighted, trials, images, random)
    low, high = center + np.quantile(drawn, [0.025, 0.975]) - drawn.mean()
    return NoiseCeiling(
        mean=_of_all_trials(center),
        low=_of_all_trials(min(low, center)),
        high=_of_all_trials(max(high, center)),
        resampled=resampled,
        n_images=n,
        n_neurons=n_neurons,
        n_splits=n_splits,
        n_resamples=n_resamples,
    )


def _times_drawn(n: int, random: np.random.Generator, least: int) -> Int64[np.ndarray, " n"]:
    """How often each of n is drawn in n draws, of which at least so many are different."""
    while True:
        times = np.bincount(random.integers(n, size=n), minlength=n)
        if np.count_nonzero(times) >= least:
            return times


def _agreement(
    responses: Responses,
    weights: torch.Tensor,
    trials: RepeatedTrials,
    images: Int64[np.ndarray, " image"],
    random: np.random.Generator,
) -> float:
    """Atanh of the correlation of two halves' matrices, each image as often as `images` says."""
    one, two = (oracle_of(responses, weights, half).cpu().numpy() for half in halves(trials, random))
    i, j = np.triu_indices(len(images), 1)
    return float(np.arctanh(_correlation(one[i, j], two[i, j], images[i] * images[j])))


def _correlation(x: np.ndarray, y: np.ndarray, times: Int64[np.ndarray, " pair"]) -> float:
    """Pearson's, every pair as often as `times` says; 0 where one side does not vary."""
    share: Float64[np.ndarray, " pair"] = times / times.sum()
    x, y = x - share @ x.astype(np.float64), y - share @ y.astype(np.float64)
    spread = float(np.sqrt((share @ x**2) * (share @ y**2)))
    return float(np.clip(share @ (x * y) / spread, -_LIMIT, _LIMIT)) if spread > 0 else 0.0


def _of_all_trials(z: float) -> float:
    """Spearman and Brown: `2 r / (1 + r)` with r = tanh z, of twice as many trials; continued as an odd function."""
    r = np.tanh(z)
    return float(2 * r / (1 + abs(r)))
