"""The picture bank of a recording: variable `img` of a MATLAB v5 file, of which only the rows wanted are ever held."""

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from neuroprior.types import InputError, Int64, UInt8

__all__ = ["read_mat_images", "write_mat_images"]

_MATRIX, _COMPRESSED, _UINT8 = 14, 15, 2  # types of elements, by MATLAB's description of its v5 files
_HEADER, _BYTES_AT_A_TIME, _MOST = 128, 1 << 20, 1 << 32
_MEND = "save it from MATLAB with -v6 or -v7, or with scipy.io.savemat, as img: uint8 (height, width, image)"


def read_mat_images(
    file: Path, name: str, wanted: Int64[np.ndarray, " row"]
) -> tuple[UInt8[np.ndarray, "picture height width"], int]:
    """Return pictures `wanted` (ascending) of a variable that is uint8 (height, width, image), and how many it has.

    A variable lies on the disk with its last axis slowest, so one picture after the other: what is not wanted is
    skipped. A row that is not there gives no picture. Raises `InputError` for what is no such file or variable.
    """
    try:
        with file.open("rb") as handle:
            return _variable(handle, name, wanted)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or error}); make it readable") from None
    except zlib.error:
        raise InputError(f"{file}: is damaged (what is compressed in it cannot be read); copy it again") from None
    except ValueError as error:
        raise InputError(f"{file}: {error}; {_MEND}") from None
    except EOFError:
        raise InputError(f"{file}: ends too early; copy it again") from None


def write_mat_images(file: Path, images: Mapping[str, UInt8[np.ndarray, "image height width"]]) -> None:
    """Write pictures under these names as uint8 (height, width, image), uncompressed: same pictures, same bytes.

    Raises `InputError` for more than such a file can hold.
    """
    from scipy.io import savemat  # type: ignore[import-untyped]

    if any(value.nbytes >= _MOST for value in images.values()):
        raise InputError(f"{file}: a MATLAB v5 file holds less than 4 GB of pictures; save in another format")
    with file.open("wb") as stream:
        savemat(stream, {name: np.moveaxis(value, 0, -1) for name, value in images.items()}, do_compression=False)
        stream.seek(0)
        stream.write(b"MATLAB 5.0 MAT-file".ljust(116))  # scipy writes the hour there


@dataclass(slots=True)
class _Plain:
    """Bytes of a file, as they stand."""

    handle: BinaryIO

    def read(self, n: int) -> bytes:
        data = self.handle.read(n)
        if len(data) < n:
            raise EOFError
        return data

    def skip(self, n: int) -> None:
        self.handle.seek(n, 1)


@dataclass(slots=True)
class _Deflated:
    """Bytes of a compressed element, of which `left` are still to be taken from the file."""

    handle: BinaryIO
    left: int
    inflate: "zlib._Decompress" = field(default_factory=zlib.decompressobj)

    def read(self, n: int) -> bytes:
        pieces = []
        while n:
            packed = self.inflate.unconsumed_tail or self.handle.read(min(_BYTES_AT_A_TIME, self.left))
            if not self.inflate.unconsumed_tail:
                self.left -= len(packed)
            piece = self.inflate.decompress(packed, n)
            if not piece and not packed:
                raise EOFError
            pieces.append(piece)
            n -= len(piece)
        return b"".join(pieces)

    def skip(self, n: int) -> None:
        while n:
            n -= len(self.read(min(n, _BYTES_AT_A_TIME)))


def _variable(handle: BinaryIO, name: str, wanted: np.ndarray) -> tuple[np.ndarray, int]:
    header = handle.read(_HEADER)
    if header.startswith(b"MATLAB 7.3"):
        raise ValueError("is a MATLAB 7.3 file")
    if len(header) < _HEADER or header[124:128] != b"\x00\x01IM":
        raise ValueError("is not a MATLAB v5 file of a little-endian machine")
    held = []
    while len(tag := handle.read(8)) == 8:
        kind, n_bytes = struct.unpack("<II", tag)
        end = handle.tell() + n_bytes
        stream = _Deflated(handle, n_bytes) if kind == _COMPRESSED else _Plain(handle)
        if kind == _COMPRESSED:
            kind, _ = struct.unpack("<II", stream.read(8))
        if kind == _MATRIX:
            _element(stream)  # flags
            shape = tuple(np.frombuffer(_element(stream), "<i4").tolist())
            held.append(_element(stream).decode("ascii", "replace"))
            if held[-1] == name:
                return _pictures(stream, name, shape, wanted)
        handle.seek(end)
    if tag:
        raise EOFError
    raise ValueError(f"variable {name!r} is missing (it holds {', '.join(held) or 'nothing'})")


def _element(stream: _Plain | _Deflated) -> bytes:
    """One small element: its tag says how long it is; four bytes at most may stand in the tag itself."""
    tag = stream.read(8)
    kind, n_bytes = struct.unpack("<II", tag)
    if kind >> 16:
        return tag[4 : 4 + (kind >> 16)]
    if n_bytes > _BYTES_AT_A_TIME:
        raise ValueError("is damaged")
    return stream.read(n_bytes + -n_bytes % 8)[:n_bytes]


def _pictures(
    stream: _Plain | _Deflated, name: str, shape: tuple[int, ...], wanted: np.ndarray
) -> tuple[np.ndarray, int]:
    kind, n_bytes = struct.unpack("<II", stream.read(8))
    size = int(np.prod(shape, dtype=object))
    if len(shape) != 3 or size <= 0 or kind != _UINT8 or n_bytes != size:
        what = "uint8" if kind == _UINT8 else "not uint8"
        raise ValueError(f"variable {name!r} is {what} {shape}, not uint8 (height, width, image)")
    height, width, n = shape
    rows = wanted[wanted < n].tolist()
    images = np.empty((len(rows), height, width), np.uint8)
    passed = 0
    for place, row in enumerate(rows):
        stream.skip((row - passed) * height * width)
        images[place] = np.frombuffer(stream.read(height * width), np.uint8).reshape(width, height).T
        passed = row + 1
    return images, n
