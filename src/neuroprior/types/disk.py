"""Large arrays to disk and back without a copy of them in memory: safetensors files, written piece by piece."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

_NAMES = {np.dtype(np.float32): "F32", np.dtype(np.uint8): "U8"}
_BYTES_AT_A_TIME = 1 << 24


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], header: Mapping[str, str]) -> None:
    """Write a safetensors file that appears whole or not at all.

    The library's own writer copies all arrays into one string first, which a memory-mapped matrix of 50,000 images is
    too large for; its reader reads what stands here (8 bytes of length, a JSON header, then the arrays' bytes).
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
            for array in tensors.values():
                rows = max(1, _BYTES_AT_A_TIME // max(1, array.nbytes // max(1, len(array))))
                for start in range(0, len(array), rows):
                    file.write(np.ascontiguousarray(array[start : start + rows]).data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    finally:
        Path(temporary).unlink(missing_ok=True)
