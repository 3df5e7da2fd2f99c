"""From a recording to the mean response of each neuron to each image, and to how alike the animal found the images."""

from typing import Literal, get_args

import numpy as np

from neuroprior.reliability import Correction, Reliability, scan_reliability
from neuroprior.similarity import target_from_population
from neuroprior.types import InputError, Population, Scan, SimilarityTarget, Tier

__all__ = ["Units", "population_from_scan", "target_from_scan"]

Units = Literal["raw", "standardised"]


def _population(scan: Scan, tier: str, units: str, reliability: Reliability) -> Population:
    for name, value, known in (("tier", tier, get_args(Tier)), ("units", units, get_args(Units))):
        if value not in known:
            raise InputError(f"scan {scan.name}: {name} {value!r} is not one of {', '.join(known)}")
    trials = np.flatnonzero(scan.tier == tier)
    if not len(trials):
        held = ", ".join(sorted(set(scan.tier.tolist()))) or "none"
        raise InputError(f"scan {scan.name}: no trial of tier {tier!r}; its trials are of tier {held}")
    trials = trials[np.argsort(scan.trial_image[trials], kind="stable")]
    images, starts, repeats = np.unique(scan.trial_image[trials], return_index=True, return_counts=True)
    mean = np.add.reduceat(scan.responses[trials], starts, axis=0, dtype=np.float64) / repeats[:, None]
    if units == "standardised":
        spread = scan.responses.std(axis=0, dtype=np.float64)
        mean /= np.where(spread > 0, spread, 1.0)  # a constant neuron stays as it is; its weight is 0
    weights = reliability.weights.snr.astype(np.float32)
    return Population(scan.stimuli.ids[images], mean.astype(np.float32), weights, "recorded")


def population_from_scan(
    scan: Scan, tier: Tier = "train", correction: Correction = "none", *, units: Units = "raw"
) -> Population:
    """`rho_ia = E_t r_ait` over the trials of `tier`, with the weights `w_a` of Eq. 1 from the oracle trials.

    One row an image shown in that tier, in the order of `scan.stimuli`. `units`: "standardised" divides each neuron by
    its standard deviation over all trials of the scan (`w` does not normalise scale; "raw" lets strong ones dominate).
    Raises `InputError` where the scan has no trial of `tier`, or too few repeats for Eq. 1.
    """
    return _population(scan, tier, units, scan_reliability(scan, correction))


def target_from_scan(
    scan: Scan, tier: Tier = "train", correction: Correction = "none", *, units: Units = "raw"
) -> SimilarityTarget:
    """`S_ij = e_i . e_j` (Eq. 2) of the recorded, SNR-weighted population responses to the images of `tier`.

    Arguments and errors as in `population_from_scan`; `details` says what the target rests on.
    """
    reliability = scan_reliability(scan, correction)
    population = _population(scan, tier, units, reliability)
    return target_from_population(
        population,
        scan.stimuli,
        details={
            "scan": scan.name,
            "tier": tier,
            "trials": int(np.count_nonzero(scan.tier == tier)),
            "neurons": len(population.weights),
            "silent_neurons": reliability.n_silent,
            "units": units,
            "weights": f"SNR (Eq. 1), correction {correction}",
            "weight_images": reliability.n_images,
            "weight_images_left_out": reliability.n_left_out,
        },
    )
