"""The values that flow from stage to stage: frozen, checked when made, and free of any other module of the package.

`image_ids` travel with every array, so nothing is ever aligned by position.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float, Float32, Float64, Int64, Shaped, UInt8
else:
    try:
        from jaxtyping import Float, Float32, Float64, Int64, Shaped, UInt8
    except ImportError:  # the regulariser must work with torch, numpy and safetensors alone: shapes go unchecked then

        class _Unchecked:
            def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
                return item[0]

        Float = Float32 = Float64 = Int64 = Shaped = UInt8 = _Unchecked

__all__ = [
    "AttackRecord",
    "Float",
    "Float32",
    "Float64",
    "InputError",
    "Int64",
    "NetworkCard",
    "NeuronWeights",
    "Population",
    "Precision",
    "ResponseSource",
    "Scan",
    "Shaped",
    "SimilarityTarget",
    "Stimuli",
    "TargetSource",
    "Tier",
    "UInt8",
]

Tier = Literal["train", "validation", "oracle"]
ResponseSource = Literal["recorded", "twin", "network"]
Precision = Literal["float32", "bfloat16"]
"""What a network's layers are computed in; similarities are float32 always."""
TargetSource = Literal["recorded", "twin", "network", "user"]

_ROWS = 1024  # of a matrix that are compared at a time, so that a memory-mapped one is never held whole


class InputError(ValueError):
    """What a person gave cannot be used. The message is one line: what is wrong, where, and how to mend it."""


def _checked_ids(ids: np.ndarray, what: str) -> None:
    if ids.ndim != 1 or ids.dtype.kind != "U":
        raise InputError(f"{what}: image ids must be a one-axis array of strings, got {ids.dtype} {ids.shape}")
    if len(np.unique(ids)) != len(ids):
        values, counts = np.unique(ids, return_counts=True)
        raise InputError(f"{what}: image id {str(values[counts > 1][0])!r} stands more than once; ids must be unique")


def _rows(have: np.ndarray, wanted: Sequence[str] | np.ndarray, what: str) -> np.ndarray:
    row = {name: i for i, name in enumerate(have.tolist())}
    missing = [name for name in wanted if name not in row]
    if missing:
        raise InputError(
            f"{what}: {len(missing)} of {len(wanted)} images are not among these {len(have)} (first: "
            f"{str(missing[0])!r}); pass the stimuli that the target was made from"
        )
    return np.array([row[name] for name in wanted], dtype=np.int64)


def _freeze(value: object, *names: str) -> None:
    """Hold the named arrays as read-only views: frozen here, while the caller's own array stays as it was."""
    for name in names:
        array = getattr(value, name)
        if array is not None:
            view = array.view()
            view.flags.writeable = False
            object.__setattr__(value, name, view)


