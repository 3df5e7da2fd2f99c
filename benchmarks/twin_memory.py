"""Fitting eight scans of 8,000 neurons together: the most memory that the whole command holds.

    python benchmarks/twin_memory.py [--json] [--scans 8] [--neurons 8000] [--images 5000] [--oracle 100]

The files have the layout and the size of real ones (Sensorium's HDF5: 5,000 photographs once, 100 ten times, behaviour
and pupil) and are read as needed; responses are drawn at random, since memory does not ask what they mean. Measured is
`neuroprior twin fit`, from its start to the page, one epoch; the bound is the whole process's, libraries included.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measured import at_most, most_held, show

from neuroprior.recordings import packaged_photographs, save_scan
from neuroprior.types import Scan, Stimuli

GIB = 1 << 30
REPEATS = 10


def write(folder: Path, scans: int, neurons: int, images: int, oracle: int) -> list[Path]:
    """Write so many recordings of the same images."""
    stimuli = packaged_photographs(n_train=images, n_oracle=oracle)
    trial_image = np.concatenate([np.arange(images), np.repeat(np.arange(images, images + oracle), REPEATS)])
    return [write_one(folder / f"mouse{k}.h5", stimuli, trial_image, images, neurons, seed=k) for k in range(scans)]


def write_one(path: Path, stimuli: Stimuli, trial_image: np.ndarray, images: int, neurons: int, *, seed: int) -> Path:
    """Write one recording: every response an exponential draw about a rate that image and neuron share a little of."""
    rng = np.random.default_rng(seed)
    drive = rng.standard_normal((len(stimuli), 8), dtype=np.float32) @ rng.standard_normal((8, neurons), np.float32)
    responses = rng.standard_exponential((len(trial_image), neurons), dtype=np.float32)
    responses *= np.exp(0.2 * drive)[trial_image]
    scan = Scan(
        name=path.stem,
        stimuli=stimuli,
        trial_image=trial_image,
        responses=responses,
        tier=np.where(trial_image < images, "train", "oracle"),
        behavior=rng.standard_normal((len(trial_image), 3), dtype=np.float32),
        behavior_names=("pupil_dilation", "d_pupil_dilation", "running_speed"),
        pupil_center=rng.standard_normal((len(trial_image), 2), dtype=np.float32),
    )
    save_scan(scan, path, "sensorium-h5")
    return path


def fit(paths: list[str]) -> None:
    """Fit them as the command does, and print the most bytes ever held (in a process of its own)."""
    from neuroprior.cli import main as command

    try:
        command(["twin", "fit", *paths[1:], "--out", paths[0], "--max-epochs", "1"])
    except SystemExit as ended:
        if ended.code:
            raise
    print(most_held())


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=8)
    parser.add_argument("--neurons", type=int, default=8000)
    parser.add_argument("--images", type=int, default=5000, help="shown once")
    parser.add_argument("--oracle", type=int, default=100, help=f"shown {REPEATS} times")
    parser.add_argument("--json", action="store_true", help="end with one JSON object on a line")
    parser.add_argument("--fit", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fit:
        return fit(arguments.fit)

    with tempfile.TemporaryDirectory() as folder:
        paths = write(Path(folder), arguments.scans, arguments.neurons, arguments.images, arguments.oracle)
        began = time.perf_counter()
        command = [sys.executable, __file__, "--fit", f"{folder}/twins", *map(str, paths)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        seconds = time.perf_counter() - began
        on_disk = sum(path.stat().st_size for path in paths)
    held = int(done.stdout.splitlines()[-1]) / GIB
    trials = arguments.images + REPEATS * arguments.oracle
    return show(
        "twin_memory",
        [at_most(f"{arguments.scans} scans x {arguments.neurons} neurons x {trials} trials: GiB", held, 12.0)],
        {"files": f"{on_disk / GIB:.3g} GiB", "one epoch, scores and page": f"{seconds:.0f} s"},
        arguments.json,
    )


if __name__ == "__main__":
    main()
