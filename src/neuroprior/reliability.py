"""How reliably each neuron answers the same image: the signal-to-noise weights of Eq. 1, and oracle correlations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, get_args, overload

import numpy as np
import torch

from neuroprior.types import Float32, Float64, InputError, Int64, NeuronWeights, Scan, Shaped

__all__ = [
    "Correction",
    "ImageIds",
    "Reliability",
    "RepeatedTrials",
    "measure_reliability",
    "neuron_weights",
    "oracle_correlation",
    "repeated_trials",
    "response_spread",
    "scan_reliability",
    "snr_weights",
]

Correction = Literal["none", "unbiased"]
_ROWS = 256  # trials looked at together

ImageIds: TypeAlias = np.ndarray | torch.Tensor | Sequence[str] | Sequence[int]


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """The variances of Eq. 1 and what they rest on: how many images were used, and how many could not be."""

    weights: NeuronWeights
    correction: Correction
    n_images: int
    """Images with at least two trials: those that the variances are over."""
    n_left_out: int
    """Images with a single trial, which say nothing about noise."""

    @property
    def n_silent(self) -> int:
        """Neurons whose response never varied within any image (silent or constant): their weight is 0."""
        return int(np.count_nonzero(self.weights.noise_variance == 0))


class RepeatedTrials(NamedTuple):
    """The trials of every image that was shown repeatedly, image after image."""

    order: Int64[np.ndarray, " used"]
    """Which trials, sorted by image and then as they came."""
    repeats: Int64[np.ndarray, " image"]
    """`T_i`, how many of them are of each image."""
    ids: Shaped[np.ndarray, " image"]
    """The images, sorted."""
    n_left_out: int
    """Images with too few trials."""

    @property
    def starts(self) -> Int64[np.ndarray, " image"]:
        """Where in `order` each image begins."""
        begins: np.ndarray = np.cumsum(self.repeats) - self.repeats
        return begins


def repeated_trials(image_ids: ImageIds, n_trials: int, what: str, least: int = 2) -> RepeatedTrials:
    """Find the images with at least `least` trials. Raises `InputError`, begun by `what`, for fewer than 2 of them."""
    given = image_ids.detach().cpu().numpy() if isinstance(image_ids, torch.Tensor) else np.asarray(image_ids)
    if given.shape != (n_trials,):
        raise InputError(f"{what}: image_ids is {given.shape} for {n_trials} trials; give one image id a trial")
    ids, image, counts = np.unique(given, return_inverse=True, return_counts=True)
    enough = counts >= least
    if np.count_nonzero(enough) < 2:
        raise InputError(
            f"{what}: {np.count_nonzero(enough)} of {len(counts)} images have {least} or more trials; at least 2 such "
            "images are needed, so show the oracle images repeatedly"
        )
    order = np.argsort(image, kind="stable")
    left_out = int(np.count_nonzero(~enough))
    return RepeatedTrials(order[enough[image[order]]], counts[enough].astype(np.int64), ids[enough], left_out)


def _trials_by_image(
    responses: np.ndarray | torch.Tensor, image_ids: ImageIds
) -> tuple[Float64[np.ndarray, "used neuron"], RepeatedTrials]:
    """Return the responses of the repeated trials, checked, in float64 and image after image."""
    given = responses.detach().cpu().numpy() if isinstance(responses, torch.Tensor) else np.asarray(responses)
    if given.ndim != 2 or given.dtype.kind not in "fiu":
        raise InputError(
            f"reliability: responses must be real numbers (trial, neuron), got {given.dtype} {given.shape}; "
            "put trials in rows and neurons in columns"
        )
    repeated = repeated_trials(image_ids, len(given), "reliability")
    trials = given[repeated.order].astype(np.float64)
    if not np.isfinite(trials).all():
        at, neuron = np.argwhere(~np.isfinite(trials))[0]
        raise InputError(
            f"reliability: response of neuron {neuron} on trial {repeated.order[at]} is not finite; drop it"
        )
    return trials, repeated


def measure_reliability(
    responses: Shaped[np.ndarray, "trial neuron"] | Shaped[torch.Tensor, "trial neuron"],
    image_ids: ImageIds,
    correction: Correction = "none",
) -> Reliability:
    """`sigma_a^2 = Var_i(E_t r_ait)`, `eta_a^2 = E_i(Var_t r_ait)` (Eq. 1), every image `i` counting once.

    `responses`: any real unit; `image_ids`: the image of each trial, in any order, unequal repeats `T_i` allowed.
    `correction`: "none" takes population variances (ddof 0) as printed, which gives a neuron of pure noise a weight of
    about `1 / sqrt(T - 1)`; "unbiased" takes ddof 1 and `sigma^2 - eta^2 mean_i(1 / T_i)`, clipped at 0.
    Images with one trial are left out and counted. Computed in float64.

    Raises `InputError` for fewer than 2 images with 2 trials, a response that is not finite, or ids that do not fit.
    """
    if correction not in get_args(Correction):
        raise InputError(f"reliability: correction {correction!r} is not one of {', '.join(get_args(Correction))}")
    trials, repeated = _trials_by_image(responses, image_ids)
    repeats, starts = repeated.repeats, repeated.starts

    # Deviations from each image's first trial rather than raw values: a constant neuron's are exactly 0, where a
    # rounded mean would leave noise of 1e-17 and a weight made of rounding errors.
    first = trials[starts]
    trials -= np.repeat(first, repeats, axis=0)
    mean = np.add.reduceat(trials, starts, axis=0) / repeats[:, None]
    image_mean = first + mean
    trials -= np.repeat(mean, repeats, axis=0)
    np.square(trials, out=trials)
    ddof = 1 if correction == "unbiased" else 0
    noise = (np.add.reduceat(trials, starts, axis=0) / (repeats[:, None] - ddof)).mean(axis=0)
    signal = (image_mean - image_mean[0]).var(axis=0, ddof=ddof)
    if correction == "unbiased":
        signal = np.maximum(signal - noise * np.mean(1.0 / repeats), 0.0)
    return Reliability(NeuronWeights(signal, noise), correction, len(repeats), repeated.n_left_out)


def scan_reliability(scan: Scan, correction: Correction = "none") -> Reliability:
    """Eq. 1 over the oracle trials of a scan, and no others. Raises `InputError` where those do not suffice."""
    oracle = np.flatnonzero(scan.tier == "oracle")
    try:
        return measure_reliability(scan.responses[oracle], scan.trial_image[oracle], correction)
    except InputError as error:
        raise InputError(f"scan {scan.name}, oracle trials: {error}") from None


def neuron_weights(
    responses: Shaped[np.ndarray, "trial neuron"] | Shaped[torch.Tensor, "trial neuron"],
    image_ids: ImageIds,
    correction: Correction = "none",
) -> NeuronWeights:
    """`sigma_a^2` and `eta_a^2` of Eq. 1; everything else as in `measure_reliability`."""
    return measure_reliability(responses, image_ids, correction).weights


@overload
def snr_weights(
    responses: Shaped[np.ndarray, "trial neuron"], image_ids: ImageIds, correction: Correction = "none"
) -> Float64[np.ndarray, " neuron"]: ...
@overload
def snr_weights(
    responses: Shaped[torch.Tensor, "trial neuron"], image_ids: ImageIds, correction: Correction = "none"
) -> Float64[torch.Tensor, " neuron"]: ...
def snr_weights(
    responses: Shaped[np.ndarray, "trial neuron"] | Shaped[torch.Tensor, "trial neuron"],
    image_ids: ImageIds,
    correction: Correction = "none",
) -> Float64[np.ndarray, " neuron"] | Float64[torch.Tensor, " neuron"]:
    """`w_a = sigma_a / eta_a` (Eq. 1): how well neuron `a` tells images apart, against its noise; 0 or more.

    NumPy in, NumPy out; torch in, torch out on the same device (no gradient). A neuron that never varies within an
    image gets 0. Arguments and errors as in `measure_reliability`.
    """
    weights = neuron_weights(responses, image_ids, correction).snr
    return torch.from_numpy(weights).to(responses.device) if isinstance(responses, torch.Tensor) else weights


@overload
def oracle_correlation(
    responses: Shaped[np.ndarray, "trial neuron"], image_ids: ImageIds
) -> Float64[np.ndarray, " neuron"]: ...
@overload
def oracle_correlation(
    responses: Shaped[torch.Tensor, "trial neuron"], image_ids: ImageIds
) -> Float64[torch.Tensor, " neuron"]: ...
def oracle_correlation(
    responses: Shaped[np.ndarray, "trial neuron"] | Shaped[torch.Tensor, "trial neuron"], image_ids: ImageIds
) -> Float64[np.ndarray, " neuron"] | Float64[torch.Tensor, " neuron"]:
    """`corr_{i,t}(r_ait, o_ait)`, `o_ait = (sum_t' r_ait' - r_ait) / (T_i - 1)`, the image's *other* trials.

    How well a neuron's response to an image is predicted by its responses to the same image, over all trials of all
    repeated images (the oracle score of Walker et al. 2019, Nature Neuroscience 22, 2060-2065); in [-1, 1]. A neuron
    of pure noise gets about 0, a constant one exactly 0. Images with one trial are left out.

    NumPy in, NumPy out; torch in, torch out on the same device (no gradient). Raises as `measure_reliability`.
    """
    trials, repeated = _trials_by_image(responses, image_ids)
    trials -= trials[0].copy()  # a constant neuron is then exactly 0, where a rounded mean would leave noise
    others = np.repeat(np.add.reduceat(trials, repeated.starts, axis=0), repeated.repeats, axis=0)
    others -= trials
    others /= np.repeat(repeated.repeats - 1, repeated.repeats)[:, None]
    trials -= trials.mean(axis=0)
    others -= others.mean(axis=0)
    shared = np.einsum("ta,ta->a", trials, others)
    spread = np.linalg.norm(trials, axis=0) * np.linalg.norm(others, axis=0)
    correlation = np.divide(shared, spread, out=np.zeros_like(shared), where=spread > 0).clip(-1, 1)
    return torch.from_numpy(correlation).to(responses.device) if isinstance(responses, torch.Tensor) else correlation


def response_spread(responses: Float32[np.ndarray, "trial neuron"]) -> Float64[np.ndarray, " neuron"]:
    """Standard deviation (ddof 0) of each neuron over all trials; of responses in a file, some rows at a time."""
    first = responses[0].astype(np.float64)  # deviations from it, so that a constant neuron has exactly 0
    total, squares = np.zeros_like(first), np.zeros_like(first)
    for start in range(0, len(responses), _ROWS):
        deviation = responses[start : start + _ROWS] - first
        total += deviation.sum(axis=0)
        squares += np.square(deviation).sum(axis=0)
    mean = total / len(responses)
    spread: np.ndarray = np.sqrt(np.maximum(squares / len(responses) - mean**2, 0.0))
    return spread
