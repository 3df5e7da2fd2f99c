"""Where HDF5 keeps texts of variable length: damage there that would keep its library busy for ever."""

import struct
from pathlib import Path

__all__ = ["endless_heap"]

_SIGNATURE = b"GCOL\x01\x00\x00\x00"  # version 1, three reserved bytes
_BLOCK = 1 << 24  # bytes read at a time
_MOST = 1 << 31  # of a larger file only this much is looked through: seconds from a disk


def endless_heap(file: Path) -> int | None:
    """Return where in the file a global heap begins that libhdf5 (2.0 and before) never comes to the end of; or None.

    A heap is objects one after another, each with its size; a free one of size 0, or a size that runs over 64 bits, is
    a step of 0 bytes, which the library takes again and again without letting go of Python. Sizes are 8 bytes, as
    in every file of a 64-bit machine. Layout: HDF5 File Format Specification III.E.
    """
    with file.open("rb") as stream:
        tail, start = b"", 0
        while start < _MOST and (block := stream.read(_BLOCK)):
            held = tail + block
            place = held.find(_SIGNATURE)
            while place >= 0:
                at = start - len(tail) + place
                if _is_endless(file, at):
                    return at
                place = held.find(_SIGNATURE, place + 1)
            start += len(block)
            tail = held[-len(_SIGNATURE) + 1 :]
    return None


def _is_endless(file: Path, at: int) -> bool:
    with file.open("rb") as stream:
        stream.seek(at + 8)
        (size,) = struct.unpack("<Q", stream.read(8).ljust(8, b"\0"))
        objects = stream.read(max(0, min(size, file.stat().st_size) - 16))
    place = 0
    while place + 16 <= len(objects):
        index, _, _, length = struct.unpack_from("<HHIQ", objects, place)
        step = (length if index == 0 else 16 + -(-length // 8) * 8) % 2**64
        if not step:
            return True
        place += step
    return False
