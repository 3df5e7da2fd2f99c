"""The same run on each engine, undisturbed, with a worker killed and with its driver killed: are the bytes the same?

    python benchmarks/engines.py [--json] [--engines local,ray,slurm]

The demo recipe at tiny size, two conditions, two steps at a time; ray on a cluster of one node that each command
starts, slurm as submitit's processes on this machine (`compute.cluster.debug`). A worker is killed (SIGKILL) while it
trains, and the command must come to its end by itself; a driver is killed while a worker trains, and the same command
must finish. Every `metrics.parquet` is compared with that of an undisturbed run of the local engine. An engine whose
library is not installed is left out, and said so.
"""

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measured import at_least, at_most, show

from neuroprior.files import read_json

LIBRARIES = {"ray": "ray", "slurm": "submitit"}
SETTINGS = [
    "scale=tiny",
    "conditions=[none, neural_model]",
    "training.epochs=12",
    "compute={device: cpu, precision: float32, threads: 1, workers: 2, checkpoint_seconds: 0.1}",
    "compute.cluster.debug=true",
]
PATIENCE = 240.0  # seconds


def begin(out: Path, engine: str) -> subprocess.Popen[bytes]:
    """Start the command, with its lines in a log beside its folder."""
    command = [sys.executable, "-m", "neuroprior", "demo", "--out", str(out), "--engine", engine]
    for setting in SETTINGS:
        command += ["--set", setting]
    with out.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def training_worker(out: Path, process: subprocess.Popen[bytes]) -> int:
    """Wait until some worker is in the middle of a training; return its process."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert process.poll() is None, out.with_suffix(".log").read_text()
        for file in (out / "steps" / ".progress").glob("train-*.json"):
            said = read_json(file)
            if said.get("part", 0) > 0:
                return int(said["pid"])
        time.sleep(0.05)
    raise TimeoutError(out.with_suffix(".log").read_text())


def finish(out: Path, process: subprocess.Popen[bytes]) -> bytes:
    """Wait for the end; return the metrics."""
    assert process.wait(timeout=PATIENCE) == 0, out.with_suffix(".log").read_text()
    return (out / "metrics.parquet").read_bytes()


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", default="local,ray,slurm")
    parser.add_argument("--json", action="store_true", help="end with one JSON object on a line")
    arguments = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
    asked = arguments.engines.split(",")
    engines = [e for e in asked if e not in LIBRARIES or importlib.util.find_spec(LIBRARIES[e]) is not None]
    details = {f"left out, {LIBRARIES[engine]} is not installed": engine for engine in asked if engine not in engines}
    compared, different, again, resumed = 0, 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        wanted = finish(root / "wanted", begin(root / "wanted", "local"))
        for engine in engines:
            start = time.monotonic()
            whole = root / f"{engine}-whole"
            found = [finish(whole, begin(whole, engine))]
            details[f"seconds of an undisturbed run, {engine}"] = f"{time.monotonic() - start:.0f}"

            worker = root / f"{engine}-worker"
            process = begin(worker, engine)
            os.kill(training_worker(worker, process), signal.SIGKILL)
            found.append(finish(worker, process))
            again += 1

            driver = root / f"{engine}-driver"
            process = begin(driver, engine)
            training_worker(driver, process)
            process.kill()
            process.wait()
            found.append(finish(driver, begin(driver, engine)))
            resumed += 1
            compared += len(found)
            different += sum(one != wanted for one in found)
            details[f"the same bytes, {engine}"] = ", ".join(
                f"{what} {'yes' if one == wanted else 'NO'}"
                for what, one in zip(("undisturbed", "worker killed", "driver killed"), found, strict=True)
            )
    show(
        "engines",
        [
            at_most("runs whose metrics.parquet differs from the local engine's", different, 0),
            at_least("runs compared", compared, 3 * len(engines)),
            at_least("commands that came to their end after a worker was killed", again, len(engines)),
            at_least("commands that were killed and finished by the same command", resumed, len(engines)),
        ],
        details,
        arguments.json,
    )


if __name__ == "__main__":
    main()
