"""Downloads that resume, change to a mirror, and get their name only when their SHA-256 is right."""

import errno
import os
import re
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from neuroprior.sources.catalogue import SOURCES, RemoteFile, Source
from neuroprior.sources.unpack import Progress, unpack
from neuroprior.types import InputError

if TYPE_CHECKING:
    from requests import Response

__all__ = ["SourceState", "fetch", "listing"]

_CHUNK = 1 << 16
_CONNECT, _READ = 10.0, 60.0  # seconds to wait for a connection, and for the next byte
_PATIENCE = 20.0  # seconds after which an address slower than `_SLOW` is left while there is another
_SLOW = 200_000  # bytes a second


class _FailedError(Exception):
    """This address did not bring the file; the message says why."""


class _UnreachableError(_FailedError):
    """Nobody answers at this address."""


class _TooSlowError(Exception):
    """This address would take long, and there is another."""


def fetch(
    source: Source,
    folder: str | os.PathLike[str],
    *,
    base_urls: Sequence[str] = (),
    progress: Progress | None = None,
    keep_archive: bool = False,
) -> list[Path]:
    """Bring the files of `source` into the data folder, unpacked where they are archives; return where they are.

    What is there is not asked for again; a file or archive that a user put there is taken when its SHA-256 is right.
    `base_urls`: BASE/NAME is tried first; then those in the variable NEUROPRIOR_MIRROR (separated by spaces), then the
    official address and its mirrors. An interrupted download stays as NAME.part and is continued by the next call.
    Raises `InputError`, one line: what each address answered, what the disk lacks, or how to bring the files by hand.
    """
    root = Path(folder)
    bases = (*base_urls, *os.environ.get("NEUROPRIOR_MIRROR", "").split())
    for file in source.files:
        urls = (*(f"{base.rstrip('/')}/{file.name}" for base in bases), *file.urls)
        try:
            _bring(source, file, root, urls, progress, keep_archive)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _disk_full(file, root) from None
            where, said = error.filename or root, error.strerror or str(error)
            raise InputError(f"{where}: {said}; {source.name} needs a data folder that can be written") from None
    return [root / file.result for file in source.files]


@dataclass(frozen=True, slots=True)
class SourceState:
    """How much of a source is in a data folder, in whatever layout. `paths`: where its files are, or would be."""

    source: Source
    state: Literal["absent", "part", "there"]
    bytes_here: int
    """Downloaded so far, of those files that are not yet there."""
    paths: tuple[Path, ...]


def listing(folder: str | os.PathLike[str]) -> list[SourceState]:
    """Say for every source what of it is in the data folder, by name and size alone: nothing is read or written."""
    root = Path(folder)
    states = []
    for source in SOURCES:
        others = tuple(root / path for path in source.same_in)
        if others and all(path.is_file() for path in others):
            states.append(SourceState(source, "there", 0, others))
            continue
        missing = [file for file in source.files if not _seems_there(file, root)]
        here = sum(_size(_part(root / file.path)) or _size(root / file.path) for file in missing)
        state: Literal["absent", "part", "there"] = "part" if here else "absent" if missing else "there"
        states.append(SourceState(source, state, here, tuple(root / file.result for file in source.files)))
    return states


def _bring(
    source: Source, file: RemoteFile, root: Path, urls: Sequence[str], progress: Progress | None, keep_archive: bool
) -> None:
    from filelock import FileLock

    if _is_there(file, root):  # asked before anything is written: the folder may be read-only
        return
    target = root / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = target.with_name(f".{target.name}.lock")
    with FileLock(lock):
        if not _is_there(file, root):  # else another process brought it meanwhile
            if shutil.disk_usage(root).free < _still_needed(file, root):
                raise _disk_full(file, root)
            downloaded = not _is_right(file, target)
            if downloaded:
                _download(source, file, root, urls, progress)
            if file.unpacks_to is not None:
                unpack(target, root / file.unpacks_to, at_most=file.most_unpacked, progress=progress)
                if downloaded and not keep_archive:  # what a user brought stays
                    target.unlink()
    with suppress(OSError):  # whoever waits with it in hand will find the file there and do nothing
        lock.unlink()


def _seems_there(file: RemoteFile, root: Path) -> bool:
    path = root / file.result
    if file.unpacks_to is None:
        return _size(path) == file.size
    return path.is_dir() and any(path.iterdir())  # it gets its name only when it is unpacked to the end


def _is_there(file: RemoteFile, root: Path) -> bool:
    return _seems_there(file, root) if file.unpacks_to is not None else _is_right(file, root / file.path)


def _is_right(file: RemoteFile, path: Path) -> bool:
    """Whether the download is there. Raises `InputError` when something else has its name, which is not overwritten."""
    import pooch

    if not path.exists():
        return False
    if _size(path) != file.size:
        raise InputError(f"{path}: {_size(path):,} bytes where {file.size:,} should be; remove it and run this again")
    if (got := pooch.file_hash(path)) != file.sha256:
        raise InputError(f"{path}: SHA-256 is {got}, should be {file.sha256}; remove it and run this again")
    return True


