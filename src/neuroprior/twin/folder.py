"""A fit is a folder: the twins, what they were fitted with and to, and the state to go on from if it is stopped.

```
twin.safetensors      the twins of all scans; of a crossfit, fold-0/twin.safetensors and so on
fit.json              architecture, settings, digests of the scans, versions, history, notes: what made them
log.jsonl             loss and validation correlation, a line an epoch
checkpoint.safetensors, begun.json  only until the fit is done
```
"""

import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, TypeAdapter, ValidationError

from neuroprior.checkpoint import Checkpoint
from neuroprior.files import read_json, write_json
from neuroprior.logs import JsonLines
from neuroprior.twin.architecture import TwinArchitecture
from neuroprior.twin.denoise import CrossfitTwin, Denoiser, fit_crossfit
from neuroprior.twin.fit import FitDivergedError, FitEpoch, FitProgress, FitSettings, FittedTwins, fit_twin
from neuroprior.twin.fit.digest import fit_digest, scan_digest
from neuroprior.twin.fit.trials import HeldBack, held_back, stopping_trials
from neuroprior.twin.pretrained import load_twin
from neuroprior.twin.saved import is_saved, load_twins, save_twins
from neuroprior.types import InputError, Int64, Scan

__all__ = ["FitFolder", "fit_in_folder", "load_denoisers", "load_fit"]

_TWINS, _SAID, _LOG, _CHECKPOINT = "twin.safetensors", "fit.json", "log.jsonl", "checkpoint.safetensors"
_BEGUN = "begun.json"  # thread counts that a fit which is not over was trained with
_SECONDS = 30.0  # between checkpoints


@dataclass(frozen=True, slots=True)
class _Said:
    """What `fit.json` must hold for its twins to be used; it may hold more."""

    digest: str
    architecture: TwinArchitecture
    settings: FitSettings
    scans: dict[str, str]
    history: tuple[FitEpoch, ...]
    notes: tuple[str, ...]
    oracle: tuple[str, ...] = ()
    failed: str | None = None


@dataclass(frozen=True, slots=True)
class _Crossed:
    """What the `fit.json` of a crossfit must hold; what made its twins is said in the folds."""

    folds: Annotated[int, Field(ge=2)]
    seed: Annotated[int, Field(ge=0)]


