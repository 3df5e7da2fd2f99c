"""NumPy's .npy files as a stream of bytes: the header is believed only where the bytes that follow bear it out."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

__all__ = ["ByteStream", "Header", "read_array", "read_header"]

_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_BYTES_AT_A_TIME = 1 << 24


@runtime_checkable
class ByteStream(Protocol):
    """A file, or a member of an archive, open for reading."""

    def read(self, size: int = -1, /) -> bytes:
        """Return so many bytes at most; none at the end."""

    def tell(self) -> int:
        """Return how many bytes were read."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a .npy file says of the array in it; `start`: bytes of the header itself."""

    dtype: "np.dtype[Any]"
    shape: tuple[int, ...]
    fortran_order: bool
    start: int

    @property
    def n_bytes(self) -> int:
        """Bytes of the array."""
        size = self.dtype.itemsize
        for length in self.shape:
            size *= length
        return size


def read_header(stream: ByteStream, n_bytes: int) -> Header:
    """Read the header of a .npy file of `n_bytes` in all, from its beginning.

    Raises `ValueError` for what is no .npy file, for objects (which only unpickling could read), and for an array that
    the file is too short or too long for, so that nothing is ever allocated on a damaged header's word.
    """
    start = stream.tell()
    version = np.lib.format.read_magic(stream)
    if version not in _READERS:
        raise ValueError(f".npy version {version[0]}.{version[1]}")
    shape, fortran_order, dtype = _READERS[version](stream)
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be read, as they are pickles")
    header = Header(dtype, shape, fortran_order, stream.tell() - start)
    if any(length < 0 for length in shape) or header.start + header.n_bytes != n_bytes:
        raise ValueError(f"it says {dtype} {shape}, for which the file has the wrong length")
    return header


def read_array(stream: ByteStream, header: Header) -> np.ndarray:
    """Read the array that follows its header; `ValueError` where the stream ends before it."""
    array = np.empty(header.n_bytes, dtype=np.uint8)
    done = 0
    while done < header.n_bytes:
        piece = stream.read(min(_BYTES_AT_A_TIME, header.n_bytes - done))
        if not piece:
            raise ValueError("it ends too early")
        array[done : done + len(piece)] = np.frombuffer(piece, dtype=np.uint8)
        done += len(piece)
    stream.read(1)  # a compressed member checks its sum at its end
    if not array.size:
        return np.empty(header.shape, header.dtype)
    order: Literal["F", "C"] = "F" if header.fortran_order else "C"
    return array.view(header.dtype).reshape(header.shape, order=order)
