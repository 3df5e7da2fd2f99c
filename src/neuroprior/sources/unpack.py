"""Unpacking an archive that is not trusted: nothing leaves the folder, nothing is linked, nothing grows without end."""

import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from gzip import BadGzipFile
from pathlib import Path, PureWindowsPath
from typing import IO, cast

from neuroprior.types import InputError

__all__ = ["Progress", "unpack"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many bytes of it are done, and of how many."""

_CHUNK = 1 << 18
# What the readers raise; RuntimeError is zipfile's for encrypted members and compression that it does not know
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, BadGzipFile, zlib.error, EOFError, RuntimeError)


def unpack(archive: Path, folder: Path, *, at_most: int, progress: Progress | None = None) -> None:
    """Unpack a .tar.gz or .zip that holds `folder.name/`, so that `folder` appears whole or not at all.

    Whoever calls makes sure that nobody else unpacks there. Raises `InputError` for a damaged archive, for more than
    `at_most` bytes, and for members with absolute or climbing names or that are neither file nor folder; `OSError`
    where the disk is full or may not be written.
    """
    staging = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(staging, ignore_errors=True)  # of a process that was killed
    try:
        with archive.open("rb") as file:
            size, left = os.fstat(file.fileno()).st_size, at_most
            for member in _members(archive, file):
                path = staging / member.name
                if member.kind == "folder":
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                with member.open() as content, path.open("wb") as copy:
                    while chunk := content.read(_CHUNK):  # counted as it comes: what a header says may be a lie
                        left -= len(chunk)
                        if left < 0:
                            raise InputError(f"{archive}: unpacks to more than {at_most:,} bytes; do not trust it")
                        copy.write(chunk)
                if progress is not None:
                    progress(f"unpacking {archive.name}", file.tell(), size)
        whole = staging / folder.name
        if not whole.is_dir():
            raise InputError(f"{archive}: holds no folder {folder.name}; this is not the archive that it should be")
        os.replace(whole, folder)
    except _DAMAGED as error:
        raise InputError(f"{archive}: damaged ({error}); remove it and fetch it again") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    kind: str  # "file", "folder", or what it is that is refused
    open: Callable[[], IO[bytes]]


def _members(archive: Path, file: IO[bytes]) -> Iterator[_Member]:
    for member in _zip_members(file) if archive.suffix == ".zip" else _tar_members(file):
        name = PureWindowsPath(member.name)  # the strictest reading: it knows drives and both slashes
        if name.anchor or ".." in name.parts or "\0" in member.name:
            raise InputError(f"{archive}: member {member.name!r} would land outside its folder; do not trust it")
        # Links inside the folder too: none of our archives has any, and one can be written through
        if member.kind not in ("file", "folder"):
            raise InputError(f"{archive}: member {member.name!r} is a {member.kind}; do not trust it")
        yield member


def _tar_members(file: IO[bytes]) -> Iterator[_Member]:
    with tarfile.open(fileobj=file, mode="r:gz") as tar:
        for member in tar:
            if member.isreg():
                kind = "file"
            elif member.isdir():
                kind = "folder"
            else:
                kind = "link" if member.issym() or member.islnk() else "device"
            # The bytes and nothing else: no owner, no mode, no time. Never None, as only files are opened
            yield _Member(member.name, kind, cast(Callable[[], IO[bytes]], partial(tar.extractfile, member)))


def _zip_members(file: IO[bytes]) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            mode = stat.S_IFMT(member.external_attr >> 16)  # 0 where it was not packed on Unix
            if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
                kind = "link" if mode == stat.S_IFLNK else "device"
            else:
                kind = "folder" if member.is_dir() else "file"
            yield _Member(member.filename, kind, partial(archive.open, member))
