"""Large arrays to disk and back without a copy of them in memory: safetensors files, written piece by piece."""

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

_NAMES = {np.dtype(np.float32): "F32", np.dtype(np.uint8): "U8"}
_BYTES_AT_A_TIME = 1 << 24


@dataclass(frozen=True, slots=True, eq=False)
class RowBlocks:
    """An array that is made as it is written: its rows, some at a time. A block may be overwritten by the next."""

    shape: tuple[int, ...]
    dtype: np.dtype
    blocks: Iterable[np.ndarray]

    @property
    def nbytes(self) -> int:
        """Bytes that all blocks together must have."""
        return prod(self.shape) * self.dtype.itemsize


def write_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray | RowBlocks], header: Mapping[str, str]
) -> None:
    """Write a safetensors file that appears whole or not at all.

    The library's own writer copies all arrays into one string first, which a memory-mapped matrix of 50,000 images is
    too large for, and knows no array that comes in blocks; its reader reads what stands here (8 bytes of length, a JSON
    header, then the arrays' bytes).
    """
    entries: dict[str, object] = {"__metadata__": dict(header)}
    end = 0
    for name, array in tensors.items():
        start, end = end, end + array.nbytes
        entries[name] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [start, end]}
    head = json.dumps(entries).encode()
    head += b" " * (-len(head) % 8)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(len(head).to_bytes(8, "little") + head)
            for name, array in tensors.items():
                end = file.tell() + array.nbytes
                for block in array.blocks if isinstance(array, RowBlocks) else _rows(array):
                    file.write(np.ascontiguousarray(block, dtype=array.dtype).data)
                if file.tell() != end:
                    raise ValueError(f"{path}: {name} was to end at byte {end}, its blocks do at {file.tell()}")
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _rows(array: np.ndarray) -> Iterable[np.ndarray]:
    rows = max(1, _BYTES_AT_A_TIME // max(1, array.nbytes // max(1, len(array))))
    return (array[start : start + rows] for start in range(0, len(array), rows))
