"""A recording that a twin could have come from: one noisy trial of each image, and weights from noisy repeats."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from neuroprior.recordings.simulate import gamma_trials, noise_for
from neuroprior.reliability import snr_weights
from neuroprior.similarity import target_from_population
from neuroprior.types import InputError, Population, SimilarityTarget, Stimuli

__all__ = ["simulated_recording_target", "single_trials"]

_ROWS = 256  # trials drawn at a time, in float64


def single_trials(
    population: Population,
    *,
    oracle_ids: Sequence[str] | np.ndarray,
    seed: int,
    n_repeats: int = 10,
    snr_median: float = 0.5,
    snr_spread: float = 0.6,
) -> Population:
    """`r_ia ~ Gamma(mean rho_ia, variance c_a rho_ia)`: one trial of every image, with weights `w_a` as measured.

    The noise is `simulate_scan`'s: `c_a` is such that `sigma_a / eta_a` over the oracle images is log-normal with
    median `snr_median` and `snr_spread` as standard deviation of its logarithm. `w_a` is Eq. 1 of `n_repeats` further
    trials of each oracle image, with the error that so many leave; weights that `population` has play no part.
    The source stays the population's: no animal was recorded. The same seed gives the same trials.
    Raises `InputError` for fewer than 2 oracle images, unknown ids, rates not above 0, or numbers out of range.
    """
    for what, value, sound, bound in (
        ("oracle_ids", len(oracle_ids), len(oracle_ids) >= 2, "2 or more"),
        ("n_repeats", n_repeats, n_repeats >= 2, "2 or more, or Eq. 1 has no noise to measure"),
        ("seed", seed, seed >= 0, "0 or more"),
        ("snr_median", snr_median, 0 < snr_median < np.inf, "above 0"),
        ("snr_spread", snr_spread, 0 <= snr_spread < np.inf, "0 or more"),
    ):
        if not sound:
            raise InputError(f"simulated trials: {what} is {value}; it must be {bound}")
    if not (population.mean > 0).all():
        image, neuron = np.argwhere(~(population.mean > 0))[0]
        raise InputError(
            f"simulated trials: the rate of neuron {neuron} to {str(population.image_ids[image])!r} is "
            f"{population.mean[image, neuron]}; rates must be above 0, as a twin's are"
        )
    oracle = population.select(oracle_ids).mean.astype(np.float64)
    # one stream for the animal and one for its trials, as in `simulate_scan`
    animal, session = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(2))
    snr = snr_median * np.exp(snr_spread * animal.standard_normal(population.mean.shape[1]))
    fano = noise_for(oracle, snr).noise_variance / oracle.mean(axis=0)

    repeated = np.repeat(np.arange(len(oracle)), n_repeats)
    weights = snr_weights(gamma_trials(oracle[repeated], fano, session), repeated)
    trials = np.empty(population.mean.shape, dtype=np.float32)
    for start in range(0, len(trials), _ROWS):
        rows = slice(start, start + _ROWS)
        trials[rows] = gamma_trials(population.mean[rows].astype(np.float64), fano, session)
    return replace(population, mean=trials, weights=weights.astype(np.float32))


def simulated_recording_target(
    population: Population,
    stimuli: Stimuli,
    oracle_ids: Sequence[str] | np.ndarray,
    *,
    seed: int,
    n_repeats: int = 10,
    snr_median: float = 0.5,
    snr_spread: float = 0.6,
) -> SimilarityTarget:
    """`S_data` (Eq. 2) of one simulated, SNR-weighted trial of each of the `stimuli`: `neural_data` without a mouse.

    `population`: a twin's rates to the stimuli and to the oracle images, which may be others. Its details say that
    this is no recording. Arguments and errors as in `single_trials`.
    """
    trials = single_trials(
        population,
        oracle_ids=oracle_ids,
        seed=seed,
        n_repeats=n_repeats,
        snr_median=snr_median,
        snr_spread=snr_spread,
    )
    return target_from_population(
        trials.select(stimuli.ids),
        stimuli,
        details={
            "responses": "simulated single trials of the twin's rates, not a recording",
            "noise": "Gamma, variance proportional to the mean; true SNR weights log-normal, "
            f"median {snr_median:g}, spread {snr_spread:g}",
            "noise_seed": seed,
            "weights": f"SNR (Eq. 1) of {n_repeats} simulated repeats of {len(oracle_ids)} images",
            "mean_weight": float(trials.weights.mean()),
        },
    )
