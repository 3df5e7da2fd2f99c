"""Eq. 3: how alike images shown repeatedly are to a recorded population, from all pairs of trials, or from parts."""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import torch

from neuroprior.reliability import (
    Correction,
    ImageIds,
    RepeatedTrials,
    repeated_trials,
    response_spread,
    scan_reliability,
)
from neuroprior.similarity.unit import Responses, as_weights, centred_blocks, in_blocks, unit_vectors
from neuroprior.types import Float, Float32, Float64, InputError, Scan, Shaped

__all__ = [
    "OracleTrials",
    "oracle_similarity",
    "oracle_trials",
    "single_trial_similarity",
    "split_half_similarity",
]

Ids: TypeAlias = Shaped[np.ndarray, " image"] | Shaped[torch.Tensor, " image"]
Matrix: TypeAlias = Float[np.ndarray, "image image"] | Float[torch.Tensor, "image image"]


class OracleTrials(NamedTuple):
    """A scan's oracle trials, as functions of Eq. 3 to 5 take them: `oracle_similarity(*oracle_trials(scan))`."""

    responses: Float32[np.ndarray, "trial neuron"]
    image_ids: Shaped[np.ndarray, " trial"]
    weights: Float64[np.ndarray, " neuron"]


def oracle_trials(
    scan: Scan, correction: Correction = "none", *, units: Literal["raw", "standardised"] = "raw"
) -> OracleTrials:
    """Return a scan's oracle trials, the image of each, and `w_a` of Eq. 1 from the same trials.

    `units`: "standardised" divides each weight by the neuron's standard deviation over all trials of the scan, which is
    to divide its responses. Raises `InputError` naming the scan where Eq. 1 cannot be had.
    """
    if units not in get_args(Literal["raw", "standardised"]):
        raise InputError(f"scan {scan.name}: units {units!r} is not one of raw, standardised")
    weights = scan_reliability(scan, correction).weights.snr
    if units == "standardised":
        spread = response_spread(scan.responses)
        weights /= np.where(spread > 0, spread, 1.0)
    oracle = np.flatnonzero(scan.tier == "oracle")
    return OracleTrials(scan.responses[oracle], scan.trial_ids[oracle], weights)


def oracle_similarity(
    responses: Shaped[Responses, "trial neuron"], image_ids: ImageIds, weights: Shaped[Responses, " neuron"]
) -> tuple[Ids, Matrix]:
    """`S_ij = E_{t,t'} e_it . e_jt'`, for `i = j` without the pairs `t = t'` (Eq. 3). Returns `(ids, S)`.

    `e_it` is the unit vector of `w r_it` minus its mean over all trials used. With `m_i = E_t e_it` this is
    `m_i . m_j`, and `(T_i^2 |m_i|^2 - T_i) / (T_i^2 - T_i)` where `i = j`: no pair of trials is ever formed. The
    diagonal is at most 1, and says how alike two responses to one image are.

    Repeats `T_i` may differ; an image with one trial has no diagonal, and is left out before anything is averaged: the
    ids say which images remain. They are sorted, of the kind given. S is of the kind and dtype of `responses` (integers
    give float64), in [-1, 1]. The factor all weights share does not matter. Raises `InputError` for fewer than 2 images
    with 2 trials, what is not finite, weights that are all 0, or, named, a trial whose response equals the mean.
    """
    trials = used_trials(responses, image_ids)
    similarity = oracle_of(responses, as_weights(weights, responses, "oracle similarity"), trials)
    return same_kind_ids(image_ids, trials.ids), same_kind(responses, similarity)


def split_half_similarity(
    responses: Shaped[Responses, "trial neuron"], image_ids: ImageIds, weights: Shaped[Responses, " neuron"], seed: int
) -> tuple[Ids, Matrix, Matrix]:
    """Eq. 3 of two random halves of each image's trials, which share no trial and no mean. Returns `(ids, S_1, S_2)`.

    Of an odd number of trials, one half or the other (by chance) has one more. Both need 2 for the diagonal, so images
    with fewer than 4 trials are left out. Everything else as `oracle_similarity`.
    """
    trials = used_trials(responses, image_ids, least=4)
    w = as_weights(weights, responses, "split halves")
    one, two = (oracle_of(responses, w, half) for half in halves(trials, np.random.default_rng(seed)))
    return same_kind_ids(image_ids, trials.ids), same_kind(responses, one), same_kind(responses, two)


