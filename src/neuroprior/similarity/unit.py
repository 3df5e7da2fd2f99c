"""Directions of responses: `e_i = w (r_i - mean_i r) / |w (r_i - mean_i r)|`, block by block, the input untouched."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import torch

from neuroprior.types import Float, InputError, Int64, Shaped

__all__ = ["Responses", "as_weights", "centred_blocks", "in_blocks", "rows_at_a_time", "unit_vectors"]

Responses: TypeAlias = np.ndarray | torch.Tensor
Rows: TypeAlias = Int64[np.ndarray, " _"]

# Values held at a time: as many as torch leaves to one thread, so that they stay in its cache and no block waits for
# another thread. A second one would gain little where memory is the limit, and loses much on a machine with other work.
_BLOCK = 1 << 15
_SUMMED = 64  # rows summed together


def as_weights(weights: Responses, like: Responses, what: str) -> Float[torch.Tensor, " neuron"]:
    """Return one weight a neuron on the device of the responses, the largest 1: a cosine knows no common factor."""
    w = torch.as_tensor(weights.copy() if isinstance(weights, np.ndarray) else weights.detach())
    if w.shape != like.shape[1:]:
        raise InputError(f"{what}: weights are {tuple(w.shape)} for {like.shape[1]} neurons; give one weight a neuron")
    w = w.to(torch.float64)
    if not bool(torch.isfinite(w).all()):
        neuron = int((~torch.isfinite(w)).nonzero()[0, 0])
        raise InputError(f"{what}: weight of neuron {neuron} is {float(w[neuron])}; weights must be finite")
    largest = w.abs().max()
    if float(largest) == 0:
        raise InputError(f"{what}: all weights are 0; no neuron is left to compare images by")
    block = _block(like, np.zeros(0, dtype=np.int64))  # empty, of every block's dtype and device
    return (w / largest).to(block.device, block.dtype)


def rows_at_a_time(r: Responses) -> int:
    """How many rows are held as a block; on an accelerator more, as each block costs it a start."""
    many = isinstance(r, torch.Tensor) and r.device.type != "cpu"
    return max(1, (512 if many else 1) * _BLOCK // max(r.shape[1], 1))


def in_blocks(r: Responses, rows: Rows) -> list[Rows]:
    """Cut a list of rows into blocks."""
    step = rows_at_a_time(r)
    return [rows[start : start + step] for start in range(0, len(rows), step)]


def centred_blocks(
    r: Shaped[Responses, "all neuron"],
    blocks: Sequence[Rows],
    weights: Float[torch.Tensor, " neuron"] | None,
    named: Callable[[int], str],
) -> Iterator[tuple[Float[torch.Tensor, "_ neuron"], Float[torch.Tensor, " _"]]]:
    """`w (r_i - mean_i r)` and its length, for one block of rows after another; the mean is over all of them together.

    A block is the caller's to change. Integers become float64, other dtypes stay. After the last block, raises
    `InputError` with `named(row)` for a response that is not finite, or equals the mean and so has no direction.
    """
    n = sum(map(len, blocks))
    # Deviations from one response, summed some rows at a time, the sums of those in float64: what rounding leaves is
    # small against how much responses differ, which may be thousands of times less than they are.
    like = _block(r, blocks[0][:0])
    first = _block(r, blocks[0][:1])[0]
    total = like.new_zeros(r.shape[1], dtype=torch.float64)
    single = torch.promote_types(like.dtype, torch.float32)
    for part in _parts(r, np.sort(np.concatenate(blocks))):
        total += (part - first).sum(dim=0, dtype=single)
    mean = (first + total / n).to(like.dtype)
    weighted = mean if weights is None else mean * weights
    # What remains of a response that equals the mean is rounding, not a direction.
    rounding = 4 * torch.finfo(mean.dtype).eps * float(torch.linalg.vector_norm(weighted))
    lengths = []
    for rows in blocks:
        centred = _block(r, rows).sub_(mean)
        if weights is not None:
            centred.mul_(weights)
        lengths.append(torch.linalg.vector_norm(centred, dim=1))
        yield centred, lengths[-1]
    length = torch.cat(lengths)
    if not bool(((length > rounding) & (length < float("inf"))).all()):
        _blame(r, blocks, length, rounding, named)


def unit_vectors(
    r: Shaped[Responses, "all neuron"],
    weights: Float[torch.Tensor, " neuron"] | None,
    named: Callable[[int], str],
    rows: Rows | None = None,
) -> Float[torch.Tensor, "row neuron"]:
    """`e_i`, for these rows or all: one new array as large as they are, and besides it one small block."""
    rows = np.arange(len(r)) if rows is None else rows
    e = _block(r, rows[:0]).new_empty(len(rows), r.shape[1])
    start = 0
    for centred, length in centred_blocks(r, in_blocks(r, rows), weights, named):
        torch.div(centred, length[:, None], out=e[start : start + len(centred)])
        start += len(centred)
    return e


def _block(r: Responses, rows: Rows) -> torch.Tensor:
    """Return a copy of these rows, which NumPy's read-only arrays allow and whole matrices would not have room for."""
    # `take` and `index_select`, several times faster than indexing with an array
    if isinstance(r, np.ndarray):
        block = torch.from_numpy(r.take(rows, axis=0))
    else:
        block = r.detach().index_select(0, torch.from_numpy(rows).to(r.device))
    return block if block.is_floating_point() else block.to(torch.float64)


def _parts(r: Responses, rows: Rows) -> Iterator[torch.Tensor]:
    """Give all of these sorted rows, some at a time; without a copy where they stand together."""
    together = rows[-1] - rows[0] == len(rows) - 1
    if together and (isinstance(r, torch.Tensor) or r.flags.writeable):
        for start in range(int(rows[0]), int(rows[-1]) + 1, _SUMMED):
            part = torch.as_tensor(r[start : min(start + _SUMMED, int(rows[-1]) + 1)]).detach()
            yield part if part.is_floating_point() else part.to(torch.float64)
    else:
        for block in in_blocks(r, rows):
            yield _block(r, block)


def _blame(
    r: Responses, blocks: Sequence[Rows], length: torch.Tensor, rounding: float, named: Callable[[int], str]
) -> None:
    """Raise. One bad response spoils the mean and so every length: the culprit is where the responses are bad."""
    bad = [row for block in blocks for row in block[~torch.isfinite(_block(r, block)).all(dim=1).cpu().numpy()]]
    rows = np.concatenate(blocks)
    bad += rows[~torch.isfinite(length).cpu().numpy()].tolist()
    if bad:
        raise InputError(
            f"similarity: response to {named(int(bad[0]))} is not finite; drop the image or mend its responses"
        )
    at_mean = int(rows[(length <= rounding).cpu().numpy()][0])
    raise InputError(f"similarity: response to {named(at_mean)} equals the mean over images; drop the image")
