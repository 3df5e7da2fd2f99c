"""Compiled loops on the processor: tensors as arrays, and work split over as many threads as torch uses."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import numpy as np
import torch


def array_of(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor's values as an array, not copied where they lie in one piece; bfloat16 as bits, uint16."""
    held = tensor.detach().contiguous()
    if held.dtype == torch.bfloat16:
        bits: np.ndarray = held.view(torch.int16).numpy().view(np.uint16)
        return bits
    array: np.ndarray = held.numpy()
    return array


def n_threads() -> int:
    """Return how many threads torch uses."""
    return torch.get_num_threads()


def in_parts(loop: Callable[..., None], n: int, arguments: Callable[[int, int, int], tuple[object, ...]]) -> None:
    """Run a compiled loop over 0..n, a thread a part: `arguments(first, last, part)`.

    The parts are always the same for a number of threads, and so are sums over them.
    """
    threads = n_threads()
    ends = np.linspace(0, n, threads + 1).astype(int).tolist()
    parts = [arguments(first, last, part) for part, (first, last) in enumerate(pairwise(ends))]
    # the last part is this thread's own: one hand-over less
    others = [_pool(threads).submit(loop, *part) for part in parts[:-1]]
    loop(*parts[-1])
    for other in others:
        other.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)
