"""Population -> SimilarityTarget: how alike a population finds each pair of images. It cannot tell who responded."""

from neuroprior.similarity.cosine import centered_cosine, target_from_population
from neuroprior.similarity.targets import average_targets, shuffle_target
from neuroprior.similarity.user import load_matrix

__all__ = ["average_targets", "centered_cosine", "load_matrix", "shuffle_target", "target_from_population"]
