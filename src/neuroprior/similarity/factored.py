"""S = E E^T kept as few coordinates an image, every entry within a tolerance: memory grows with N, not with N^2.

The theorem that all of this rests on. Let Q be an orthogonal change of basis, E_r = E Q[:, :r] the r leading
coordinates and D = E Q[:, r:] the rest. Then S - E_r E_r^T = D D^T is positive semidefinite, so its largest entry
stands on its diagonal: max_ij |S - E_r E_r^T|_ij = max_i |D_i|^2, and |D_i|^2 = |E_i|^2 - |(E_r)_i|^2. The smallest r
that keeps every entry is so found exactly from the lengths of rows, without a single product of two images.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeAlias

import numpy as np

from neuroprior.similarity.targets import shared_fields
from neuroprior.types import FactoredTarget, Float32, Float64, InputError, Population, SimilarityTarget, Stimuli

_BLOCK_BYTES = 1 << 26  # of float64 rows held at a time
_ROUNDING = float(np.finfo(np.float32).eps)  # that a product of two unit vectors changes by when they become float32
_LEAST = 1e-6  # tolerance: below it float32 coordinates say nothing

Rows: TypeAlias = Callable[[slice], np.ndarray]  # float64 coordinates of these images, however they are come by


class _Cut(NamedTuple):
    coordinates: Float32[np.ndarray, "image rank"]
    error: float  # no entry of E_r E_r^T is further than this from that of E E^T


def factor_population(
    population: Population,
    stimuli: Stimuli,
    *,
    tolerance: float = 0.01,
    max_rank: int | None = None,
    details: Mapping[str, str | float | int] | None = None,
) -> FactoredTarget:
    """S ~ E_r E_r^T, E the unit vectors of Eq. 2, cut to the fewest principal coordinates that keep S to `tolerance`.

    No (image, image) matrix is made where there are more images than neurons, and `population.mean` is read in blocks:
    it may be memory-mapped and larger than memory. `max_rank` cuts there at the latest; the target's `tolerance` is
    the error that was reached, whichever. Raises `InputError` as `target_from_population` does.
    """
    _check_options(tolerance, max_rank)
    shown = stimuli.select(population.image_ids)
    cut = _principal(_unit_vectors(population), population.mean.shape, tolerance, max_rank)
    return FactoredTarget(
        coordinates=cut.coordinates,
        image_ids=population.image_ids,
        stimuli_digest=shown.digest,
        source=population.source,
        tolerance=cut.error,
        details={"neurons": int(population.mean.shape[1]), **(details or {})},
    )


def factor_target(target: SimilarityTarget, *, tolerance: float = 0.01, max_rank: int | None = None) -> FactoredTarget:
    """S ~ E_r E_r^T from the eigenvalues of S, r the fewest that keep every entry to `tolerance`.

    Coordinates are real, so what negative eigenvalues add to S is lost: Eq. 2 and means of it have none, a matrix that
    a user brings may. The target's `tolerance` is the largest difference from S, measured. Raises `InputError` with its
    size where it exceeds `tolerance` though no coordinate was cut.
    """
    _check_options(tolerance, max_rank)
    values, vectors = np.linalg.eigh(target.matrix.astype(np.float64))
    values, vectors = values[::-1], vectors[:, ::-1]
    real = max(1, int(np.count_nonzero(values > 0)))
    full = vectors[:, :real] * np.sqrt(np.maximum(values[:real], 0))
    lost = np.square(vectors[:, real:]) @ -values[real:]  # the diagonal of the part with negative eigenvalues
    # An entry is off by D_i . D_j, by lost_ij, and by what shortening rows from |E_i|^2 = 1 + lost_i to 1 takes.
    cut = _residuals(full, np.square(full).sum(axis=1)).max(axis=0)
    rank = _smallest(np.array([1.0, *cut + 2 * lost.max() + _ROUNDING]), tolerance)
    coordinates = _no_longer_than_1(full[:, :rank])
    error = _worst_entry(target.matrix, coordinates)
    if error > tolerance:
        raise InputError(
            f"factor_target: the matrix has negative eigenvalues (down to {values[-1]:.3g}), which no coordinates "
            f"have: entries would be off by up to {error:.3g}, over the tolerance of {tolerance:g}; keep it as a matrix"
        )
    if max_rank is not None and rank > max_rank:
        coordinates = _no_longer_than_1(full[:, :max_rank])
        error = _worst_entry(target.matrix, coordinates)
    return FactoredTarget(
        coordinates=coordinates,
        image_ids=target.image_ids,
        stimuli_digest=target.stimuli_digest,
        source=target.source,
        tolerance=error,
        n_scans=target.n_scans,
        details=target.details,
    )


def average_factored(
    targets: Sequence[FactoredTarget], *, tolerance: float = 0.01, max_rank: int | None = None
) -> FactoredTarget:
    """S = E_h S^h: the coordinates E_h / sqrt(H) side by side, cut to the fewest that keep the mean to `tolerance`.

    The target's `tolerance` is the mean of the scans' tolerances plus that of this cut: errors pass through a mean.
    Raises `InputError` when there is no target or when two are of different stimuli.
    """
    _check_options(tolerance, max_rank)
    shared = shared_fields("average_factored", targets)

    def side_by_side(rows: slice) -> Float64[np.ndarray, "image rank"]:
        joined = np.concatenate([target.coordinates[rows] for target in targets], axis=1)
        scaled: np.ndarray = joined.astype(np.float64) / np.sqrt(len(targets))
        return scaled

    cut = _principal(side_by_side, (len(targets[0]), sum(target.rank for target in targets)), tolerance, max_rank)
    bound = float(np.mean([target.tolerance for target in targets])) + cut.error
    return replace(targets[0], coordinates=cut.coordinates, tolerance=bound, **shared)


def _check_options(tolerance: float, max_rank: int | None) -> None:
    if not _LEAST <= tolerance < 1:
        raise InputError(f"factored target: tolerance is {tolerance}; it must be from {_LEAST:g} to below 1")
    if max_rank is not None and max_rank < 1:
        raise InputError(f"factored target: max_rank is {max_rank}; it must be 1 or more, or None")


def _unit_vectors(population: Population) -> Rows:
    """e_i of Eq. 2, for the rows asked for; the mean over all images is taken now, in float64."""
    r, weights, ids = population.mean, population.weights.astype(np.float64), population.image_ids
    if len(r) < 2 or r.shape[1] < 1:
        raise InputError(f"similarity: responses are {r.shape}; at least 2 images and 1 neuron are needed")
    total = np.zeros(r.shape[1])
    for rows in _blocks(*r.shape):
        with np.errstate(invalid="ignore"):  # what is not finite is named below
            block = r[rows] * weights
            total += block.sum(axis=0)
        if not np.isfinite(total).all():
            row = rows.start + int(np.argmin(np.isfinite(block).all(axis=1)))
            raise _unusable(row, ids, "is not finite; drop the image or mend its responses")
    mean = total / len(r)

    def unit(rows: slice) -> Float64[np.ndarray, "image neuron"]:
        e: np.ndarray = r[rows] * weights
        rounding = 4 * np.finfo(r.dtype).eps * np.linalg.norm(e, axis=1)
        e -= mean
        length = np.linalg.norm(e, axis=1)
        at_mean = np.flatnonzero(length <= rounding)
        if len(at_mean):
            raise _unusable(rows.start + int(at_mean[0]), ids, "equals the mean over images; drop the image")
        e /= length[:, None]
        return e

    return unit


def _unusable(row: int, ids: np.ndarray, why: str) -> InputError:
    return InputError(f"similarity: response to image {str(ids[row])!r} {why}")


def _blocks(n: int, dims: int) -> list[slice]:
    step = max(1, _BLOCK_BYTES // (8 * max(dims, 1)))
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def _principal(rows_of: Rows, shape: tuple[int, ...], tolerance: float, max_rank: int | None) -> _Cut:
    """Cut the vectors of a matrix of this shape, one a row, to their fewest leading principal coordinates."""
    n, dims = shape
    blocks = _blocks(n, dims)
    if n <= dims:
        gram = _gram(rows_of, blocks, n)
        lengths = np.diag(gram).copy()
        values, vectors = _eigen(gram)
        vectors *= np.sqrt(values)

        def project(rows: slice, columns: slice) -> np.ndarray:  # E = U sqrt(Lambda): nothing is read again
            return vectors[rows, columns]
    else:
        moment, lengths = _second_moment(rows_of, blocks, n, dims)
        values, vectors = _eigen(moment)

        def project(rows: slice, columns: slice) -> np.ndarray:
            projected: np.ndarray = rows_of(rows) @ vectors[:, columns]
            return projected

    worst = _worst_by_rank(project, values, lengths, blocks, tolerance, max_rank)
    rank = _smallest(worst, tolerance)
    coordinates = np.empty((n, rank), dtype=np.float32)
    for rows in blocks:
        coordinates[rows] = project(rows, slice(0, rank))
    return _Cut(coordinates, float(worst[rank]))


def _gram(rows_of: Rows, blocks: list[slice], n: int) -> Float64[np.ndarray, "image image"]:
    """E E^T, its lower triangle only: eigh reads no other."""
    gram = np.empty((n, n))
    for k, rows in enumerate(blocks):
        e = rows_of(rows)
        gram[rows, rows] = e @ e.T
        for others in blocks[:k]:
            gram[rows, others] = e @ rows_of(others).T
    return gram


def _second_moment(rows_of: Rows, blocks: list[slice], n: int, dims: int) -> tuple[np.ndarray, np.ndarray]:
    """E^T E, and the squared length of every row of E."""
    moment, lengths = np.zeros((dims, dims)), np.empty(n)
    for rows in blocks:
        e = rows_of(rows)
        moment += e.T @ e
        lengths[rows] = np.einsum("ij,ij->i", e, e)
    return moment, lengths


def _eigen(symmetric: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues from the largest on, not below 0, and their vectors as columns."""
    values, vectors = np.linalg.eigh(symmetric)
    return np.maximum(values[::-1], 0), vectors[:, ::-1]


