"""Matrices of different scans brought to the same images, matched by id."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch

from neuroprior.similarity.unit import Responses
from neuroprior.types import Float, InputError, Int64, Shaped

__all__ = ["Missing", "align_matrices", "matched_rows"]

Missing: TypeAlias = Literal["error", "intersection"]


def matched_rows(
    what: str, ids: Mapping[str, np.ndarray], missing: Missing, mend: str
) -> list[Int64[np.ndarray, " common"]]:
    """Return, for each of these named lists of ids, where the common ones stand, in the order of the first.

    With "error" all must hold the same ids, in any order. Raises `InputError`, begun by `what`, that counts the images
    missing, names the list they are missing from, and ends with `mend`; also when fewer than 2 are common.
    """
    if missing not in get_args(Missing):
        raise InputError(f"{what}: missing {missing!r} is not one of {', '.join(get_args(Missing))}")
    rows = {who: {image: i for i, image in enumerate(one.tolist())} for who, one in ids.items()}
    first, *_ = rows
    for who, row in rows.items():
        if len(row) != len(ids[who]):
            raise InputError(f"{what}: {who} holds an image twice; ids must be unique")
        lacking = [image for image in rows[first] if image not in row]
        further = [image for image in row if image not in rows[first]]
        if missing == "error" and (lacking or further):
            raise InputError(
                f"{what}: {who} lacks {len(lacking)} of the {len(rows[first])} images of {first} and holds "
                f"{len(further)} others (first: {(lacking or further)[0]!r}); {mend}"
            )
    common = [image for image in rows[first] if all(image in row for row in rows.values())]
    if len(common) < 2:
        raise InputError(f"{what}: {len(common)} images are common to all {len(ids)}; at least 2 are needed")
    return [np.array([row[image] for image in common], dtype=np.int64) for row in rows.values()]


def align_matrices(
    matrices: Sequence[tuple[Shaped[Responses, " _"], Float[Responses, "_ _"]]],
    missing: Missing = "error",
) -> tuple[Shaped[Responses, " common"], Float[Responses, "scan common common"]]:
    """`(ids, S^h)` of several scans, brought to the same images by id: `(ids, S[scan, image, image])`.

    Takes what `oracle_similarity` returns; the ids are in the order of the first. `missing`: "error" where scans hold
    different images, or "intersection" for those that all hold; a part of a matrix is never centred again. The mean
    over scans is `S.mean(0)`, Eq. 4 `scan_fluctuation(S)`. Raises `InputError` that counts what is missing from which.
    """
    if not matrices:
        raise InputError("align_matrices: no matrix given; pass (ids, matrix) of at least one scan")
    ids = [one.detach().cpu().numpy() if isinstance(one, torch.Tensor) else np.asarray(one) for one, _ in matrices]
    for k, (one, (_, matrix)) in enumerate(zip(ids, matrices, strict=True)):
        if tuple(matrix.shape) != (len(one), len(one)):
            raise InputError(f"align_matrices: matrix {k} is {tuple(matrix.shape)} for {len(one)} ids")
    named = {f"matrix {k}": one for k, one in enumerate(ids)}
    rows = matched_rows("align_matrices", named, missing, "pass missing='intersection' to keep what all hold")
    parts = [matrix[row[:, None], row[None, :]] for row, (_, matrix) in zip(rows, matrices, strict=True)]
    joined = np.stack(parts) if isinstance(parts[0], np.ndarray) else torch.stack(parts)
    return matrices[0][0][rows[0]], joined
