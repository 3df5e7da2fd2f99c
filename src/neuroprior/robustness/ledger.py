"""Every attempt on every sample, one row each; what a network withstands is a query on it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from neuroprior.files import appearing_whole
from neuroprior.robustness.images import Images
from neuroprior.types import AttackRecord, Float32, Float64, InputError

_TRACE = {"forwards": pa.int64(), "gradients": pa.int64(), "distance": pa.float64()}
_COLUMNS = {
    "model": pa.string(),
    "sample": pa.string(),
    "image": pa.string(),
    "attack": pa.string(),
    "setting": pa.string(),
    "repetition": pa.int64(),
    "norm": pa.string(),
    "status": pa.string(),
    "distance": pa.float64(),
    "verified": pa.bool_(),
    "alone": pa.bool_(),
    "forwards": pa.int64(),
    "gradients": pa.int64(),
    "trace": pa.list_(pa.struct(list(_TRACE.items()))),
}
LEDGER_SCHEMA = pa.schema([pa.field(name, kind, nullable=False) for name, kind in _COLUMNS.items()])
_ADVERSARIAL = pa.field("adversarial", pa.list_(pa.float32()))
"""Only where a search was asked to keep them: of each sample the nearest adversarial, in the row that found it."""

Count = Literal["gradients", "forwards"]


@dataclass(frozen=True, slots=True)
class Withstood:
    """What one network withstands in one norm, over `n` samples.

    `median`: of the smallest verified perturbations, 0 for the `already_wrong`, inf for the `not_found`, quarantined
    ones left out; `median_of_right`: without the already wrong as well. `mean`: of the finite ones, 0 among them.
    `unsound`: samples on which some attempt ended where the network gave something not finite. `gradients`, `forwards`:
    spent for a sample, on average; the checks of what was found are left out.
    """

    model: str
    norm: str
    n: int
    already_wrong: int
    not_found: int
    quarantined: int
    unsound: int
    median: float
    median_of_right: float
    mean: float
    gradients: float
    forwards: float


@dataclass(frozen=True, slots=True, eq=False)
class Ledger:
    """`table`: one `AttackRecord` a row, in the order in which they were made. Never changed, only added to."""

    table: pa.Table

    def __post_init__(self) -> None:
        lacking = [name for name in LEDGER_SCHEMA.names if name not in self.table.column_names]
        if lacking:
            raise InputError(f"ledger: no column {lacking[0]!r}; give a table of attack records, as attacks.parquet")

    @classmethod
    def of_records(cls, records: Iterable[AttackRecord]) -> "Ledger":
        """Make a ledger of records."""
        return cls(_table(records))

    @classmethod
    def load(cls, path: str | Path) -> "Ledger":
        """Read `attacks.parquet`, as far as it has come. Raises `InputError` where it is none."""
        parts = parts_of(Path(path))
        try:
            if parts.is_dir() and not Path(path).exists():
                return cls(pq.read_table(parts))
            return cls(pq.read_table(path))
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(
                f"{path}: no ledger ({str(error).splitlines()[0][:100]}); give an attacks.parquet"
            ) from None

    def save(self, path: str | Path) -> None:
        """Write `attacks.parquet`, whole or not at all."""
        with appearing_whole(Path(path)) as temporary:
            pq.write_table(self.table, temporary, compression="zstd")

    def __add__(self, other: "Ledger") -> "Ledger":
        """Both, one after the other."""
        both = [self.table.replace_schema_metadata(), other.table.replace_schema_metadata()]
        return Ledger(pa.concat_tables(both, promote_options="default"))

    def without_adversarials(self) -> "Ledger":
        """The same rows, without the images that were kept."""
        kept = _ADVERSARIAL.name in self.table.column_names
        return Ledger(self.table.drop_columns([_ADVERSARIAL.name])) if kept else self

    def perturbations(self, images: Images) -> Float32[np.ndarray, "sample c h w"]:
        """x' - x of each sample's nearest adversarial: 0 where it was already wrong, NaN where none was found.

        `images`: x, in the order of `samples`. Raises `InputError` for a ledger of several networks or norms, one that
        kept no adversarials, or images that are not those.
        """
        distances = self.distances()
        none_kept = _ADVERSARIAL.name not in self.table.column_names
        if none_kept and (np.isfinite(distances) & (distances > 0)).any():
            raise InputError("ledger: keeps no adversarials; search with keep_adversarials=True")
        images = np.asarray(torch.as_tensor(images).cpu(), dtype=np.float32)
        rows = {sample: k for k, sample in enumerate(self.samples)}
        if len(images) != len(rows):
            raise InputError(f"ledger: {len(images)} images for {len(rows)} samples; give one for each, in their order")
        found = np.full(images.shape, np.nan, dtype=np.float32)
        found[distances == 0] = 0.0
        if none_kept:
            return found
        for sample, kept in zip(*(self.table[name].to_pylist() for name in ("sample", "adversarial")), strict=True):
            if kept is None:
                continue
            if len(kept) != images[0].size:
                raise InputError(f"ledger: adversarials have {len(kept)} values, the images {images[0].size}")
            found[rows[sample]] = np.array(kept, dtype=np.float32).reshape(images[0].shape) - images[rows[sample]]
        return found

    @property
    def models(self) -> tuple[str, ...]:
        """Networks, as they appear first."""
        return tuple(dict.fromkeys(self.table["model"].to_pylist()))

    @property
    def norms(self) -> tuple[str, ...]:
        """Norms, as they appear first."""
        return tuple(dict.fromkeys(self.table["norm"].to_pylist()))

    @property
    def samples(self) -> tuple[str, ...]:
        """Samples, as they appear first: the order of `distances`."""
        return tuple(dict.fromkeys(self.table["sample"].to_pylist()))

    def of(
        self,
        *,
        model: str | None = None,
        norm: str | None = None,
        attacks: Sequence[str] | None = None,
        samples: Sequence[str] | None = None,
    ) -> "Ledger":
        """The rows of one network, one norm, some attacks (with all clean images), or some samples, in that order.

        Raises `InputError` if there are none, or for attacks that began from what others had found: only of attempts
        that stood alone (the first of a search, or all of an `exhaustive` one) can be said what an attack finds.
        """
        table = self.table
        for name, value in (("model", model), ("norm", norm)):
            if value is not None:
                table = table.filter(pc.equal(table[name], value))
        if attacks is not None:
            clean = pc.equal(table["attack"], "clean")
            mine = pc.is_in(table["attack"], pa.array(list(attacks), type=pa.string()))
            helped = table.filter(pc.and_(mine, pc.invert(table["alone"])))
            if len(helped):
                raise InputError(
                    f"ledger: {helped['attack'][0]} began from what other attempts had found; "
                    "search with exhaustive=True to tell attacks apart"
                )
            table = table.filter(pc.or_(clean, mine)) if pc.any(mine).as_py() else table.slice(0, 0)
        if samples is not None:
            rows: dict[str, list[int]] = {}
            for row, sample in enumerate(table["sample"].to_pylist()):
                rows.setdefault(sample, []).append(row)
            table = table.take(pa.array([row for sample in samples for row in rows.get(sample, ())], type=pa.int64()))
        if not len(table):
            raise InputError(
                f"ledger: no row of model {model!r}, norm {norm!r}, attacks {attacks}; it has models "
                f"{', '.join(self.models)}, norms {', '.join(self.norms)}"
            )
        return Ledger(table)

    def distances(self) -> Float64[np.ndarray, " sample"]:
        """The smallest verified perturbation of each sample: 0 already wrong, inf not found, NaN quarantined.

        In the order of `samples`. Raises `InputError` for a ledger of several networks or norms: choose with `of`.
        """
        if len(self.models) > 1 or len(self.norms) > 1:
            raise InputError(
                f"ledger: models {', '.join(self.models)}, norms {', '.join(self.norms)}; "
                "choose one of each with ledger.of(model=..., norm=...)"
            )
        best = dict.fromkeys(self.samples, math.inf)
        columns = (self.table[name].to_pylist() for name in ("sample", "status", "distance", "verified"))
        for sample, status, distance, verified in zip(*columns, strict=True):
            if status == "quarantined":
                best[sample] = math.nan
            elif status == "already_wrong" or verified:
                best[sample] = min(distance, best[sample]) if not math.isnan(best[sample]) else math.nan
        return np.array(list(best.values()), dtype=np.float64)

    def withstood(self) -> tuple[Withstood, ...]:
        """One line a network and norm."""
        lines = []
        for model in self.models:
            mine = self.of(model=model)
            for norm in mine.norms:
                part = mine.of(norm=norm)
                distances = part.distances()
                sound = distances[~np.isnan(distances)]
                finite = sound[np.isfinite(sound)]
                spent = {name: pc.sum(part.table[name]).as_py() / len(distances) for name in ("gradients", "forwards")}
                lines.append(
                    Withstood(
                        model=model,
                        norm=norm,
                        n=len(distances),
                        already_wrong=int((sound == 0).sum()),
                        not_found=int(np.isinf(sound).sum()),
                        quarantined=int(np.isnan(distances).sum()),
                        unsound=len(pc.unique(part.table.filter(pc.equal(part.table["status"], "unsound"))["sample"])),
                        median=median(sound),
                        median_of_right=median(sound[sound > 0]),
                        mean=float(finite.mean()) if len(finite) else math.nan,
                        **spent,
                    )
                )
        return tuple(lines)

    def accuracy(self, radii: Sequence[float | int]) -> Float64[np.ndarray, " radius"]:
        """The share of samples that no perturbation of length <= radius was found for; quarantined ones left out."""
        distances = self.distances()
        distances = distances[~np.isnan(distances)]
        wrong_beforehand = distances == 0
        return np.array([float(((distances > radius) & ~wrong_beforehand).mean()) for radius in radii])

    def best_so_far(self, queries: Sequence[int], count: Count = "gradients") -> Float64[np.ndarray, "sample query"]:
        """The nearest adversarial of each sample after so many queries (Fig. 5); inf before there is one.

        Attempts on a sample count in the order in which they were made. No value is below what was verified in the end.
        """
        final = dict(zip(self.samples, self.distances(), strict=True))
        rows = {sample: k for k, sample in enumerate(final)}
        spent = dict.fromkeys(rows, 0)
        grid = np.asarray(queries)
        best = np.full((len(rows), len(grid)), np.inf)
        names = ("sample", "status", "verified", "trace", count)
        for sample, status, verified, trace, used in zip(
            *(self.table[name].to_pylist() for name in names), strict=True
        ):
            row = rows[sample]
            if status == "already_wrong":
                best[row] = 0.0
            elif math.isnan(final[sample]):
                best[row] = np.nan
            elif verified:
                for point in trace:
                    reached = grid >= spent[sample] + point[count]
                    best[row, reached] = np.minimum(best[row, reached], max(point["distance"], final[sample]))
            spent[sample] += used
        return best


def median(values: np.ndarray) -> float:
    """As `np.median`, which makes NaN of two infinite middle values."""
    if not len(values):
        return math.nan
    ordered = np.sort(values)
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return float(high if math.isinf(high) else (low + high) / 2)


def _table(records: Iterable[AttackRecord]) -> pa.Table:
    rows = list(records)
    columns = {name: [getattr(record, name) for record in rows] for name in _COLUMNS}
    columns["trace"] = [[dict(zip(_TRACE, point, strict=True)) for point in record.trace] for record in rows]
    table = pa.table(columns, schema=LEDGER_SCHEMA)
    kept = [record.adversarial for record in rows]
    if all(adversarial is None for adversarial in kept):
        return table
    return table.append_column(_ADVERSARIAL, pa.array(kept, type=_ADVERSARIAL.type))


def parts_of(path: Path) -> Path:
    """The folder of a ledger's parts while it grows."""
    return path.with_name(path.name + ".parts")