def _worst_by_rank(
    project: Callable[[slice, slice], np.ndarray],
    values: Float64[np.ndarray, " dim"],
    lengths: Float64[np.ndarray, " image"],
    blocks: list[slice],
    tolerance: float,
    max_rank: int | None,
) -> Float64[np.ndarray, " rank"]:
    """max_i |D_i|^2 when 0, 1, 2, ... coordinates are kept, at least until it is within the tolerance.

    Eigenvalues bound the rank from below (the largest |D_i|^2 is no less than the mean one), so that many coordinates
    are looked at first, and then as many again: of those that no one needs, few are computed.
    """
    most = min(len(values), max_rank or len(values))
    step = 1 + int(np.count_nonzero(values.sum() - np.cumsum(values) > tolerance * len(lengths)))
    left, worst = lengths, [float(lengths.max())]
    for start in range(0, most, step):
        columns = slice(start, min(start + step, most))
        highest, after = np.zeros(columns.stop - start), np.empty_like(left)
        for rows in blocks:
            residuals = _residuals(project(rows, columns), left[rows])
            highest = np.maximum(highest, residuals.max(axis=0))
            after[rows] = residuals[:, -1]
        left = after
        worst.extend(highest.tolist())
        if worst[-1] + _ROUNDING <= tolerance:
            break
    return np.array(worst) + _ROUNDING


