"""A similarity matrix that a user brings: checked, then a target like any other."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from neuroprior.types import Details, Float, InputError, SimilarityTarget, Stimuli
from neuroprior.types.arrays import checked_ids
from neuroprior.types.given import refuse_other

__all__ = ["load_matrix", "target_from_matrix"]

_ROWS = 1024  # read at a time: the file stays memory-mapped
_SYMMETRY = _RANGE = 1e-5
_DIAGONAL = 1e-4
_MAKE = "save it with numpy.save(file, S.astype('float32'))"


def load_matrix(
    matrix_path: str | os.PathLike[str], ids_path: str | os.PathLike[str], stimuli: Stimuli
) -> SimilarityTarget:
    """`S` from a .npy file, float (image, image), and the images' ids from a text file, one a line, in S's order.

    S must be finite, symmetric and within [-1, 1] to 1e-5, with a diagonal of 1 to 1e-4; what rounding left is then
    taken away: `(S + S^T) / 2`, clipped, diagonal 1. A float32 S that has nothing to take away is never copied: it
    stays on disk, memory-mapped, so leave the file as it is while the target is used. The ids must be unique and each
    one of `stimuli` (which may hold more); the target is bound to their pixels. Raises `InputError` naming file, row
    (from 0) or line (from 1), value and mend.
    """
    file = Path(matrix_path)
    given = _matrix(file)
    ids = _ids(Path(ids_path), len(given), file, stimuli)
    return _target(str(file), given, ids, stimuli, {"matrix_file": file.name})


def target_from_matrix(
    matrix: Float[np.ndarray, "image image"], stimuli: Stimuli, ids: Sequence[str] | np.ndarray | None = None
) -> SimilarityTarget:
    """`S` from an array, float (image, image), in the order of `ids`, or, without them, of all `stimuli`.

    Checked and corrected as by `load_matrix`; the array is copied unless it is float32 and exact, so leave that as it
    is. Raises `InputError` naming row (from 0) or id, value and mend.
    """
    what = "target_from_matrix"
    refuse_other(what, stimuli, Stimuli)
    given = np.asarray(matrix)
    if given.dtype.kind != "f" or given.ndim != 2 or given.shape[0] != given.shape[1] or len(given) < 2:
        raise InputError(f"{what}: {given.dtype} {given.shape}; pass a float array (image, image) of 2 images or more")
    named = stimuli.ids if ids is None else np.atleast_1d(ids)
    if len(named) != len(given):
        raise InputError(f"{what}: {len(named)} ids for {len(given)} rows; pass ids=, one a row, in the matrix's order")
    checked_ids(named, what)
    return _target(what, given, named, stimuli.select(named), {})


def _target(
    what: str, given: Float[np.ndarray, "image image"], ids: np.ndarray, stimuli: Stimuli, details: Details
) -> SimilarityTarget:
    _check_finite(what, given, ids)
    exact = given.dtype == np.float32
    for start in range(0, len(given), _ROWS):
        block, across = _both_ways(given, start)
        _check_block(what, block, across, start, ids)
        exact = exact and _is_exact(block, across, start)
    return SimilarityTarget(
        matrix=given if exact else _corrected(given),
        image_ids=ids,
        stimuli_digest=stimuli.select(ids).digest,
        source="user",
        details=details,
    )


def _matrix(file: Path) -> Float[np.ndarray, "image image"]:
    if not file.is_file():
        raise InputError(f"{file}: no such file; {_MAKE}")
    try:
        matrix = np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # what numpy raises depends on the first bytes
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{file}: not a .npy file of numbers, or damaged ({said}); {_MAKE}") from None
    if not isinstance(matrix, np.ndarray):
        matrix.close()
        raise InputError(f"{file}: an .npz archive, not a .npy file; {_MAKE}")
    if matrix.dtype.kind != "f" or matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 2:
        raise InputError(f"{file}: {matrix.dtype} {matrix.shape}, not float (image, image) of 2 or more; {_MAKE}")
    return matrix


def _both_ways(given: np.ndarray, start: int) -> tuple[np.ndarray, np.ndarray]:
    """Some rows of S, and the same rows of its transpose."""
    rows = slice(start, start + _ROWS)
    return np.array(given[rows], dtype=np.float64), np.array(given[:, rows].T, dtype=np.float64)


def _is_exact(block: np.ndarray, across: np.ndarray, start: int) -> bool:
    diagonal = np.diagonal(block, offset=start)
    return bool((diagonal == 1).all() and block.min() >= -1 and block.max() <= 1 and np.array_equal(block, across))


def _corrected(given: np.ndarray) -> Float[np.ndarray, "image image"]:
    """(S + S^T) / 2, clipped to [-1, 1], with a diagonal of 1."""
    matrix = np.empty(given.shape, dtype=np.float32)
    for start in range(0, len(given), _ROWS):
        block, across = _both_ways(given, start)
        matrix[start : start + _ROWS] = np.clip((block + across) / 2, -1, 1)
    np.fill_diagonal(matrix, 1)
    return matrix


def _ids(file: Path, n: int, matrix_file: Path, stimuli: Stimuli) -> np.ndarray:
    if not file.is_file():
        raise InputError(f"{file}: no such file; write the image ids there, one a line, in the matrix's order")
    try:
        with file.open(encoding="utf-8-sig") as lines:
            ids = [line.rstrip("\n") for line in lines]
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{file}: not a UTF-8 text file; write one image id a line") from None
    if len(ids) != n:
        raise InputError(f"{file}: {len(ids)} ids for the {n} rows of {matrix_file.name}; write one image id a line")
    known = set(stimuli.ids.tolist())
    lines_of: dict[str, int] = {}
    for line, name in enumerate(ids, start=1):
        if name in lines_of:
            raise InputError(f"{file}: line {line}: {name!r} stands in line {lines_of[name]} already; name each once")
        if name not in known:
            raise InputError(
                f"{file}: line {line}: {name!r} is not among the {len(stimuli)} stimuli; pass the stimuli that the "
                "matrix is of (in a recipe, stimuli.path), or mend the id"
            )
        lines_of[name] = line
    return np.array(ids, dtype=np.str_)


def _check_finite(what: str, given: np.ndarray, ids: np.ndarray) -> None:
    for start in range(0, len(given), _ROWS):
        wrong = ~np.isfinite(given[start : start + _ROWS])
        if wrong.any():
            i, j = np.argwhere(wrong)[0].tolist()
            value = given[start + i, j]
            raise InputError(f"{what}: {_place(start + i, j, ids)} is {value}; drop the image or mend its similarity")


def _check_block(what: str, block: np.ndarray, across: np.ndarray, start: int, ids: np.ndarray) -> None:
    """Check some rows of S (`block`) against the same rows of its transpose (`across`), and their values."""
    local = np.arange(len(block))
    diagonal = block[local, start + local]
    off = np.flatnonzero(np.abs(diagonal - 1) > _DIAGONAL)
    if len(off):
        k = int(start + off[0])
        raise InputError(
            f"{what}: {_place(k, k, ids)} is {diagonal[off[0]]:.6g}; an image's similarity with itself must be 1 "
            "(a distance matrix? pass 1 - distance)"
        )
    uneven = np.abs(block - across) > _SYMMETRY
    if uneven.any():
        i, j = np.argwhere(uneven)[0].tolist()
        raise InputError(
            f"{what}: {_place(start + i, j, ids)} is {block[i, j]:.6g}, but row {j}, column {start + i} is "
            f"{across[i, j]:.6g}; average S with its transpose if that is meant"
        )
    outside = np.abs(block) > 1 + _RANGE
    outside[local, start + local] = False
    if outside.any():
        i, j = np.argwhere(outside)[0].tolist()
        raise InputError(
            f"{what}: {_place(start + i, j, ids)} is {block[i, j]:.6g}; similarities must lie in [-1, 1] "
            "(a covariance? divide by the standard deviations)"
        )


def _place(i: int, j: int, ids: np.ndarray) -> str:
    return f"row {i}, column {j} ({str(ids[i])!r}, {str(ids[j])!r})"
