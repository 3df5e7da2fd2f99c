"""HDF5 files: opened, believed only as far as their bytes bear them out, and written whole or not at all."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from neuroprior.files import appearing_whole
from neuroprior.recordings.formats.hdf5_heaps import endless_heap
from neuroprior.recordings.growth import grown_too_far
from neuroprior.types import InputError

__all__ = ["Hdf5", "hdf5_root", "opened_hdf5", "write_hdf5"]

_BLOCK = 1 << 24  # bytes read at a time
_LONGEST = 4096  # characters of a text: ids and names are far shorter
_TEXTS = 256  # texts read at a time
_LINKS = 16  # that may lead from one to the next


@dataclass(frozen=True, slots=True)
class Hdf5:
    """An HDF5 file that is open for reading. `mend` ends the messages about what is damaged or missing.

    Every method raises `InputError` naming file and dataset: for what is missing, damaged, kept in another file,
    an object that is no text, and for datasets that say they are far larger than what is stored of them, each or all
    that were asked for together. `sizes`: of those, bytes claimed and stored.
    """

    file: Path
    handle: Any
    mend: str
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)

    def fault(self, name: str, said: str) -> InputError:
        """Return the error that names file and dataset, and says this of it."""
        return InputError(f"{self.file}: dataset {name!r} {said}")

    def holds(self, name: str) -> bool:
        """Whether something of this name is there, sound or not."""
        with self._reading(name):
            return self._found(name) is not None

    def names(self) -> list[str]:
        """Return what stands at the root."""
        with self._reading("/"):  # a damaged name may be no text, or of several lines
            return [" ".join(str(name).split()) for name in self.handle]

    def refuse_growth(self, names: Iterable[str]) -> None:
        """Look at the size of these datasets, where they are there, before the values of any are read."""
        for name in names:
            if self.holds(name):
                self.dataset(name)

    def dataset(self, name: str) -> Any:
        """Return the dataset as h5py has it: with values, in this file, stored as it says."""
        import h5py  # type: ignore[import-untyped] # here, so that other formats do without

        with self._reading(name):
            found = self._found(name)
            if found is None:
                raise self.missing(name)
            if not isinstance(found, h5py.Dataset):
                raise self.fault(name, f"is a group, not a dataset; {self.mend}")
            if found.shape is None:
                raise self.fault(name, f"is empty; {self.mend}")
            if found.dtype.hasobject and h5py.check_string_dtype(found.dtype) is None:
                raise self.fault(name, "holds objects, not numbers or text; write plain numbers")
            if found.external or found.is_virtual:
                raise self.fault(name, "keeps its values in other files; copy them into this one, as by h5repack")
            claimed, stored = found.size * found.dtype.itemsize, found.id.get_storage_size()
            if claimed and not stored:
                raise self.fault(name, f"was never written; {self.mend}")
            too_far = grown_too_far(claimed, stored)
            if too_far is not None:
                raise self.fault(name, f"{too_far}; {self.mend}")
            self.sizes[name] = claimed, stored
            in_all, in_file = (sum(sizes) for sizes in zip(*self.sizes.values(), strict=True))
            # datasets may share their bytes
            too_far = grown_too_far(in_all, min(in_file, self.file.stat().st_size))
            if too_far is not None:
                raise InputError(f"{self.file}: {too_far}; {self.mend}")
        return found

    def array(self, name: str) -> np.ndarray:
        """Read it whole; texts as NumPy's unicode."""
        import h5py

        dataset = self.dataset(name)
        if h5py.check_string_dtype(dataset.dtype) is not None:
            return self._texts(name, dataset)
        with self._reading(name):
            return np.asarray(dataset[()])

    def blocks(self, name: str) -> Iterator[tuple[int, np.ndarray]]:
        """Read it some rows at a time, each time with the first row's number."""
        dataset = self.dataset(name)
        if not dataset.size:
            return
        rows = max(1, _BLOCK // (dataset.size // len(dataset) * dataset.dtype.itemsize))
        if dataset.chunks is not None:  # whole chunks, so that none is unpacked twice
            rows = max(1, rows // dataset.chunks[0]) * dataset.chunks[0]
        for start in range(0, len(dataset), rows):
            with self._reading(name):
                block = dataset[start : start + rows]
            yield start, block

    def mapped(self, name: str, dtype: type[np.generic]) -> np.ndarray | None:
        """Return it as it lies in the file, memory-mapped; None where it is packed, in pieces, or of another type."""
        import h5py

        dataset = self.dataset(name)
        if dataset.dtype != dtype or not dataset.size or not dataset.ndim:
            return None
        with self._reading(name):
            if dataset.id.get_create_plist().get_layout() != h5py.h5d.CONTIGUOUS:
                return None
            offset = dataset.id.get_offset()
            return np.memmap(self.file, dtype=dtype, mode="r", offset=offset, shape=dataset.shape)

    def single(self, name: str) -> np.ndarray:
        """Return real numbers as float32, memory-mapped where they lie so in the file; anything else as it is."""
        dataset = self.dataset(name)
        if dataset.dtype.kind not in "fiu" or not dataset.ndim:
            return self.array(name)
        mapped = self.mapped(name, np.float32)
        if mapped is not None:
            return mapped
        single = np.empty(dataset.shape, dtype=np.float32)
        with np.errstate(over="ignore"):  # what is too large for float32 becomes inf, which no reader lets pass
            for start, block in self.blocks(name):
                single[start : start + len(block)] = block
        return single

    def missing(self, name: str) -> InputError:
        """Return the error for a dataset that is not there, which says what is."""
        held = ", ".join(sorted(self.names())) or "nothing"
        return self.fault(name, f"is missing (the file holds {held}); {self.mend}")

    def _found(self, name: str) -> Any:
        import h5py

        found, parts, links = self.handle, name.split("/"), 0
        while parts:
            part, *parts = parts
            if not part:
                continue
            link = found.get(part, getlink=True) if isinstance(found, h5py.Group) else None
            if link is None:
                return None
            if isinstance(link, h5py.ExternalLink):
                raise self.fault(name, f"is a link into another file, {link.filename!r}; copy the data into this one")
            if isinstance(link, h5py.SoftLink):
                links += 1
                if links > _LINKS:
                    raise self.fault(name, f"is a link that leads to itself; {self.mend}")
                found = self.handle if link.path.startswith("/") else found
                parts = [*link.path.split("/"), *parts]
            else:
                found = found[part]
        return found

    def _texts(self, name: str, dataset: Any) -> np.ndarray:
        texts: list[str] = []
        with self._reading(name):
            if dataset.ndim > 1:
                raise self.fault(name, f"is text {dataset.shape}; give it one axis")
            decoded = dataset.asstr("utf-8")
            for start in range(0, dataset.size, _TEXTS):
                read = decoded[start : start + _TEXTS].tolist() if dataset.ndim else [str(decoded[()])]
                longest = max(map(len, read))
                if longest > _LONGEST:
                    raise self.fault(name, f"holds a text of {longest} characters; give at most {_LONGEST}")
                texts += read
        if not dataset.ndim:
            return np.array(texts[0])
        return np.array(texts, dtype=np.str_)

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except Exception as error:  # the HDF5 library's own words, under whatever type h5py gives them
            raise self.fault(name, f"cannot be read ({_first_line(error)}); {self.mend}") from None


@contextmanager
def opened_hdf5(file: Path, mend: str) -> Iterator[Hdf5]:
    """Open an HDF5 file for reading.

    Raises `InputError` where there is none, another process writes it, it stops early, or it is something else.
    """
    import h5py

    if not file.is_file():
        raise InputError(f"{file}: no such file; {mend}")
    try:
        handle = h5py.File(file, "r")
    except Exception as error:
        said = _first_line(error)
        if "unable to lock file" in said or "already open for" in said:
            raise InputError(f"{file}: held by another process; close it there, or copy the file") from None
        if isinstance(error, PermissionError):
            raise InputError(f"{file}: cannot be opened ({error.strerror}); make it readable") from None
        if "truncated file" in said:
            raise InputError(f"{file}: stops before its end, as after a copy that was cut off; copy it again") from None
        if "signature not found" in said:
            raise InputError(f"{file}: not an HDF5 file, or damaged; {mend}") from None
        raise InputError(f"{file}: damaged ({said}); {mend}") from None
    try:
        place = endless_heap(file)
        if place is not None:
            raise InputError(f"{file}: damaged (the texts kept at byte {place} have no end); {mend}")
        yield Hdf5(file, handle, mend)
    finally:
        handle.close()


def hdf5_root(file: Path) -> frozenset[str] | None:
    """Return the names at the root of an HDF5 file; None for anything that cannot be opened as one. Never raises."""
    import h5py

    try:
        with file.open("rb") as stream:  # most files are told by this alone; others may begin with a block of their own
            if stream.read(4) == b"PK\x03\x04":
                return None
        with h5py.File(file, "r") as handle:
            return frozenset(map(str, handle))  # a damaged name comes as bytes
    except Exception:  # whatever a damaged file makes h5py raise
        return None


def write_hdf5(file: Path, datasets: Mapping[str, np.ndarray]) -> None:
    """Write an HDF5 file that appears whole or not at all: the same arrays, the same bytes. Makes its folder.

    Datasets are contiguous; a name with slashes stands in groups. Text is UTF-8 of a fixed length: texts of variable
    length lie on a heap, and the HDF5 library can read for ever in one that is damaged.
    Raises `InputError` where nothing can be written there, and for text that could not be read again.
    """
    import h5py

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with appearing_whole(file) as temporary, h5py.File(temporary, "w") as handle:
            for name, values in datasets.items():
                if values.dtype.kind == "U":
                    values = _encoded(file, name, values)
                    kind = h5py.string_dtype("utf-8", values.dtype.itemsize)
                    handle.create_dataset(name, data=values.astype(kind), dtype=kind)
                else:
                    _fill(handle.create_dataset(name, values.shape, values.dtype), values)
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({error.strerror or error}); name another place") from None


def _encoded(file: Path, name: str, texts: np.ndarray) -> np.ndarray:
    longest = int(np.char.str_len(texts).max(initial=0))
    if longest > _LONGEST:
        said = f"holds a text of {longest} characters; give at most {_LONGEST}"
        raise InputError(f"{file}: dataset {name!r} {said}")
    try:
        return np.char.encode(texts, "utf-8")
    except UnicodeEncodeError:
        raise InputError(f"{file}: dataset {name!r} holds a text that is not Unicode; rename it") from None


def _fill(dataset: Any, values: np.ndarray) -> None:
    if not values.size or not values.ndim:
        dataset[...] = values
        return
    rows = max(1, _BLOCK // (values.nbytes // len(values)))
    for start in range(0, len(values), rows):  # an array that lies in a file is never held whole
        dataset[start : start + rows] = values[start : start + rows]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
