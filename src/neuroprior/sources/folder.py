"""The folder that data lies in."""

import os
from pathlib import Path


def data_folder() -> Path:
    """The folder that NEUROPRIOR_DATA names, else `data`, or `../shared/data` where only that is there."""
    named = os.environ.get("NEUROPRIOR_DATA")
    shared = Path("../shared/data")
    return Path(named) if named else shared if shared.is_dir() and not Path("data").is_dir() else Path("data")


def data_path(path: str) -> Path:
    """Where a file that a recipe names lies: as given if absolute, else in the data folder."""
    return Path(path) if Path(path).is_absolute() else data_folder() / path
