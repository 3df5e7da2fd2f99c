"""From a recording to the mean response of each neuron to each image, and to how alike the animal found the images."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from neuroprior.recordings.given import given_scans, refuse_other
from neuroprior.reliability import Correction, Reliability, response_spread, scan_reliability
from neuroprior.similarity import average_targets, neuron_rows, target_from_population, target_from_populations
from neuroprior.similarity.match import Missing, matched_rows
from neuroprior.types import Details, InputError, Population, Scan, SimilarityTarget, Stimuli, Tier

__all__ = ["Units", "population_from_scan", "scan_with_neurons", "target_from_scan", "target_from_scans"]

Units = Literal["raw", "standardised"]

_OF_ALL = ("tier", "units", "weights")  # what scans that are averaged have in common


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
        spread = response_spread(scan.responses)
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
    refuse_other("population_from_scan", scan, Scan)
    return _population(scan, tier, units, scan_reliability(scan, correction))


def scan_with_neurons(scan: Scan, rule: str, correction: Correction = "none") -> Scan:
    """Return the scan with a part of its neurons (`select_neurons`), the best of them by `w_a` of Eq. 1."""
    refuse_other("scan_with_neurons", scan, Scan)
    chosen = neuron_rows(scan_reliability(scan, correction).weights.snr.astype(np.float32), rule)
    xyz = None if scan.neuron_xyz is None else scan.neuron_xyz[chosen]
    return replace(scan, responses=scan.responses[:, chosen], neuron_xyz=xyz)


def target_from_scan(
    scan: Scan, tier: Tier = "train", correction: Correction = "none", *, units: Units = "raw"
) -> SimilarityTarget:
    """`S_ij = e_i . e_j` (Eq. 2) of the recorded, SNR-weighted population responses to the images of `tier`.

    Arguments and errors as in `population_from_scan`; `details` says what the target rests on.
    """
    refuse_other("target_from_scan", scan, Scan)
    reliability = scan_reliability(scan, correction)
    population = _population(scan, tier, units, reliability)
    said = _said_of(scan, tier, units, reliability)
    return target_from_population(population, scan.stimuli, details=said)


def _said_of(scan: Scan, tier: Tier, units: Units, reliability: Reliability) -> dict[str, str | int]:
    """What a target of this scan rests on."""
    return {
        "scan": scan.name,
        "tier": tier,
        "trials": int(np.count_nonzero(scan.tier == tier)),
        "neurons": scan.responses.shape[1],
        "silent_neurons": reliability.n_silent,
        "units": units,
        "weights": f"SNR (Eq. 1), correction {reliability.correction}",
        "weight_images": reliability.n_images,
        "weight_images_left_out": reliability.n_left_out,
    }


def target_from_scans(
    scans: Scan | Sequence[Scan],
    tier: Tier = "train",
    correction: Correction = "none",
    *,
    units: Units = "raw",
    missing: Missing = "error",
) -> SimilarityTarget:
    """`S = E_h S^h`, the mean over scans `h` (or of the one given) of `target_from_scan`, in the first's image order.

    Scans are matched by image id, shown in any order and with any number of repeats. `missing`: "error" asks that they
    show the same images in `tier`; "intersection" keeps those that all of them showed, of each matrix that part, never
    centred again. Raises `InputError` naming the scan that shows other images, or other pixels under the same id, and
    how many are missing.
    """
    scans = given_scans("target_from_scans", scans)
    if len({id(scan.responses) for scan in scans}) < len(scans):
        raise InputError("target_from_scans: a scan is given twice; it would count twice in the mean")
    shown_by = {f"scan {k} ({scan.name})": _shown_in(scan, tier) for k, scan in enumerate(scans)}
    mend = "average only scans that showed the same images, or pass missing='intersection' (--intersection)"
    rows, *_ = matched_rows("target_from_scans", shown_by, missing, mend)
    shown = scans[0].stimuli.select(next(iter(shown_by.values()))[rows])
    for scan in scans:
        check_same_pixels(scan, shown)
    every = len(set().union(*(ids.tolist() for ids in shown_by.values())))
    if every == len(shown):  # one matrix in memory, whatever the number of scans
        of_each: list[Details] = []

        def populations() -> Iterator[Population]:
            for scan in scans:
                reliability = scan_reliability(scan, correction)
                of_each.append(_said_of(scan, tier, units, reliability))
                yield _population(scan, tier, units, reliability).select(shown.ids)

        made = target_from_populations(populations(), shown)
        return replace(made, details=_said_of_all(of_each))
    parts = [target_from_scan(scan, tier, correction, units=units).select(shown) for scan in scans]
    said = {**_said_of_all([part.details for part in parts]), "images_left_out": every - len(shown)}
    return replace(average_targets(parts), details=said)


def _said_of_all(of_each: Sequence[Details]) -> Details:
    """What a mean over scans rests on: `key_of_each` lists what each has of its own, in the order of `scan_names`."""
    if len(of_each) == 1:
        return of_each[0]
    listed = {key: ", ".join(str(said[key]) for said in of_each) for key in of_each[0]}
    return {
        "averaged_targets": len(of_each),
        "scan_names": listed.pop("scan"),
        **{key: of_each[0][key] for key in _OF_ALL},
        **{f"{key}_of_each": values for key, values in listed.items() if key not in _OF_ALL},
    }


def _shown_in(scan: Scan, tier: Tier) -> np.ndarray:
    """Ids of the images of this tier, in the order of the stimuli."""
    ids: np.ndarray = scan.stimuli.ids[np.unique(scan.trial_image[scan.tier == tier])]
    return ids


_MEND = "average only scans that showed the same images"


def check_same_pixels(scan: Scan, first: Stimuli) -> None:
    """Raise `InputError` unless these images have the same pixels in the scan."""
    pixels = scan.stimuli.select(first.ids).pixels
    if pixels.shape != first.pixels.shape:
        size, other = (f"{p.shape[1]}x{p.shape[2]}" for p in (pixels, first.pixels))
        raise InputError(f"scan {scan.name}: its images are {size}, those of the first scan {other}; {_MEND}")
    differs = (pixels != first.pixels).any(axis=(1, 2))
    if differs.any():
        named = str(first.ids[np.argmax(differs)])
        raise InputError(f"scan {scan.name}: image {named!r} has other pixels than in the first scan; {_MEND}")
