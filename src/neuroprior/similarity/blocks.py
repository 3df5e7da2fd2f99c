"""Large targets in little memory: of several populations, one held at a time; or written as it is made."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import torch

from neuroprior.similarity.match import matched_rows
from neuroprior.similarity.unit import as_weights, centred_blocks, in_blocks, unit_vectors
from neuroprior.types import Float32, InputError, Population, SimilarityTarget, Stimuli

__all__ = ["target_from_populations", "write_target"]

_ROWS = 512  # of S made at a time
_NEURONS = 1024  # whose products are added at a time


def target_from_populations(
    populations: Iterable[Population], stimuli: Stimuli, *, details: Mapping[str, str | float | int] | None = None
) -> SimilarityTarget:
    """`S = E_h e^h_i . e^h_j`: the mean over scans `h` of Eq. 2, in the image order of the first population.

    Populations must hold the same images, in any order, each centred on its own mean over them; `stimuli` must hold
    them too (further ones are ignored). They are asked for one after another and let go again: with a generator there
    is never more in memory than S (float32), one population and a small part of its unit vectors.

    Raises `InputError` that says which population lacks how many images, when there is none, or as `centered_cosine`.
    """
    total, ids, n_scans = torch.empty(0), np.empty(0, dtype=np.str_), 0
    sources, neurons = set(), set()
    for population in populations:
        if not n_scans:
            ids = population.image_ids
            total = torch.zeros(len(ids), len(ids))
            stimuli = stimuli.select(ids)
        *_, rows = matched_rows(
            "target_from_populations",
            {"population 0": ids, f"population {n_scans}": population.image_ids},
            "error",
            "predict one image set with every scan's twin",
        )
        _add_below_diagonal(total, population, rows)
        sources.add(population.source)
        neurons.add(int(population.mean.shape[1]))
        n_scans += 1
        del population  # before the next one is made
    if not n_scans:
        raise InputError("target_from_populations: no population given; pass at least one")
    _mirror(total.div_(n_scans).clamp_(-1, 1).fill_diagonal_(1))
    return SimilarityTarget(
        matrix=total.numpy(),
        image_ids=ids,
        stimuli_digest=stimuli.digest,
        source=sources.pop() if len(sources) == 1 else "user",
        n_scans=n_scans,
        details={
            **({"neurons": neurons.pop()} if len(neurons) == 1 else {}),  # true of none alone where they differ
            "averaged_targets": n_scans,
            **(details or {}),
        },
    )


def write_target(
    path: str | os.PathLike[str],
    population: Population,
    stimuli: Stimuli,
    *,
    details: Mapping[str, str | float | int] | None = None,
) -> SimilarityTarget:
    """`target_from_population(...).save(path)` without ever holding S: it is written block by block.

    Returns the target memory-mapped, as `SimilarityTarget.load` does. The file appears whole or not at all. For 50,000
    images of 1,000 neurons it takes 10 GB. Raises as `target_from_population`.
    """
    shown = stimuli.select(population.image_ids)
    e = unit_vectors(population.mean, *_usable(population))
    return SimilarityTarget.write(
        path,
        _blocks_of_s(e),
        image_ids=population.image_ids,
        stimuli_digest=shown.digest,
        source=population.source,
        details={"neurons": int(population.mean.shape[1]), **(details or {})},
    )


def _usable(population: Population) -> tuple[Float32[torch.Tensor, " neuron"], Callable[[int], str]]:
    """Return the weights and how an error names an image."""
    mean, ids = population.mean, population.image_ids
    if len(mean) < 2 or mean.shape[1] < 1:
        raise InputError(f"similarity: responses are {mean.shape}; at least 2 images and 1 neuron are needed")
    return as_weights(population.weights, mean, "similarity"), lambda row: f"image {str(ids[row])!r}"


def _add_below_diagonal(total: Float32[torch.Tensor, "image image"], population: Population, rows: np.ndarray) -> None:
    """Add `E E^T` on and below the diagonal (and in a few places above it): half of the products.

    Neurons are taken some at a time, so that unit vectors as large as the population are never held.
    """
    r = population.mean
    weights, named = _usable(population)
    length = torch.cat([norm for _, norm in centred_blocks(r, in_blocks(r, rows), weights, named)])[:, None]
    for start in range(0, r.shape[1], _NEURONS):
        some = slice(start, start + _NEURONS)
        e = torch.from_numpy(r[rows, some])
        mean = np.add.reduce(e.numpy(), axis=0, dtype=np.float64) / len(e)
        e.sub_(torch.from_numpy(mean).to(e.dtype)).mul_(weights[some]).div_(length)
        for first in range(0, len(e), _ROWS):
            last = min(first + _ROWS, len(e))
            total[first:last, :last].addmm_(e[first:last], e[:last].T)


def _mirror(s: Float32[torch.Tensor, "image image"]) -> None:
    """Copy what is below the diagonal above it."""
    for start in range(0, len(s), _ROWS):
        rows = slice(start, min(start + _ROWS, len(s)))
        s[:start, rows] = s[rows, :start].T
        here = s[rows, rows]
        here.copy_(here.tril() + here.tril(-1).T)


def _blocks_of_s(e: Float32[torch.Tensor, "image neuron"]) -> Iterator[Float32[np.ndarray, "rows image"]]:
    """S, some rows at a time, in one buffer."""
    buffer = torch.empty(min(_ROWS, len(e)), len(e))
    for start in range(0, len(e), _ROWS):
        block = buffer[: min(_ROWS, len(e) - start)]
        torch.mm(e[start : start + len(block)], e.T, out=block).clamp_(-1, 1)
        block.diagonal(offset=start).fill_(1)
        yield block.numpy()
