"""Population -> SimilarityTarget: how alike a population finds each pair of images. It cannot tell who responded."""

from neuroprior.similarity.compare import TargetComparison, compare_targets
from neuroprior.similarity.controls import lowpass_target, pixel_target
from neuroprior.similarity.cosine import centered_cosine, target_from_population
from neuroprior.similarity.factored import average_factored, factor_population, factor_target
from neuroprior.similarity.neurons import neuron_rows, select_neurons
from neuroprior.similarity.spectrum import spectrum_target
from neuroprior.similarity.targets import average_targets, shuffle_target
from neuroprior.similarity.user import load_matrix

__all__ = [
    "TargetComparison",
    "average_factored",
    "average_targets",
    "centered_cosine",
    "compare_targets",
    "factor_population",
    "factor_target",
    "load_matrix",
    "lowpass_target",
    "neuron_rows",
    "pixel_target",
    "select_neurons",
    "shuffle_target",
    "spectrum_target",
    "target_from_population",
]