def single_trial_similarity(
    responses: Shaped[Responses, "trial neuron"], image_ids: ImageIds, weights: Shaped[Responses, " neuron"], seed: int
) -> tuple[Ids, Matrix, Matrix]:
    """S_data, Eq. 2 of one random trial an image, and Eq. 3 of all *other* trials. Returns `(ids, S_data, S_others)`.

    The two share no trial and no mean, unlike S_data and `oracle_similarity` of all trials, which holds S_data (Figure
    1D). Images with fewer than 3 trials are left out. Everything else as `oracle_similarity`.
    """
    trials = used_trials(responses, image_ids, least=3)
    w = as_weights(weights, responses, "single trials")
    drawn = trials.starts + np.random.default_rng(seed).integers(trials.repeats)
    single = unit_vectors(responses, w, trial_namer(trials), trials.order[drawn])
    data = (single @ single.T).clamp_(-1, 1)
    data.fill_diagonal_(1)
    others = trials._replace(order=np.delete(trials.order, drawn), repeats=trials.repeats - 1)
    return (
        same_kind_ids(image_ids, trials.ids),
        same_kind(responses, data),
        same_kind(responses, oracle_of(responses, w, others)),
    )


def used_trials(responses: Responses, image_ids: ImageIds, least: int = 2) -> RepeatedTrials:
    """Return the trials of images with at least `least` of them. Raises `InputError` where they are too few."""
    if responses.ndim != 2 or not responses.shape[1]:
        raise InputError(
            f"similarity: responses must be (trial, neuron), got {tuple(responses.shape)}; put trials in rows and "
            "neurons in columns"
        )
    return repeated_trials(image_ids, len(responses), "similarity", least)


def oracle_of(
    responses: Responses, weights: Float[torch.Tensor, " neuron"], trials: RepeatedTrials
) -> Float[torch.Tensor, "image image"]:
    """Eq. 3 by its closed form, of these trials and no others."""
    blocks = in_blocks(responses, trials.order)
    m, done, image = weights.new_zeros(len(trials.repeats), responses.shape[1]), 0, 0
    ends = np.cumsum(trials.repeats).tolist()
    for rows, (centred, length) in zip(
        blocks, centred_blocks(responses, blocks, weights, trial_namer(trials)), strict=True
    ):
        scale, start, n = length.reciprocal(), 0, len(rows)
        while start < n:  # the trials of one image after another: m_i without a pass that writes e_it
            stop = min(ends[image] - done, n)
            m[image].addmv_(centred[start:stop].T, scale[start:stop])
            image += stop == ends[image] - done
            start = stop
        done += n
    t = torch.from_numpy(trials.repeats).to(m.device)
    m /= t[:, None]
    similarity = m @ m.T
    square = t**2 * similarity.diagonal().to(torch.float64)
    similarity.clamp_(-1, 1).diagonal().copy_(((square - t) / (t**2 - t)).clamp(-1, 1))
    return similarity


def halves(trials: RepeatedTrials, random: np.random.Generator) -> tuple[RepeatedTrials, RepeatedTrials]:
    """Cut each image's trials into two at random."""
    image = np.repeat(np.arange(len(trials.repeats)), trials.repeats)
    shuffled = trials.order[np.lexsort((random.random(len(image)), image))]
    larger = random.integers(2, size=len(trials.repeats))
    size = (trials.repeats + larger) // 2
    first = np.arange(len(image)) - np.repeat(trials.starts, trials.repeats) < np.repeat(size, trials.repeats)
    return (
        trials._replace(order=shuffled[first], repeats=size),
        trials._replace(order=shuffled[~first], repeats=trials.repeats - size),
    )


def trial_namer(trials: RepeatedTrials) -> Callable[[int], str]:
    """How an error names a trial."""

    def named(row: int) -> str:
        image = np.searchsorted(trials.starts, np.flatnonzero(trials.order == row)[0], side="right") - 1
        return f"trial {row} of image {trials.ids[image].item()!r}"

    return named


def same_kind(given: Responses, made: torch.Tensor) -> np.ndarray | torch.Tensor:
    """NumPy for NumPy, torch for torch."""
    return made.cpu().numpy() if isinstance(given, np.ndarray) else made


def same_kind_ids(given: ImageIds, ids: np.ndarray) -> np.ndarray | torch.Tensor:
    """Return ids as a tensor where they were given as one."""
    return torch.from_numpy(ids).to(given.device) if isinstance(given, torch.Tensor) else ids
