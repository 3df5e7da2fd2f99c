"""Trees of .npy files, in a folder or in a zip that is never unpacked: read one by one, written whole or not at all."""

import io
import os
import re
import shutil
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuroprior.files import appearing_whole
from neuroprior.recordings.growth import grown_too_far
from neuroprior.recordings.npy import Header, read_array, read_header
from neuroprior.types import InputError

__all__ = ["NpyTree", "opened_tree", "write_tree"]

_MEND = "take another copy of the recording"


@dataclass(frozen=True, slots=True)
class NpyTree:
    """A tree of .npy files. `listed`: the names of the files in each of its folders. `content`: the bytes of one."""

    place: Path
    listed: Mapping[str, frozenset[str]]
    content: Callable[[str], bytes]

    def holds(self, name: str) -> bool:
        """Whether there is a file of this name, such as 'meta/trials/tiers.npy'."""
        folder, _, last = name.rpartition("/")
        return last in self.listed.get(folder, ())

    def fault(self, name: str, said: str) -> InputError:
        """Return the error that names tree and file, and says this of it."""
        return InputError(f"{self.place}: dataset {name!r} {said}")

    def array(self, name: str) -> np.ndarray:
        """Read one file; `InputError` where it is damaged, or holds objects."""
        content = self._content(name)
        return self._parsed(name, content, self._header(name, content))

    def stacked(self, folder: str, n: int) -> Iterator[np.ndarray]:
        """Read 0.npy to n-1.npy of a folder. Raises `InputError` as `array` does, and where shapes differ.

        A header that is, byte for byte, the one before is not parsed again: a recording has tens of thousands.
        """
        known, header, size, shape = b"", None, 0, None
        for trial in range(n):
            name = f"{folder}/{trial}.npy"
            content = self._content(name)
            if header is None or len(content) != size or not content.startswith(known):
                header = self._header(name, content)
                known, size = content[: header.start], len(content)
            array = self._parsed(name, content, header)
            shape = array.shape if shape is None else shape
            if array.shape != shape:
                said = f"is {array.shape}, while {f'{folder}/0.npy'!r} is {shape}; give every trial the same shape"
                raise self.fault(name, said)
            yield array

    def _content(self, name: str) -> bytes:
        try:
            return self.content(name)
        except Exception as error:  # a damaged member raises whatever its decoder was at
            raise self._damaged(name, error) from None

    def _header(self, name: str, content: bytes) -> Header:
        try:
            return read_header(io.BytesIO(content), len(content))
        except Exception as error:  # what a damaged header raises depends on its bytes
            raise self._damaged(name, error) from None

    def _parsed(self, name: str, content: bytes, header: Header) -> np.ndarray:
        stream = io.BytesIO(content)
        stream.seek(header.start)
        try:
            return read_array(stream, header)
        except Exception as error:
            raise self._damaged(name, error) from None

    def _damaged(self, name: str, error: Exception) -> InputError:
        strerror = error.strerror if isinstance(error, OSError) else None
        said = strerror or (str(error).splitlines() or [type(error).__name__])[0]
        return self.fault(name, f"cannot be read ({said}); {_MEND}")


@contextmanager
def opened_tree(path: Path, folders: Iterable[str]) -> Iterator[NpyTree]:
    """Open a tree of which these folders matter, such as 'meta/trials'; in a zip it may stand in a folder of its own.

    Raises `InputError` for what is neither folder nor zip, and for a zip whose members lead out of it.
    """
    if path.is_dir():
        listed = {folder: _files_in(path, folder) for folder in folders}
        yield NpyTree(path, listed, lambda name: _bytes_of(os.path.join(path, name)))
        return
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder; {_MEND}")
    try:
        archive = zipfile.ZipFile(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror}); make it readable") from None
    except Exception:  # what is raised depends on the bytes that are damaged
        raise InputError(f"{path}: not a zip file, or damaged; {_MEND}") from None
    with archive:
        infos = archive.infolist()
        _refuse_what_leads_out(path, infos)
        too_far = grown_too_far(sum(info.file_size for info in infos), path.stat().st_size)
        if too_far is not None:
            raise InputError(f"{path}: {too_far}; {_MEND}")
        folders = tuple(folders)
        top = _top(path, [info.filename for info in infos], folders)
        names: dict[str, set[str]] = {top + folder: set() for folder in folders}
        for info in infos:
            folder, _, last = info.filename.rpartition("/")
            if last and folder in names:
                names[folder].add(last)
        listed = {folder: frozenset(names[top + folder]) for folder in folders}
        yield NpyTree(path, listed, lambda name: archive.read(top + name))


def _bytes_of(file: str) -> bytes:
    with open(file, "rb", buffering=0) as stream:
        return stream.read()


def _files_in(place: Path, folder: str) -> frozenset[str]:
    """The files in a folder, and links that lead nowhere: reading those says so."""
    try:
        with os.scandir(place / folder) as entries:
            return frozenset(e.name for e in entries if e.is_file() or (e.is_symlink() and not os.path.exists(e)))
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    except OSError as error:
        raise InputError(f"{place / folder}: cannot be listed ({error.strerror}); make it readable") from None


def _refuse_what_leads_out(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    for info in infos:
        name = info.filename.replace("\\", "/")
        if name.startswith("/") or ".." in name.split("/") or re.match(r"[A-Za-z]:", name):
            raise InputError(f"{path}: member {info.filename!r} leads out of the zip; pack it from the folder's inside")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise InputError(f"{path}: member {info.filename!r} is a link; pack the file that it leads to")


def _top(path: Path, names: list[str], folders: tuple[str, ...]) -> str:
    """The folder inside a zip, '' or 'name/', in which the tree stands."""
    inside = re.compile(rf"((?:[^/]+/)*?)(?:{'|'.join(map(re.escape, folders))})/[^/]+")
    tops = {found[1] for found in map(inside.fullmatch, names) if found and not found[1].startswith("__MACOSX/")}
    if not tops:
        raise InputError(f"{path}: holds none of the folders {', '.join(folders)}; {_MEND}")
    if len(tops) > 1:
        raise InputError(
            f"{path}: holds {len(tops)} recordings ({', '.join(sorted(tops))}); give each a zip of its own"
        )
    return tops.pop()


def write_tree(path: Path, members: Iterable[tuple[str, np.ndarray]]) -> None:
    """Write a tree that appears whole or not at all: a zip (the tree in a folder named as the zip is), or a folder.

    The same arrays give the same bytes. Raises `InputError` where nothing can be written there, and for a folder that
    is there already and not empty.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".zip":
            with appearing_whole(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
                for name, array in members:
                    member = zipfile.ZipInfo(f"{path.stem}/{name}")  # of 1980: the time of writing is not in it
                    member.compress_type, member.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
                    archive.writestr(member, _npy(array), compresslevel=1)
            return
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise InputError(f"{path}: there is something already; name another place, or move it away")
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        made: set[Path] = set()
        try:
            for name, array in members:
                file = temporary / name
                if file.parent not in made:
                    file.parent.mkdir(parents=True, exist_ok=True)
                    made.add(file.parent)
                file.write_bytes(_npy(array))
            os.replace(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); name another place") from None


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=False)
    return stream.getvalue()
