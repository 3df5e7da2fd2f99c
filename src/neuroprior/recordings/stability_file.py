"""What `scan_stability` found, as one `.npz`: arrays, and the rest as JSON beside them."""

import json
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from neuroprior.files import appearing_whole
from neuroprior.recordings.stability import ScanStability
from neuroprior.similarity import NoiseCeiling
from neuroprior.types import InputError, Stimuli
from neuroprior.weights import first_line

__all__ = ["load_stability", "save_stability"]

_MAYBE = ("single", "others", "over_scans", "single_over_scans", "over_repeats", "truths")
_MODEL = "model."


def save_stability(found: ScanStability, path: Path) -> None:
    """Write all of it, whole or not at all; `load_stability` gives it back bit by bit."""
    said = {
        "names": found.names,
        "ceilings": [None if one is None else asdict(one) for one in found.ceilings],
        "not_computed": found.not_computed,
    }
    arrays: dict[str, np.ndarray] = {
        "said": np.array(json.dumps(said)),
        "image_ids": found.stimuli.ids,
        "images": found.stimuli.pixels,
        "oracle": found.oracle,
        "repeats_sd": found.repeats_sd,
        "over_trials": found.over_trials,
        **{name: value for name in _MAYBE if (value := getattr(found, name)) is not None},
        **{f"{_MODEL}{name}": matrices for name, matrices in found.models.items()},
    }
    with appearing_whole(path) as temporary, temporary.open("wb") as handle:
        np.savez_compressed(handle, **arrays)  # type: ignore[arg-type]


def load_stability(path: Path) -> ScanStability:
    """Read what `save_stability` wrote. Raises `InputError` for any other file."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            said: dict[str, Any] = json.loads(str(kept["said"]))
            return ScanStability(
                names=tuple(said["names"]),
                stimuli=Stimuli(kept["image_ids"], kept["images"]),
                oracle=kept["oracle"],
                repeats_sd=kept["repeats_sd"],
                over_trials=kept["over_trials"],
                ceilings=tuple(None if one is None else NoiseCeiling(**one) for one in said["ceilings"]),
                models={name.removeprefix(_MODEL): kept[name] for name in kept.files if name.startswith(_MODEL)},
                not_computed=tuple(said["not_computed"]),
                **{name: kept[name] if name in kept.files else None for name in _MAYBE},
            )
    except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: not what scan stability keeps ({first_line(error)})") from None