@dataclass(frozen=True, slots=True, eq=False)
class FitFolder:
    """A finished fit: its twins (one a scan), and what `fit.json` says of each fold (one without crossfit)."""

    twins: tuple[Denoiser, ...]
    said: tuple[dict[str, Any], ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of the fit, each once."""
        return tuple(dict.fromkeys(note for fold in self.said for note in fold["notes"]))

    @property
    def history(self) -> tuple[tuple[FitEpoch, ...], ...]:
        """The epochs of every fold."""
        return tuple(tuple(FitEpoch(**epoch) for epoch in fold["history"]) for fold in self.said)

    def knows(self, scan: Scan) -> bool:
        """Whether this very scan was fitted, to the last response: another of the same name has another digest."""
        known: bool = self.said[0]["scans"].get(scan.name) == scan_digest(scan)
        return known

    def validation_trials(self, scan: Scan) -> Int64[np.ndarray, " some"]:
        """Trials that training was stopped by: tier validation, or the images held out of tier train.

        Without what was oracle in any scan of the fit (where `fit.json` says it), and without trials dropped as not
        tracked. Of a crossfit, each fold was stopped by those of them that it did not leave out.
        """
        said = self.said[0]
        return stopping_trials(
            scan,
            FitSettings(**said["settings"]),
            HeldBack(oracle=frozenset(said.get("oracle", ()))),
            needs_behavior=said["architecture"]["behavior"] != "none",
            needs_pupil=said["architecture"]["shifter"] != "none",
        )


def fit_in_folder(
    scans: Sequence[Scan],
    folder: Path,
    architecture: TwinArchitecture,
    settings: FitSettings,
    *,
    n_folds: int = 0,
    progress: Callable[[int, FitProgress], None] | None = None,
    seconds: float | None = None,
) -> FitFolder:
    """Fit the scans into `folder`, going on from what is there of the same fit; what is finished is not done again.

    `n_folds`: 0, or a crossfit of so many. `progress` is told the fold, and where its fit is. `seconds`: of work that
    a killed fit loses at most; 30 unless given.
    Raises as `fit_twin`, after the twins of the best epoch were kept where the loss was lost; `InputError` where the
    folder holds another fit; `OSError` where the disk takes no more.
    """

    alone, folds = folder / _TWINS, sorted(folder.glob("fold-*"))
    if (n_folds and (alone.exists() or (folder / _CHECKPOINT).exists())) or (not n_folds and folds):
        held = "twins without crossfit" if n_folds else "a crossfit"
        raise InputError(f"{folder}: holds {held}; name another --out")

    digests = {scan.name: scan_digest(scan) for scan in scans}  # once for all folds: each reads a whole scan

    def fit(fold: int, left_out: tuple[str, ...]) -> FittedTwins:
        place = folder if not n_folds else folder / f"fold-{fold}"
        tell = None if progress is None else (lambda at: progress(fold, at))
        every = _SECONDS if seconds is None else seconds
        return _fit_one(scans, digests, place, architecture, settings, left_out, tell, every)

    if n_folds:
        fit_crossfit(scans, n_folds, architecture, settings, fit=fit)
        write_json(folder / _SAID, {"folds": n_folds, "seed": settings.seed})
    else:
        fit(0, ())
    return load_fit(folder)


def _fit_one(
    scans: Sequence[Scan],
    digests: dict[str, str],
    place: Path,
    architecture: TwinArchitecture,
    settings: FitSettings,
    left_out: tuple[str, ...],
    progress: Callable[[FitProgress], None] | None,
    seconds: float,
) -> FittedTwins:
    digest = fit_digest([digests[scan.name] for scan in scans], architecture, settings, left_out)
    if (place / _TWINS).exists():
        said = _read_said(place)
        if said["digest"] != digest:
            raise InputError(
                f"{place}: holds twins of another fit (its scans, settings or architecture differ; the order of the "
                "scans counts, too); name another --out"
            )
        if not said.get("failed"):
            history = tuple(FitEpoch(**epoch) for epoch in said["history"])
            return FittedTwins(load_twins(place / _TWINS), history, architecture, settings, tuple(said["notes"]))
    place.mkdir(parents=True, exist_ok=True)
    checkpoint, begun = Checkpoint(place / _CHECKPOINT, seconds), place / _BEGUN
    threads = [*(read_json(begun).get("threads", ()) if checkpoint.path.exists() else ())]
    if threads[-1:] != [torch.get_num_threads()]:
        threads.append(torch.get_num_threads())
    noted, failed = False, None

    def tell(at: FitProgress) -> None:
        nonlocal noted
        if not noted:  # not sooner: the checkpoint may be refused; not later: the next may hold this step
            write_json(begun, {"threads": threads})
            noted = True
        if progress is not None:
            progress(at)

    try:
        fitted = fit_twin(
            scans, architecture, settings, leave_out=left_out, digest=digest, log=JsonLines(place / _LOG),
            checkpoint=checkpoint, progress=tell,
        )  # fmt: skip
    except FitDivergedError as error:
        if error.fitted is None:
            _forget(checkpoint.path, begun)  # from there it would only diverge again
            raise
        fitted, failed = error.fitted, error
    if len(threads) > 1:
        went_on = ", then ".join(map(str, threads[1:]))
        note = (
            f"began on {threads[0]} threads, went on with {went_on}: the last bits are not those of an undisturbed fit"
        )
        fitted = replace(fitted, notes=(*fitted.notes, note))
    # what is said of the twins comes first: a folder with twins is a finished one
    write_json(
        place / _SAID,
        {
            "digest": digest,
            "architecture": asdict(architecture),
            "settings": asdict(settings),
            "scans": digests,
            "left_out": len(left_out),
            "oracle": sorted(held_back(scans, settings).oracle),  # of all scans: none of them is stopped by these
            "history": [asdict(epoch) for epoch in fitted.history],
            "notes": list(fitted.notes),
            "failed": None if failed is None else str(failed),
            "made": _made(threads),
        },
    )
    save_twins(fitted, place / _TWINS)
    _forget(checkpoint.path, begun)  # not before the twins are on the disk
    if failed is not None:
        raise failed
    return fitted


def _forget(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _made(threads: list[int]) -> dict[str, Any]:
    """What the last bits of a fit depend on, beside what was asked for; the same for each fit on one machine."""
    return {
        "neuroprior": version("neuroprior"),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "device": f"cpu ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})",
        "threads": threads,
    }


def _read_said(place: Path) -> dict[str, Any]:
    """Read what is said of the twins in `place`, with defaults for settings that it is too old to know.

    Raises `InputError` naming the file, and the field that is missing or wrong.
    """
    file = place / _SAID
    said = read_json(file)
    if not said:
        raise InputError(f"{file}: {'damaged' if file.exists() else 'missing'}; {_again()}")
    return {**said, **_checked(said, _Said, file)}


def _checked(said: dict[str, Any], kind: type[_Said] | type[_Crossed], file: Path) -> dict[str, Any]:
    try:
        return asdict(TypeAdapter(kind).validate_python(said))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in fault["loc"])
        what = "is missing" if fault["type"] == "missing" else f"is {fault['input']!r:.60} ({fault['msg']})"
        raise InputError(f"{file}: {field} {what}; {_again()}") from None


def _again() -> str:
    return f"copy the file again, or delete the {_TWINS} beside it and fit again"


def load_fit(folder: Path) -> FitFolder:
    """Read a finished fit. Raises `InputError` where there is none, or a part of it is missing."""
    said = read_json(folder / _SAID)
    if not said:
        raise InputError(f"{folder}: no finished fit ({_SAID} is missing or damaged); `neuroprior twin fit` makes one")
    n_folds = said.get("folds")
    if n_folds is not None:
        _checked(said, _Crossed, folder / _SAID)
    places = [folder] if n_folds is None else [folder / f"fold-{k}" for k in range(n_folds)]
    each = tuple(_read_said(place) for place in places)
    for place, one in zip(places, each, strict=True):
        if one.get("failed"):
            raise InputError(
                f"{place}: the fit failed ({one['failed']}); fit again, or name {_TWINS} in it to use its best twins"
            )
    folds = [load_twins(place / _TWINS) for place in places]
    if n_folds is None:
        return FitFolder(folds[0], each)
    crossed = tuple(CrossfitTwin(tuple(twins), said["seed"]) for twins in zip(*folds, strict=True))
    return FitFolder(crossed, each)


def load_denoisers(path: Path, *, scan: str | None = None) -> tuple[Denoiser, ...]:
    """Read what can denoise, whatever it is: a fit's folder, a file of twins, a Sensorium checkpoint.

    `scan`: the name of one of several. Raises `InputError` for anything else, or a name that is not there.
    """
    if path.is_dir():
        twins: tuple[Denoiser, ...] = load_fit(path).twins
    elif is_saved(path):
        twins = load_twins(path)
    else:
        return (load_twin(path, scan=scan),)
    if scan is None:
        return twins
    names = [twin.name for twin in twins]
    if scan not in names:
        raise InputError(f"{path}: no scan {scan!r}; it holds {', '.join(names)}")
    return (twins[names.index(scan)],)
