"""The regulariser: any nn.Module and a SimilarityTarget -> a loss."""

from neuroprior.regularizer.loss import combine_layers, layer_similarity, similarity_loss
from neuroprior.regularizer.regularizer import SimilarityRegularizer
from neuroprior.regularizer.taps import Taps, evenly_spaced_stages

__all__ = [
    "SimilarityRegularizer",
    "Taps",
    "combine_layers",
    "evenly_spaced_stages",
    "layer_similarity",
    "similarity_loss",
]
