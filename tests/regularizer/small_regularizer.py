"""A regulariser that compares few images a step."""

from neuroprior import SimilarityRegularizer


def regularizer(network, target, stimuli, **options):
    options = {"stimuli_per_step": 8, "pairs": "all"} | options
    return SimilarityRegularizer(network, target, stimuli, **options)