def _residuals(coordinates: np.ndarray, lengths: np.ndarray) -> Float64[np.ndarray, "image rank"]:
    """|D_i|^2 when the first 1, 2, ... of these coordinates are kept, of rows whose squared length is given."""
    kept = np.square(coordinates)
    np.cumsum(kept, axis=1, out=kept)
    residuals: np.ndarray = np.maximum(lengths[:, None] - kept, 0)
    return residuals


def _smallest(worst: np.ndarray, tolerance: float) -> int:
    """Return the least rank, 1 or more, that keeps the tolerance, or the highest looked at where none does."""
    enough = np.flatnonzero(worst[1:] <= tolerance)
    return 1 + int(enough[0]) if len(enough) else len(worst) - 1


def _no_longer_than_1(coordinates: np.ndarray) -> Float32[np.ndarray, "image rank"]:
    length = np.linalg.norm(coordinates, axis=1, keepdims=True)
    shortened: np.ndarray = (coordinates / np.maximum(length, 1)).astype(np.float32)
    return shortened


def _worst_entry(matrix: np.ndarray, coordinates: np.ndarray) -> float:
    """max_ij |S - E E^T|_ij."""
    e = coordinates.astype(np.float64)
    return max(float(np.abs(matrix[rows] - e[rows] @ e.T).max()) for rows in _blocks(len(e), len(e)))
