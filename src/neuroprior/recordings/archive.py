""".npz files: fields read one by one with a message for whatever is wrong, and written whole or not at all."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from neuroprior.files import appearing_whole
from neuroprior.types import InputError

__all__ = ["read_archive", "write_archive"]


def read_archive(
    file: Path, needed: Collection[str], optional: Collection[str] = (), *, mend: str
) -> dict[str, np.ndarray]:
    """Read these fields of an .npz file; never unpickles. `mend` ends every message: how such a file is made.

    Raises `InputError` for a file that cannot be read, a needed field that is missing, and a damaged field.
    """
    if not file.is_file():
        raise InputError(f"{file}: no such file; {mend}")
    try:
        handle = file.open("rb")  # opened here: numpy would leave a damaged file open
    except OSError as error:
        raise InputError(f"{file}: cannot be opened ({error.strerror}); make it readable") from None
    with handle:
        try:
            archive = np.load(handle, allow_pickle=False)
        except Exception:  # what numpy raises depends on the first bytes
            raise InputError(f"{file}: not an .npz file, or damaged; {mend}") from None
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise InputError(f"{file}: a single array, not an .npz file; {mend}")
        with archive:
            for name in needed:
                if name not in archive.files:
                    held = ", ".join(archive.files) or "nothing"
                    raise InputError(f"{file}: field {name!r} is missing (it holds {held}); {mend}")
            return {name: _field(file, archive, name, mend) for name in (*needed, *optional) if name in archive.files}


def _field(file: Path, archive: "np.lib.npyio.NpzFile", name: str, mend: str) -> np.ndarray:
    try:
        value = archive[name]
    except Exception as error:  # a damaged member raises whatever its decoder was at: zip, zlib, header, memory
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{file}: field {name!r} cannot be read ({said}); {mend}") from None
    if not isinstance(value, np.ndarray):
        raise InputError(f"{file}: field {name!r} is not a NumPy array; {mend}")
    return value


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
