"""Population -> SimilarityTarget: how alike a population finds each pair of images. It cannot tell who responded."""

from neuroprior.similarity.blocks import target_from_populations, write_target
from neuroprior.similarity.ceiling import NoiseCeiling, noise_ceiling
from neuroprior.similarity.compare import TargetComparison, compare_targets, pair_correlation
from neuroprior.similarity.controls import lowpass_target, pixel_target
from neuroprior.similarity.cosine import centered_cosine, target_from_population
from neuroprior.similarity.factored import average_factored, factor_population, factor_target
from neuroprior.similarity.match import align_matrices
from neuroprior.similarity.neurons import neuron_rows, select_neurons
from neuroprior.similarity.oracle import (
    OracleTrials,
    oracle_similarity,
    oracle_trials,
    single_trial_similarity,
    split_half_similarity,
)
from neuroprior.similarity.over_scans import bootstrap_over_scans
from neuroprior.similarity.spectrum import spectrum_target
from neuroprior.similarity.stability import pair_fluctuation, repeat_fluctuation, scan_fluctuation
from neuroprior.similarity.targets import average_targets, shuffle_target
from neuroprior.similarity.user import load_matrix, target_from_matrix

__all__ = [
    "NoiseCeiling",
    "OracleTrials",
    "TargetComparison",
    "align_matrices",
    "average_factored",
    "average_targets",
    "bootstrap_over_scans",
    "centered_cosine",
    "compare_targets",
    "factor_population",
    "factor_target",
    "load_matrix",
    "lowpass_target",
    "neuron_rows",
    "noise_ceiling",
    "oracle_similarity",
    "oracle_trials",
    "pair_correlation",
    "pair_fluctuation",
    "pixel_target",
    "repeat_fluctuation",
    "scan_fluctuation",
    "select_neurons",
    "shuffle_target",
    "single_trial_similarity",
    "spectrum_target",
    "split_half_similarity",
    "target_from_matrix",
    "target_from_population",
    "target_from_populations",
    "write_target",
]
