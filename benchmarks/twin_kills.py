"""A twin's fit is SIGKILLed at random moments, then begun again: are the bytes those of an undisturbed one?

    python benchmarks/twin_kills.py [--json] [--kills 10] [--seed 0]

Two simulated scans, a small core, a checkpoint twice a second in place of each half minute. The same call is killed and
begun again until it comes to its end, in new folders until `--kills` were made. Compared: the bytes of the twins, of
`fit.json` (every epoch's losses and correlations, digests, notes) and of `log.jsonl`.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measured import at_least, at_most, show

from neuroprior.recordings import load_scan, packaged_photographs, save_scan, simulate_scan
from neuroprior.twin import FitSettings, TwinArchitecture, fit_in_folder

FILES = ("twin.safetensors", "fit.json", "log.jsonl")


def fit(scans: Path, out: Path) -> None:
    """What is killed."""
    recordings = [load_scan(path) for path in sorted(scans.glob("*.npz"))]
    settings = FitSettings(max_epochs=8, patience=2)
    fit_in_folder(recordings, out, TwinArchitecture(channels=8), settings, seconds=0.5)


def begin(scans: Path, out: Path) -> subprocess.Popen[bytes]:
    """Start it in a process of its own."""
    return subprocess.Popen([sys.executable, __file__, "--fit", str(scans), str(out)])


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="end with one JSON object on a line")
    parser.add_argument("--fit", type=Path, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fit:
        fit(*arguments.fit)
        return
    chance = random.Random(arguments.seed)
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
    with tempfile.TemporaryDirectory() as folder:
        scans = Path(folder, "scans")
        scans.mkdir()
        shown = packaged_photographs(n_train=600, n_oracle=20)
        for k in range(2):
            made = simulate_scan(shown, shown.ids[600:], n_neurons=60, n_repeats=6, animal=k, name=f"mouse{k}")
            save_scan(made.scan, scans / f"mouse{k}.npz")
        whole = Path(folder, "whole")
        start = time.monotonic()
        assert begin(scans, whole).wait() == 0
        seconds = time.monotonic() - start
        wanted = [(whole / name).read_bytes() for name in FILES]
        kills, finished, different, resumed = 0, 0, 0, 0
        while kills < arguments.kills:
            out = Path(folder, f"fit{finished}")
            while True:
                resumed += (out / "checkpoint.safetensors").exists()
                process = begin(scans, out)
                try:
                    assert process.wait(timeout=chance.uniform(0, seconds)) == 0
                    break
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    kills += 1
            finished += 1
            different += [(out / name).read_bytes() for name in FILES] != wanted
    show(
        "twin_kills",
        [
            at_least("kills", kills, arguments.kills),
            at_least("beginnings from a checkpoint", resumed, 1),
            at_most("fits whose files differ from the undisturbed one's", different, 0),
        ],
        {"fits that were killed and came to their end": finished, "seconds of an undisturbed fit": f"{seconds:.0f}"},
        arguments.json,
    )


if __name__ == "__main__":
    main()
