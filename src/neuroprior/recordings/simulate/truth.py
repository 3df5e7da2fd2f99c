"""The truth of a simulated scan on disk, beside the scan: what an analysis of the scan should have found."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuroprior.recordings.archive import read_archive, write_archive
from neuroprior.recordings.simulate.scan import SimulatedScan
from neuroprior.similarity import target_from_population
from neuroprior.types import Float32, InputError, NeuronWeights, Population, SimilarityTarget

__all__ = ["Truth", "load_truth", "save_truth"]

_RATES, _SIMILARITY = "truth.npz", "truth.safetensors"
_MAKE = "`save_truth` writes it"


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What `save_truth` wrote: the fields of `SimulatedScan`, and S."""

    population: Population
    """Mean rates for all stimuli at neutral behaviour, with the true weights."""
    true_weights: NeuronWeights
    similarity: SimilarityTarget
    """Eq. 2 of the weighted rates, over all stimuli."""
    gaze: Float32[np.ndarray, "trial 2"]


def save_truth(simulated: SimulatedScan, folder: str | os.PathLike[str]) -> None:
    """Write `truth.npz` and the true S, `truth.safetensors` (`SimilarityTarget`), to `folder`, which is made.

    Fields of `truth.npz`: `rates` float32 `(image, neuron)`, `image_ids`, `signal_variance` and `noise_variance`
    float64 `(neuron,)`, `gaze` float32 `(trial, 2)` in pixels of the images, and with counts `count_unit`.
    Raises `InputError` where nothing can be written, or where the truth has no similarity (all weights 0, say).
    """
    weights, truth = simulated.true_weights, simulated.truth
    details = {"scan": simulated.scan.name, "responses": "noise-free rates of a simulated scan", "weights": "true SNR"}
    similarity = target_from_population(truth, simulated.scan.stimuli, details=details)
    fields = {
        "rates": truth.mean,
        "image_ids": truth.image_ids,
        "signal_variance": weights.signal_variance,
        "noise_variance": weights.noise_variance,
        "gaze": simulated.gaze,
    }
    counted = {} if simulated.count_unit is None else {"count_unit": simulated.count_unit}
    write_archive(Path(folder) / _RATES, {**fields, **counted})
    similarity.save(Path(folder) / _SIMILARITY)


def load_truth(folder: str | os.PathLike[str]) -> Truth:
    """Read what `save_truth` wrote. Raises `InputError`, one line, for files that are missing or not so."""
    file = Path(folder) / _RATES
    needed = ("rates", "image_ids", "signal_variance", "noise_variance", "gaze")
    fields = read_archive(file, needed, mend=_MAKE)
    for name, dtype, n_axes in (
        ("rates", "float32", 2),
        ("signal_variance", "float64", 1),
        ("noise_variance", "float64", 1),
        ("gaze", "float32", 2),
    ):
        if fields[name].dtype != dtype or fields[name].ndim != n_axes:
            raise InputError(
                f"{file}: field {name!r} is {fields[name].dtype} {fields[name].shape}, not {dtype} of {n_axes} axes; "
                f"{_MAKE}"
            )
    n_neurons = fields["rates"].shape[1]
    for name in ("signal_variance", "noise_variance"):
        if len(fields[name]) != n_neurons:
            raise InputError(f"{file}: field {name!r} is of {len(fields[name])} neurons, not {n_neurons}; {_MAKE}")
    similarity = SimilarityTarget.load(Path(folder) / _SIMILARITY)
    if not np.array_equal(similarity.image_ids, fields["image_ids"]):
        raise InputError(f"{file}: field 'image_ids' names other images than {_SIMILARITY} beside it; {_MAKE}")
    weights = NeuronWeights(fields["signal_variance"], fields["noise_variance"])
    population = Population(
        fields["image_ids"],
        fields["rates"],
        weights.snr.astype(np.float32),
        "twin" if similarity.source == "twin" else "recorded",
    )
    return Truth(population, weights, similarity, fields["gaze"])
