""".npz files: fields read one by one with a message for whatever is wrong, and written whole or not at all."""

import os
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

import numpy as np

from neuroprior.files import appearing_whole
from neuroprior.recordings.growth import grown_too_far
from neuroprior.recordings.npy import Header, read_array, read_header
from neuroprior.types import InputError

__all__ = ["archive_fields", "read_archive", "write_archive"]

_MAPPED = 1 << 25  # bytes from which a field stays in its file
_BYTES_AT_A_TIME = 1 << 24


def read_archive(
    file: Path, needed: Collection[str], optional: Collection[str] = (), *, mend: str
) -> dict[str, np.ndarray]:
    """Read these fields of an .npz file; never unpickles. `mend` ends every message: how such a file is made.

    A large field that is not compressed stays in the file, memory-mapped and read-only: replace such a file (as
    `write_archive` does) rather than write into it. Its bytes are read once, to check their sum. No value is read
    before the headers of all fields, which the file's size must bear out.

    Raises `InputError` for a file that cannot be read, a needed field that is missing, and a damaged field.
    """
    with _opened(file, mend) as archive:
        held = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        for name in needed:
            if name not in held:
                there = ", ".join(held) or "nothing"
                raise InputError(f"{file}: field {name!r} is missing (it holds {there}); {mend}")
        asked = {name: held[name] for name in (*needed, *optional) if name in held}
        _refuse_growth(file, list(asked.values()), mend)
        headers = {}
        for name, info in asked.items():
            with _reading(file, name, mend), archive.open(info) as stream:
                headers[name] = read_header(stream, info.file_size)
        return {name: _field(file, archive, info, headers[name], mend) for name, info in asked.items()}


def archive_fields(file: Path, mend: str) -> list[str]:
    """Return the names of all that an .npz file holds; `InputError` for a file that cannot be read."""
    with _opened(file, mend) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


@contextmanager
def _opened(file: Path, mend: str) -> Iterator[zipfile.ZipFile]:
    if not file.is_file():
        raise InputError(f"{file}: no such file; {mend}")
    try:
        handle = file.open("rb")
    except OSError as error:
        raise InputError(f"{file}: cannot be opened ({error.strerror}); make it readable") from None
    with handle:
        if handle.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX:
            raise InputError(f"{file}: a single array, not an .npz file; {mend}")
        try:
            archive = zipfile.ZipFile(handle)
        except Exception:  # what is raised depends on the bytes that are damaged
            raise InputError(f"{file}: {_broken(handle, mend)}") from None
        with archive:
            yield archive


def _broken(handle: IO[bytes], mend: str) -> str:
    """Say what is wrong with a file that cannot be opened as an archive, and how to mend it."""
    handle.seek(0)
    start = handle.read(2)
    if start == b"PK":
        return "stops before its end, as after a copy that was cut off; copy it again"
    return f"empty; {mend}" if not start else f"not an .npz file, or damaged; {mend}"


def _refuse_growth(file: Path, asked: list[zipfile.ZipInfo], mend: str) -> None:
    for info in asked:
        too_far = grown_too_far(info.file_size, info.compress_size)
        if too_far is not None:
            raise InputError(f"{file}: field {info.filename.removesuffix('.npy')!r} {too_far}; {mend}")
    stored = min(sum(info.compress_size for info in asked), file.stat().st_size)  # as fields may share their bytes
    too_far = grown_too_far(sum(info.file_size for info in asked), stored)
    if too_far is not None:
        raise InputError(f"{file}: {too_far}; {mend}")


def _field(file: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, header: Header, mend: str) -> np.ndarray:
    with _reading(file, info.filename.removesuffix(".npy"), mend):
        with archive.open(info) as stream:
            stream.read(header.start)
            if info.compress_type != zipfile.ZIP_STORED or header.n_bytes < _MAPPED:
                return read_array(stream, header)
            while stream.read(_BYTES_AT_A_TIME):  # to its end, where the sum is checked
                pass
        start = _data_start(file, info) + header.start
        order: Literal["F", "C"] = "F" if header.fortran_order else "C"
        return np.memmap(file, dtype=header.dtype, mode="r", offset=start, shape=header.shape, order=order)


@contextmanager
def _reading(file: Path, name: str, mend: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a damaged member raises whatever its decoder was at: zip, zlib, header, memory
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{file}: field {name!r} cannot be read ({said}); {mend}") from None


def _data_start(file: Path, info: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin, by its local header: 30 bytes, then name and extra field of the lengths given."""
    with file.open("rb") as handle:
        handle.seek(info.header_offset)
        local = handle.read(30)
    return info.header_offset + 30 + int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")


def write_archive(path: str | os.PathLike[str], fields: Mapping[str, np.ndarray]) -> None:
    """Write an .npz file that appears whole or not at all: the same fields, the same bytes. Makes its folder.

    Raises `InputError` where nothing can be written there.
    """
    file = Path(path)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with appearing_whole(file) as temporary, temporary.open("wb") as stream:  # to a path, numpy would add .npz
            np.savez(stream, **fields)  # type: ignore[arg-type] # numpy's flag is no field of ours
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({error.strerror or error}); name another place") from None