def _part(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _still_needed(file: RemoteFile, root: Path) -> int:
    """Bytes that are still to be written, at the least: an archive unpacks to no less than its own size."""
    target = root / file.path
    download = 0 if target.exists() else max(file.size - _size(_part(target)), 0)
    return download + (0 if file.unpacks_to is None else file.size)


def _disk_full(file: RemoteFile, root: Path) -> InputError:
    needed, free = _still_needed(file, root), shutil.disk_usage(root).free
    return InputError(
        f"{root}: disk full: {file.name} needs {needed:,} bytes more, {free:,} are free; "
        "make room and run the same command again, or choose another data folder"
    )


def _download(source: Source, file: RemoteFile, root: Path, urls: Sequence[str], progress: Progress | None) -> None:
    """Try the addresses in turn; each goes on where the one before stopped. Raises `InputError` when none is left."""
    import pooch

    target = root / file.path
    part = _part(target)
    waiting, slow = list(urls), set[str]()
    failures: list[tuple[str, _FailedError]] = []
    while waiting:
        url = waiting.pop(0)
        resumed = part.exists()
        try:
            if _size(part) < file.size:
                _stream(url, part, file, progress, hurry=bool(waiting) and url not in slow)
            if (got := pooch.file_hash(part)) == file.sha256:
                os.replace(part, target)
                return
            part.unlink()
            if resumed:  # the beginning may have been another's: this address has a whole try left
                waiting.insert(0, url)
            raise _FailedError(f"wrong checksum, expected SHA-256 {file.sha256}, got {got}")
        except _TooSlowError:
            slow.add(url)
            waiting.append(url)
        except _FailedError as error:
            failures.append((url, error))
    raise InputError(_all_failed(source, file, root, failures))


def _all_failed(source: Source, file: RemoteFile, root: Path, failures: list[tuple[str, _FailedError]]) -> str:
    if all(isinstance(error, _UnreachableError) for _, error in failures):
        hosts = ", ".join(dict.fromkeys(urlsplit(url).hostname or url for url, _ in failures))
        what = f"no connection to {hosts}; is this machine offline?"
    else:
        what = "; ".join(re.sub(r"//[^/@]*@", "//", f"{url}: {error}") for url, error in failures)  # no passwords
    kept = _size(_part(root / file.path))
    again = f"run the same command again to go on from the {kept:,} bytes that are here" if kept else "try again later"
    by_hand = "; ".join(
        f"{file.urls[0]} to {root / file.path} (SHA-256 {file.sha256})"
        for file in source.files
        if not _seems_there(file, root)
    )
    return (
        f"{source.name}: {file.name} was not downloaded ({what}); {again}, "
        f"or carry it over from another machine and run the same command then: {by_hand}"
    )


def _stream(url: str, part: Path, file: RemoteFile, progress: Progress | None, *, hurry: bool) -> None:
    """Write into `part`, going on where it ends, until it is as long as the file. Raises `_FailedError`."""
    import requests
    import urllib3

    broken = ""
    try:
        with _answer(url, _size(part), file.size) as response:
            if response.status_code == 206 and _continues(response, _size(part), file.size):
                start = _size(part)
            elif response.status_code == 200:
                start = 0  # also where the server ignores ranges
            else:
                raise _FailedError(f"HTTP {response.status_code} {response.reason}")
            # As sent: where a server calls the .gz an encoding, requests would unpack it
            chunks = response.raw.stream(_CHUNK, decode_content=False)
            first = next(chunks, b"")
            _check_is_file(response, first, file.size - start)
            done, began = start, time.monotonic()
            with part.open("ab" if start else "wb") as copy:
                for chunk in chain([first], chunks):
                    copy.write(chunk)
                    done += len(chunk)
                    if progress is not None:
                        progress(file.name, done, file.size)
                    seconds = time.monotonic() - began
                    if hurry and seconds > _PATIENCE and done - start < _SLOW * seconds:
                        raise _TooSlowError
                    if done > file.size:  # the checksum will tell
                        return
    except requests.RequestException as error:
        raise _refusal(error) from None
    except urllib3.exceptions.HTTPError as error:
        broken = f" ({_first_line(error)})"
    if _size(part) < file.size:
        raise _FailedError(f"the connection broke after {_size(part):,} of {file.size:,} bytes{broken}")


def _answer(url: str, start: int, size: int) -> "Response":
    """Ask for the bytes from `start` on; for all of them where the server cannot give just these."""
    import requests

    headers = {"User-Agent": f"neuroprior/{version('neuroprior')}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    response = requests.get(url, headers=headers, stream=True, timeout=(_CONNECT, _READ))
    if start and response.status_code in (206, 416) and not _continues(response, start, size):
        response.close()
        return _answer(url, 0, size)
    return response


def _continues(response: "Response", start: int, size: int) -> bool:
    said = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    return said is not None and int(said[1]) == start and said[2] in (str(size), "*")


def _check_is_file(response: "Response", first: bytes, expected: int) -> None:
    """Raise `_FailedError` for what cannot be the file, while what is here from an earlier try is still untouched."""
    is_page = first[:200].lstrip().lower().startswith((b"<!doctype html", b"<html"))
    if is_page or response.headers.get("Content-Type", "").lower().startswith("text/html"):
        raise _FailedError("a web page came in place of the file (a login or portal page, or the file has moved)")
    length = response.headers.get("Content-Length", "")
    if length.isdigit() and int(length) != expected:
        raise _FailedError(f"it offers {int(length):,} bytes where {expected:,} should come: another version")


def _refusal(error: Exception) -> _FailedError:
    import requests

    match error:
        case requests.exceptions.SSLError():
            return _FailedError(f"its certificate was refused ({_first_line(error)})")
        case requests.exceptions.ProxyError():
            return _UnreachableError("the proxy in HTTP_PROXY or HTTPS_PROXY does not answer")
        case requests.exceptions.Timeout():
            return _UnreachableError("no answer in time")
        case requests.exceptions.ConnectionError():
            return _UnreachableError("no connection")
    return _FailedError(_first_line(error))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
