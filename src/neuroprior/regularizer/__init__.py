"""The regulariser: any nn.Module and a SimilarityTarget -> a loss; and the second losses that it is compared with."""

from neuroprior.regularizer.centred import layer_similarity
from neuroprior.regularizer.exposure import Exposure
from neuroprior.regularizer.loss import combine_layers, similarity_loss
from neuroprior.regularizer.regression import ResponseRegression
from neuroprior.regularizer.regularizer import SimilarityRegularizer
from neuroprior.regularizer.schedule import Alpha, Ramp
from neuroprior.regularizer.taps import Taps, evenly_spaced_stages

__all__ = [
    "Alpha",
    "Exposure",
    "Ramp",
    "ResponseRegression",
    "SimilarityRegularizer",
    "Taps",
    "combine_layers",
    "evenly_spaced_stages",
    "layer_similarity",
    "similarity_loss",
]