@dataclass(frozen=True, slots=True, eq=False)
class Stimuli:
    """Gray images that were (or could be) shown to an animal.

    `ids`: one unique string an image. `pixels`: uint8, 0 black to 255 white, `(image, height, width)`.
    """

    ids: Shaped[np.ndarray, " image"]
    pixels: UInt8[np.ndarray, "image height width"]

    def __post_init__(self) -> None:
        _checked_ids(self.ids, "stimuli")
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 3:
            raise InputError(
                f"stimuli: pixels must be uint8 (image, height, width), got {self.pixels.dtype} {self.pixels.shape}; "
                "convert colour to gray and scale to 0..255 first"
            )
        if len(self.ids) != len(self.pixels):
            raise InputError(f"stimuli: {len(self.ids)} ids for {len(self.pixels)} images; give one id an image")
        _freeze(self, "ids", "pixels")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def digest(self) -> str:
        """SHA-256 of ids, shape and pixels, in this order: equal exactly when the images and their order are."""
        sha = hashlib.sha256(json.dumps([self.ids.tolist(), list(self.pixels.shape)]).encode())
        sha.update(np.ascontiguousarray(self.pixels).data)
        return sha.hexdigest()

    def select(self, ids: Sequence[str] | np.ndarray) -> "Stimuli":
        """Return the images named by `ids`, in that order. Raises `InputError` when one is not here."""
        rows = _rows(self.ids, ids, "stimuli")
        return Stimuli(self.ids[rows], self.pixels[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """One recording: many trials, each an image and the responses of all neurons.

    `trial_image`: row of `stimuli`. `responses`: any non-negative activity measure, one unit for the whole scan.
    `behavior`: one column a name (running speed, pupil size, ...). `pupil_center`: x, y in the tracker's pixels.
    `neuron_xyz`: cortical coordinates in micrometres. `tier`: train, validation or oracle (shown repeatedly).
    """

    name: str
    stimuli: Stimuli
    trial_image: Int64[np.ndarray, " trial"]
    responses: Float32[np.ndarray, "trial neuron"]
    tier: Shaped[np.ndarray, " trial"]
    behavior: Float32[np.ndarray, "trial channel"] | None = None
    behavior_names: tuple[str, ...] = ()
    pupil_center: Float32[np.ndarray, "trial 2"] | None = None
    neuron_xyz: Float32[np.ndarray, "neuron 3"] | None = None

    def __post_init__(self) -> None:
        n = len(self.trial_image)
        for field_name in ("responses", "tier", "behavior", "pupil_center"):
            value = getattr(self, field_name)
            if value is not None and len(value) != n:
                raise InputError(f"scan {self.name}: {field_name} has {len(value)} rows for {n} trials")
        outside = self.trial_image[(self.trial_image < 0) | (self.trial_image >= len(self.stimuli))]
        if len(outside):
            raise InputError(f"scan {self.name}: trial_image names row {outside[0]} of {len(self.stimuli)} images")
        if self.neuron_xyz is not None and len(self.neuron_xyz) != self.responses.shape[1]:
            raise InputError(
                f"scan {self.name}: neuron_xyz has {len(self.neuron_xyz)} rows for {self.responses.shape[1]} neurons"
            )
        unknown = set(np.unique(self.tier).tolist()) - set(get_args(Tier))
        if unknown:
            raise InputError(f"scan {self.name}: tier {sorted(unknown)[0]!r} is not one of {', '.join(get_args(Tier))}")
        if not np.isfinite(self.responses).all():
            trial, neuron = np.argwhere(~np.isfinite(self.responses))[0]
            raise InputError(f"scan {self.name}: response of neuron {neuron} on trial {trial} is not finite; drop it")
        channels = 0 if self.behavior is None else self.behavior.shape[1]
        if channels != len(self.behavior_names):
            raise InputError(f"scan {self.name}: {len(self.behavior_names)} behavior_names for {channels} channels")
        _freeze(self, "trial_image", "responses", "tier", "behavior", "pupil_center", "neuron_xyz")

    @property
    def trial_ids(self) -> Shaped[np.ndarray, " trial"]:
        """The image id shown on each trial."""
        ids: np.ndarray = self.stimuli.ids[self.trial_image]
        return ids


@dataclass(frozen=True, slots=True, eq=False)
class NeuronWeights:
    """Reliability of each neuron: variances of Eq. 1, in the squared unit of the responses."""

    signal_variance: Float64[np.ndarray, " neuron"]
    noise_variance: Float64[np.ndarray, " neuron"]

    def __post_init__(self) -> None:
        _freeze(self, "signal_variance", "noise_variance")

    @property
    def snr(self) -> Float64[np.ndarray, " neuron"]:
        """`w = sigma / eta` (Eq. 1); a neuron without noise variance (silent or constant) gets 0, never inf or NaN."""
        heard = self.noise_variance > 0
        ratio = np.divide(
            self.signal_variance, self.noise_variance, out=np.zeros_like(self.noise_variance), where=heard
        )
        weights: np.ndarray = np.sqrt(np.maximum(ratio, 0.0))
        return weights


@dataclass(frozen=True, slots=True, eq=False)
class Population:
    """Mean response of every neuron to every image, and the weight each neuron is given in the similarity."""

    image_ids: Shaped[np.ndarray, " image"]
    mean: Float32[np.ndarray, "image neuron"]
    weights: Float32[np.ndarray, " neuron"]
    source: ResponseSource

    def __post_init__(self) -> None:
        _checked_ids(self.image_ids, "population")
        if len(self.image_ids) != len(self.mean):
            raise InputError(f"population: {len(self.image_ids)} image ids for {len(self.mean)} response vectors")
        if len(self.weights) != self.mean.shape[1]:
            raise InputError(f"population: {len(self.weights)} weights for {self.mean.shape[1]} neurons")
        _freeze(self, "image_ids", "mean", "weights")

    def select(self, ids: Sequence[str] | np.ndarray) -> "Population":
        """Return the responses to the images named by `ids`, in that order; `InputError` when one is not here."""
        rows = _rows(self.image_ids, ids, "population")
        return Population(self.image_ids[rows], self.mean[rows], self.weights, self.source)


@dataclass(frozen=True, slots=True, eq=False)
class SimilarityTarget:
    """How alike a population finds each pair of images: `matrix[i, j]` in [-1, 1], symmetric, diagonal 1 (Eq. 2).

    `stimuli_digest` is `Stimuli.digest` of exactly these images in this order. `n_scans` counts the scans averaged.
    `details` says how it was made (weights used, pixel mean and standard deviation, ...): shown beside every result.
    """

    matrix: Float32[np.ndarray, "image image"]
    image_ids: Shaped[np.ndarray, " image"]
    stimuli_digest: str
    source: TargetSource
    n_scans: int = 1
    details: Mapping[str, str | float | int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _checked_ids(self.image_ids, "target")
        n = len(self.image_ids)
        if self.matrix.shape != (n, n):
            raise InputError(f"target: matrix is {self.matrix.shape} for {n} image ids; it must be ({n}, {n})")
        if self.source not in get_args(TargetSource):
            raise InputError(f"target: source {self.source!r} is not one of {', '.join(get_args(TargetSource))}")
        # min and max see NaN as well, without an N x N mask
        low, high = (float(self.matrix.min()), float(self.matrix.max())) if n else (0.0, 0.0)
        if not (np.isfinite(low) and np.isfinite(high)):
            i, j = np.argwhere(~np.isfinite(self.matrix))[0]
            raise InputError(
                f"target: similarity of {str(self.image_ids[i])!r} and {str(self.image_ids[j])!r} is "
                f"{self.matrix[i, j]}; drop the image or mend its responses"
            )
        if low < -1 or high > 1:
            raise InputError(f"target: similarities span [{low:.3g}, {high:.3g}]; they must lie in [-1, 1]")
        if self.matrix.dtype != np.float32:
            raise InputError(f"target: matrix is {self.matrix.dtype}; convert it to float32")
        for start in range(0, n, _ROWS):
            rows = slice(start, start + _ROWS)
            if not np.allclose(self.matrix[rows], self.matrix[:, rows].T, rtol=0, atol=1e-5):
                raise InputError("target: matrix is not symmetric; average it with its transpose if that is meant")
        _freeze(self, "matrix", "image_ids")

    def __len__(self) -> int:
        return len(self.image_ids)

    def select(self, stimuli: Stimuli) -> "SimilarityTarget":
        """Return the part of the matrix for these images, in their order; a part is never centred again.

        Raises `InputError` when one is not here. `stimuli` are not compared with those the target was made from.
        """
        rows = _rows(self.image_ids, stimuli.ids, "target")
        return replace(
            self, matrix=self.matrix[np.ix_(rows, rows)], image_ids=stimuli.ids, stimuli_digest=stimuli.digest
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file: the matrix, the ids and a JSON header. The file appears whole or not at all."""
        from safetensors.numpy import save_file

        names = json.dumps(self.image_ids.tolist())
        header = {
            "format": "neuroprior.SimilarityTarget/1",
            "stimuli_digest": self.stimuli_digest,
            "source": self.source,
            "n_scans": str(self.n_scans),
            "details": json.dumps(dict(self.details), sort_keys=True),
        }
        tensors = {
            "matrix": np.ascontiguousarray(self.matrix),
            "image_ids": np.frombuffer(names.encode(), dtype=np.uint8),
        }
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        os.close(handle)
        try:
            save_file(tensors, temporary, metadata=header)
            os.chmod(temporary, 0o644)
            os.replace(temporary, target)
        finally:
            Path(temporary).unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "SimilarityTarget":
        """Read what `save` wrote; the matrix stays on disk, memory-mapped. Raises `InputError` for any other file."""
        from safetensors import SafetensorError, safe_open

        if not Path(path).is_file():
            raise InputError(f"{path}: no such file; make a target first (`neuroprior target build`)")
        try:
            with safe_open(path, framework="pt") as file:  # torch maps the file; the numpy reader would copy it
                header = file.metadata() or {}
                if not header.get("format", "").startswith("neuroprior.SimilarityTarget/"):
                    raise InputError(f"{path}: not a similarity target; it was not written by `SimilarityTarget.save`")
                if header["format"] != "neuroprior.SimilarityTarget/1":
                    raise InputError(
                        f"{path}: format {header['format']} is newer than this version; upgrade neuroprior"
                    )
                matrix: np.ndarray = file.get_tensor("matrix").numpy()
                fields: dict[str, Any] = {
                    "image_ids": np.array(json.loads(file.get_tensor("image_ids").numpy().tobytes()), dtype=np.str_),
                    "stimuli_digest": header["stimuli_digest"],
                    "source": header["source"],
                    "n_scans": int(header["n_scans"]),
                    "details": json.loads(header["details"]),
                }
        except InputError:
            raise
        except (SafetensorError, KeyError, ValueError) as error:
            raise InputError(f"{path}: cannot be read as a similarity target ({error}); make it again") from None
        return cls(matrix=matrix, **fields)


@dataclass(frozen=True, slots=True)
class NetworkCard:
    """What a trained network was; saved as `card.json` beside its weights.

    `recipe_digest`: SHA-256 of the part of the recipe that made this network (recipes may share networks).
    """

    condition: str
    seed: int
    recipe_digest: str
    scores: Mapping[str, float]

    def to_json(self) -> str:
        """Serialise with sorted keys, so equal cards are equal bytes."""
        return json.dumps(asdict(self), indent=2, sort_keys=True)


@dataclass(frozen=True, slots=True)
class AttackRecord:
    """One attempt to fool `model` on `sample`: the smallest perturbation found with one attack setting.

    `distance` is 0 for an image that was already wrong and inf where nothing was found; `verified` says that the
    adversarial was checked again: finite, in [0, 1], prediction differs, norm recomputed in float64.
    """

    model: str
    sample: str
    attack: str
    setting: str
    repetition: int
    norm: Literal["l0", "l1", "l2", "linf"]
    distance: float
    forwards: int
    gradients: int
    verified: bool
