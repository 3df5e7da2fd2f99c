"""Eq. 2 (and 6): the centred cosine similarity of population responses."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch

from neuroprior.similarity.unit import unit_vectors
from neuroprior.types import Float, InputError, Population, SimilarityTarget, Stimuli

Array = TypeVar("Array", np.ndarray, torch.Tensor)


def centered_cosine(
    population_matrix: Float[Array, "image neuron"], image_ids: Sequence[str] | np.ndarray | None = None
) -> Float[Array, "image image"]:
    """S_ij = e_i . e_j with e_i = (r_i - mean_i r) / |r_i - mean_i r| (Eq. 2).

    `population_matrix`: `r`, one row an image, in any unit (S has none). The mean is over exactly these images, so a
    part of S is not S of the part. Returns S in [-1, 1] with a diagonal of exactly 1, of the dtype and kind given
    (NumPy or torch). Raises `InputError` for fewer than 2 images, values that are not finite, or an image whose
    response is the mean (its direction is undefined); `image_ids` lets the message name it.
    """
    r = population_matrix
    if r.ndim != 2 or len(r) < 2 or r.shape[1] < 1:
        raise InputError(f"similarity: responses are {tuple(r.shape)}; at least 2 images and 1 neuron are needed")
    e = unit_vectors(r, None, lambda row: f"image {row if image_ids is None else repr(str(image_ids[row]))}")
    similarity = (e @ e.T).clamp_(-1, 1)
    similarity.fill_diagonal_(1)
    return similarity.numpy() if isinstance(r, np.ndarray) else similarity


def target_from_population(
    population: Population, stimuli: Stimuli, *, details: Mapping[str, str | float | int] | None = None
) -> SimilarityTarget:
    """S of `r_i = weights * mean_i` (Eq. 2, 6) as a `SimilarityTarget`, in the population's image order.

    `stimuli` must hold every image of the population (further ones are ignored); its digest binds the target to the
    pixels. Raises `InputError` when an image is missing, or as `centered_cosine` does.
    """
    shown = stimuli.select(population.image_ids)
    matrix = centered_cosine(population.mean * population.weights, population.image_ids)
    return SimilarityTarget(
        matrix=matrix,
        image_ids=population.image_ids,
        stimuli_digest=shown.digest,
        source=population.source,
        details={"neurons": int(population.mean.shape[1]), **(details or {})},
    )
