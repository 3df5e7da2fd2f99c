"""How alike a population finds each pair of images: as a matrix, or as coordinates whose products are the matrix."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar, get_args

import numpy as np

from neuroprior.types.arrays import Float32, InputError, Int64, Shaped, checked_ids, freeze, rows_of
from neuroprior.types.disk import RowBlocks, write_tensors
from neuroprior.types.recordings import Stimuli

TargetSource = Literal["recorded", "twin", "network", "user"]
Details: TypeAlias = Mapping[str, str | float | int]

_ROWS = 1024  # of a matrix that are compared at a time, so that a memory-mapped one is never held whole
_CHECKED_WHOLE = 8192  # images; of a larger matrix in a file of ours, which was checked when written, some rows are
_SAMPLED = 16  # that many


@dataclass(frozen=True, slots=True, eq=False)
class SimilarityTarget:
    """How alike a population finds each pair of images: `matrix[i, j]` in [-1, 1], symmetric, diagonal 1 (Eq. 2).

    `stimuli_digest` is `Stimuli.digest` of exactly these images in this order. `n_scans` counts the scans averaged.
    `details` says how it was made (weights used, pixel mean and standard deviation, ...): shown beside every result.
    """

    _format: ClassVar = "neuroprior.SimilarityTarget"

    matrix: Float32[np.ndarray, "image image"]
    image_ids: Shaped[np.ndarray, " image"]
    stimuli_digest: str
    source: TargetSource
    n_scans: int = 1
    details: Details = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check(range(0, len(self.matrix), _ROWS), _ROWS)

    def _check(self, starts: range, rows: int) -> None:
        """Check everything but the values, and those of the blocks of `rows` that begin at `starts`; then freeze."""
        _check_common(self)
        n = len(self.image_ids)
        if self.matrix.shape != (n, n):
            raise InputError(f"target: matrix is {self.matrix.shape} for {n} image ids; it must be ({n}, {n})")
        if self.matrix.dtype != np.float32:
            raise InputError(f"target: matrix is {self.matrix.dtype}; convert it to float32")
        for start in starts:
            self._check_rows(start, self.matrix[start : start + rows])
        freeze(self, "matrix", "image_ids")

    def _check_rows(self, start: int, block: np.ndarray) -> None:
        self._check_values(start, block)
        if not np.allclose(block, self.matrix[:, start : start + len(block)].T, rtol=0, atol=1e-5):
            raise InputError("target: matrix is not symmetric; average it with its transpose if that is meant")

    def _check_values(self, start: int, block: np.ndarray) -> None:
        # min and max see NaN as well, without a mask as large as the block
        low, high = float(block.min()), float(block.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            i, j = np.argwhere(~np.isfinite(block))[0]
            raise InputError(
                f"target: similarity of {str(self.image_ids[start + i])!r} and {str(self.image_ids[j])!r} is "
                f"{block[i, j]}; drop the image or mend its responses"
            )
        if low < -1 or high > 1:
            raise InputError(f"target: similarities span [{low:.3g}, {high:.3g}]; they must lie in [-1, 1]")

    def __len__(self) -> int:
        return len(self.image_ids)

    def block(self, rows: Int64[np.ndarray, " chosen"]) -> Float32[np.ndarray, "chosen chosen"]:
        """S of the images in these rows; of a memory-mapped matrix nothing else is read."""
        return np.asarray(self.matrix[rows[:, None], rows[None, :]])

    def select(self, stimuli: Stimuli) -> "SimilarityTarget":
        """Return the part of the matrix for these images, in their order; a part is never centred again.

        Raises `InputError` when one is not here. `stimuli` are not compared with those the target was made from.
        """
        rows = rows_of(self.image_ids, stimuli.ids, "target")
        return replace(self, matrix=self.block(rows), image_ids=stimuli.ids, stimuli_digest=stimuli.digest)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file: the matrix, the ids and a JSON header. The file appears whole or not at all."""
        _save(self, path, {"matrix": self.matrix})

    @classmethod
    def write(
        cls,
        path: str | os.PathLike[str],
        blocks: Iterable[np.ndarray],
        *,
        image_ids: Shaped[np.ndarray, " image"],
        stimuli_digest: str,
        source: TargetSource,
        n_scans: int = 1,
        details: Details | None = None,
    ) -> "SimilarityTarget":
        """Write what `save` writes and open it as `load` does, for a matrix too large to hold: its rows come in blocks.

        A block (some rows, all columns) may be overwritten by the next. That S is symmetric is the caller's to see to;
        all else is checked, and after an error there is no file.
        """
        n, kind = len(image_ids), np.dtype(np.float32)
        fields = {
            "image_ids": image_ids,
            "stimuli_digest": stimuli_digest,
            "source": source,
            "n_scans": n_scans,
            "details": details or {},
        }
        promised = _unchecked(cls, {"matrix": np.broadcast_to(kind.type(0), (n, n)), **fields}, range(0))

        def checked() -> Iterator[np.ndarray]:
            start = 0
            for block in blocks:
                promised._check_values(start, block)
                start += len(block)
                yield block

        _save(promised, path, {"matrix": RowBlocks((n, n), kind, checked())})
        array, read, _ = _load(cls, path, "matrix")
        return _unchecked(cls, {"matrix": array, **read}, range(0))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "SimilarityTarget":
        """Read what `save` wrote; the matrix stays on disk, memory-mapped. Raises `InputError` for any other file.

        A matrix of more than 8,192 images is checked on some rows only: it was checked when it was written, and is
        never read whole.
        """
        array, fields, _ = _load(cls, path, "matrix")
        if len(array) <= _CHECKED_WHOLE:
            return cls(matrix=array, **fields)
        return _unchecked(cls, {"matrix": array, **fields}, range(0, len(array), len(array) // _SAMPLED))


@dataclass(frozen=True, slots=True, eq=False)
class FactoredTarget:
    """S = E E^T, kept as the coordinates E: memory grows with the number of images N, and not with its square.

    `coordinates`: E, (N, r), rows no longer than 1. `tolerance`: no entry of E E^T is further than this from the S it
    was cut from (0: nothing was cut). The diagonal is 1, as Eq. 2's is, whatever was cut. The rest as in
    `SimilarityTarget`, which it stands in for wherever only `block`, `len`, ids and details are asked for.
    """

    _format: ClassVar = "neuroprior.FactoredTarget"

    coordinates: Float32[np.ndarray, "image rank"]
    image_ids: Shaped[np.ndarray, " image"]
    stimuli_digest: str
    source: TargetSource
    tolerance: float
    n_scans: int = 1
    details: Details = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check(range(0, len(self.coordinates), _ROWS), _ROWS)

    def _check(self, starts: range, rows: int) -> None:
        _check_common(self)
        if self.coordinates.ndim != 2 or len(self.coordinates) != len(self.image_ids):
            raise InputError(
                f"target: coordinates are {self.coordinates.shape} for {len(self.image_ids)} image ids; they must be "
                "(image, rank)"
            )
        if self.coordinates.dtype != np.float32:
            raise InputError(f"target: coordinates are {self.coordinates.dtype}; convert them to float32")
        if not 0 <= self.tolerance < np.inf:
            raise InputError(f"target: tolerance is {self.tolerance}; it must be 0 or more, and finite")
        for start in starts:
            length = np.linalg.norm(self.coordinates[start : start + rows], axis=1)
            wrong = np.flatnonzero(~(length <= 1 + 1e-4))
            if len(wrong):
                raise InputError(
                    f"target: the coordinates of {str(self.image_ids[start + wrong[0]])!r} have length "
                    f"{length[wrong[0]]:.4g}; it must be 1 or less, and finite"
                )
        freeze(self, "coordinates", "image_ids")

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def rank(self) -> int:
        """How many coordinates an image has."""
        return int(self.coordinates.shape[1])

    def block(self, rows: Int64[np.ndarray, " chosen"]) -> Float32[np.ndarray, "chosen chosen"]:
        """S of the images in these rows: E E^T, clipped to [-1, 1], with a diagonal of 1."""
        e = np.asarray(self.coordinates[rows])
        similarity: np.ndarray = np.clip(e @ e.T, -1, 1)
        np.fill_diagonal(similarity, 1)
        return similarity

    def select(self, stimuli: Stimuli) -> "FactoredTarget":
        """Return the part for these images, in their order; as `SimilarityTarget.select`."""
        rows = rows_of(self.image_ids, stimuli.ids, "target")
        return replace(self, coordinates=self.coordinates[rows], image_ids=stimuli.ids, stimuli_digest=stimuli.digest)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, as `SimilarityTarget.save`."""
        _save(self, path, {"coordinates": self.coordinates}, tolerance=repr(self.tolerance))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "FactoredTarget":
        """Read what `save` wrote; the coordinates stay on disk, memory-mapped. As `SimilarityTarget.load`."""
        array, fields, header = _load(cls, path, "coordinates")
        fields["tolerance"] = float(header["tolerance"])
        if len(array) <= _CHECKED_WHOLE:
            return cls(coordinates=array, **fields)
        return _unchecked(cls, {"coordinates": array, **fields}, range(0, len(array), len(array) // _SAMPLED))


AnyTarget: TypeAlias = SimilarityTarget | FactoredTarget
_KINDS: tuple[type[SimilarityTarget] | type[FactoredTarget], ...] = (SimilarityTarget, FactoredTarget)
_Target = TypeVar("_Target", SimilarityTarget, FactoredTarget)


def load_target(path: str | os.PathLike[str]) -> AnyTarget:
    """Read a target of either kind. Raises `InputError` for any other file."""
    format_ = _header(path).get("format", "")
    kind = FactoredTarget if format_.startswith(f"{FactoredTarget._format}/") else SimilarityTarget
    return kind.load(path)


def _check_common(target: AnyTarget) -> None:
    checked_ids(target.image_ids, "target")
    if target.source not in get_args(TargetSource):
        raise InputError(f"target: source {target.source!r} is not one of {', '.join(get_args(TargetSource))}")


def _unchecked(cls: type[_Target], fields: dict[str, Any], starts: range) -> _Target:
    """Make a target whose values are checked at `starts` only: the whole of a large file would have to be read."""
    target = object.__new__(cls)
    for name, value in {"n_scans": 1, "details": {}, **fields}.items():
        object.__setattr__(target, name, value)
    target._check(starts, 1)
    return target


def _save(
    target: AnyTarget, path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray | RowBlocks], **more: str
) -> None:
    names = json.dumps(target.image_ids.tolist())
    header = {
        "format": f"{target._format}/1",
        "stimuli_digest": target.stimuli_digest,
        "source": target.source,
        "n_scans": str(target.n_scans),
        "details": json.dumps(dict(target.details), sort_keys=True),
        **more,
    }
    write_tensors(path, {**arrays, "image_ids": np.frombuffer(names.encode(), dtype=np.uint8)}, header)


def _header(path: str | os.PathLike[str]) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        what = "a folder" if Path(path).is_dir() else "no such file"
        raise InputError(f"{path}: {what}; make a target first (`neuroprior target build`)")
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError:
        raise InputError(f"{path}: {_instead(Path(path))}") from None


def _instead(file: Path) -> str:
    """Say what a file is that is no safetensors file, and what makes a target of such."""
    with file.open("rb") as opened:
        start = opened.read(9)
    if not start:
        return "empty; make the target again"
    if start[8:] == b"{" or file.suffix == ".safetensors":
        return "damaged, or a copy that was cut off; copy it, or make the target, again"
    if start.startswith(b"\x93NUMPY"):
        return "an array, not a target; target_from_matrix(np.load(path), stimuli), or `target build --matrix`"
    if start.startswith(b"PK"):
        return "an archive (.npz, .pt, .zip), not a target; `neuroprior target build` makes one"
    return "not a similarity target; `neuroprior target build` makes one, of a twin, recordings, a network or a matrix"


def _load(
    cls: type[SimilarityTarget] | type[FactoredTarget], path: str | os.PathLike[str], name: str
) -> tuple[np.ndarray, dict[str, Any], dict[str, str]]:
    """Return the memory-mapped array, the fields that both kinds have, and the header."""
    from safetensors import SafetensorError, safe_open

    header = _header(path)
    kind, _, version = header.get("format", "").partition("/")
    if kind not in [known._format for known in _KINDS]:
        raise InputError(f"{path}: not a similarity target, but other tensors; `neuroprior target build` makes one")
    if kind != cls._format:
        raise InputError(f"{path}: holds a {kind.partition('.')[2]}; read it with npr.load_target(path)")
    if version != "1":
        raise InputError(f"{path}: format {header['format']} is newer than this version; upgrade neuroprior")
    try:
        with safe_open(path, framework="pt") as file:  # torch maps the file; the numpy reader would copy it
            array: np.ndarray = file.get_tensor(name).numpy()
            fields: dict[str, Any] = {
                "image_ids": np.array(json.loads(file.get_tensor("image_ids").numpy().tobytes()), dtype=np.str_),
                "stimuli_digest": header["stimuli_digest"],
                "source": header["source"],
                "n_scans": int(header["n_scans"]),
                "details": json.loads(header["details"]),
            }
    except KeyError as error:
        raise InputError(f"{path}: a similarity target whose header lacks {error}; make it again") from None
    except (SafetensorError, ValueError):
        raise InputError(f"{path}: a similarity target, damaged; copy or make it again") from None
    return array, fields, header
