"""SIGKILL at random moments, then the same command: are the bytes those of an undisturbed run?

    python benchmarks/kills.py [--json] [--kills 30] [--seed 0]

The demo recipe at tiny size, two workers, a checkpoint ten times a second. Commands are killed after a random time, in
turn the first process alone and its whole group, until `--kills` were; a run that gets to its end is compared with one
that was never disturbed, and the next one begins in a new folder. After every kill each visible step is checked against
the digests that it wrote. Extra work: steps begun more often than once, per kill, of which two can be in flight.
"""

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from measured import at_least, at_most, show, spread

from neuroprior.experiment.store import digest_file, manifest

WORKERS = 2
SETTINGS = [
    "scale=tiny",
    "training.epochs=4",
    f"compute={{device: cpu, precision: float32, threads: 1, workers: {WORKERS}, checkpoint_seconds: 0.1}}",
]


def begin(out: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start the command, with its lines in `log`."""
    command = [sys.executable, "-m", "neuroprior", "demo", "--out", str(out)]
    for setting in SETTINGS:
        command += ["--set", setting]
    with log.open("ab") as stderr:
        return subprocess.Popen(command, stdout=stderr, stderr=stderr, start_new_session=True)


def half_written(store: Path) -> int:
    """Count visible steps whose files are not those that their manifest names."""
    wrong = 0
    for folder in store.glob("[a-z]*-*"):
        digests = manifest(folder).get("files", {})
        found = {path.name for path in folder.iterdir()} - {"step.json"}
        whole = found == set(digests) and all(digest_file(folder / name) == said for name, said in digests.items())
        wrong += not (whole and digests)
    return wrong


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="end with one JSON object on a line")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        start = time.monotonic()
        assert begin(root / "whole", root / "whole.log").wait() == 0, (root / "whole.log").read_text()
        seconds = time.monotonic() - start
        wanted = (root / "whole" / "metrics.parquet").read_bytes()
        kills, different, broken, finished, resumed, extra = 0, 0, 0, 0, 0, []
        while kills < arguments.kills or not finished:
            out, log = root / f"run{finished}", root / f"run{finished}.log"
            killed_here = 0
            while True:
                process = begin(out, log)
                deadline = chance.uniform(0, seconds) if kills < arguments.kills else 10 * seconds
                try:
                    assert process.wait(timeout=deadline) == 0, log.read_text()
                    break
                except subprocess.TimeoutExpired:
                    if kills % 2:
                        os.killpg(process.pid, signal.SIGKILL)
                    else:
                        process.kill()
                    process.wait()
                    kills, killed_here = kills + 1, killed_here + 1
                    if (out / "plan.json").exists():
                        broken += half_written(out / "steps")
            finished += 1
            different += (out / "metrics.parquet").read_bytes() != wanted
            resumed += log.read_text().count("going on from its checkpoint")
            begun = Counter(line.partition(":")[0] for line in log.read_text().splitlines() if "starting" in line)
            if killed_here:
                extra.append((sum(begun.values()) - len(begun)) / killed_here)
    show(
        "kills",
        [
            at_least("kills", kills, arguments.kills),
            at_least("trainings that went on from a checkpoint", resumed, 1),
            at_most("runs whose metrics.parquet differs from the undisturbed one's", different, 0),
            at_most("visible steps that were half-written", broken, 0),
            at_most("steps done again, for each kill", max(extra), WORKERS),
        ],
        {
            "runs that were killed and came to their end": finished,
            "steps done again, for each kill": spread(extra) if len(extra) > 1 else f"{statistics.mean(extra):.2f}",
            "seconds of an undisturbed run": f"{seconds:.0f}",
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
