"""Run the project's GPU tests and benchmarks, or one command, on a bare machine, from the archive beside this file.

    tar xf gpu-pack.tar && python3 run.py --results DIR [--device cuda|cpu] [--minutes 9]
    python3 run.py --results DIR -- python -m neuroprior run recipes/quick.yaml --out DIR/quick

Needs Python 3.11 or 3.12 with pip, torch, NumPy, SciPy, pyarrow, pillow, Matplotlib, rich, typer and safetensors, and
no network. What else the project needs is installed from the archive into an environment of its own; the machine's
packages stay as they are. A stage that fails is recorded, and the next one goes on. In --results: summary.json,
run.log, tests.log, benchmarks.json, benchmarks.md. Exit code 0 only where every stage passed.
"""

import argparse
import hashlib
import io
import json
import lzma
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BENCHMARKS = ("twin_predict", "joint_step")
LARGEST_LOG = 2**20
PROBE = """
import importlib.metadata, json, platform, re
import torch
names = {}
for d in importlib.metadata.distributions():
    names.setdefault(re.sub(r"[-_.]+", "-", d.name).lower(), d.version)
cuda = torch.cuda.is_available()
print(json.dumps({
    "versions": {
        "python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if cuda else None,
        **{n: names.get(n) for n in ("numpy", "scipy", "pyarrow", "pydantic", "jaxtyping", "pytest")},
    },
    "device": torch.cuda.get_device_name() if cuda else "cpu",
    "capability": list(torch.cuda.get_device_capability()) if cuda else None,
}))
"""
INSTALLED = """
import importlib.metadata, json, re
found = {}
for d in importlib.metadata.distributions():
    found.setdefault(re.sub(r"[-_.]+", "-", d.name).lower(), d.version)
print(json.dumps(found))
"""


class StageError(Exception):
    """A stage failed; one line says how, `code` is its exit code."""

    def __init__(self, says: str, code: int = 1) -> None:
        super().__init__(says)
        self.code = code


class Machine:
    """The environment that is built here, and the record of what was done in it."""

    def __init__(self, results: Path, work: Path, device: str, minutes: float) -> None:
        self.results, self.work, self.device = results, work, device
        self.code, self.data, self.venv = work / "code", work / "data", work / "venv"
        self.start = time.monotonic()
        self.end = self.start + 60 * minutes
        self.manifest: dict[str, Any] = {}
        self.summary: dict[str, Any] = {"ok": False, "device_asked": device, "stages": []}
        self.environment = os.environ | {
            "NEUROPRIOR_DATA": str(self.data),
            "NEUROPRIOR_TEST_DEVICE": device,
            "PATH": os.pathsep.join((str(self.venv / "bin"), os.environ.get("PATH", ""))),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(self.code / "src"), os.environ.get("PYTHONPATH")))),
            "PYTHONUNBUFFERED": "1",
            "PIP_NO_INDEX": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        if device == "cpu":
            self.environment["CUDA_VISIBLE_DEVICES"] = ""

    @property
    def python(self) -> str:
        """The environment's Python."""
        return str(self.venv / "bin" / "python")

    def stage(self, name: str, do: Callable[[float], str], most: float) -> None:
        """Do one stage in at most so many seconds, of those that are left, and record how it went."""
        start = time.monotonic()
        try:
            limit = min(most, self.end - start)
            if limit < 1:
                raise StageError("not begun: no time was left", 124)
            note, code = do(limit), 0
        except StageError as error:
            note, code = str(error), error.code
        except Exception as error:  # whatever it is, it is recorded, and the next stage goes on
            note, code = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}", 1
        seconds = round(time.monotonic() - start, 2)
        self.summary["stages"].append({"name": name, "exit": code, "seconds": seconds, "note": note[:300]})
        print(f"{'ok  ' if code == 0 else 'FAIL'} {seconds:7.1f} s  {name}: {note[:300]}", flush=True)
        self.record()

    def record(self) -> None:
        """Write summary.json as far as it is known."""
        self.summary["seconds"] = round(time.monotonic() - self.start, 1)
        self.summary["ok"] = all(stage["exit"] == 0 for stage in self.summary["stages"])
        (self.results / "summary.json").write_text(json.dumps(self.summary, indent=1) + "\n")

    def call(self, command: list[str], limit: float, log: str = "run.log", cwd: Path | None = None) -> str:
        """Run a command, add what it says to a log, and return it. Raises `StageError` where it fails or overstays."""
        environment, log_file = self.environment, self.results / log
        with log_file.open("a+b") as out:
            out.write(f"$ {' '.join(command)[:300]}\n".encode())
            out.flush()
            begin = out.seek(0, os.SEEK_END)
            running = subprocess.Popen(
                command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
            try:
                code = running.wait(limit)
            except BaseException as error:  # out of time, or interrupted: nothing of it runs on
                os.killpg(running.pid, signal.SIGKILL)
                running.wait()
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                code = 124
            out.seek(begin)
            said = out.read().decode(errors="replace")
        whole = log_file.read_bytes()
        if len(whole) > LARGEST_LOG:
            half = LARGEST_LOG // 2
            log_file.write_bytes(whole[:half] + b"\n[...]\n" + whole[-half:])
        if code:
            lines = said.strip().splitlines() or ["it said nothing"]
            how = f"killed after {limit:.0f} s" if code == 124 else f"exit code {code}"
            raise StageError(f"{how}; {lines[-1].strip()} (more in {log})", code)
        return said

    # The stages.

    def check_archive(self, limit: float) -> str:
        """Compare every member with its SHA-256."""
        self.manifest = json.loads((HERE / "MANIFEST.json").read_text())
        self.summary |= {key: self.manifest[key] for key in ("commit", "dirty")}
        for name, expected in self.manifest["members"].items():
            if not (HERE / name).is_file():
                raise StageError(f"{name}: missing; unpack the archive again")
            if hashlib.sha256((HERE / name).read_bytes()).hexdigest() != expected["sha256"]:
                raise StageError(f"{name}: damaged, its SHA-256 is not the manifest's; carry the archive again")
        state = " with uncommitted changes" if self.manifest["dirty"] else ""
        return f"{len(self.manifest['members'])} members sound, commit {self.manifest['commit'][:12]}{state}"

    def unpack_code(self, limit: float) -> str:
        """Unpack code and wheels."""
        for member, folder in (("code.tar.xz", self.code), ("wheels.tar.xz", self.work / "wheels")):
            shutil.rmtree(folder, ignore_errors=True)  # of an archive before this one
            with tarfile.open(fileobj=io.BytesIO(lzma.decompress((HERE / member).read_bytes()))) as held:
                held.extractall(folder, filter="data")
        return f"{sum(1 for path in self.code.rglob('*') if path.is_file())} files of code"

    def make_environment(self, limit: float) -> str:
        """Make an environment that sees what this Python sees, and add to it what is missing there."""
        command = [sys.executable, "-m", "venv", "--without-pip", "--clear", str(self.venv)]
        self.call(command, limit)
        # Not --system-site-packages: where this Python is itself in an environment, that would pass over its packages.
        seen = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
        (here,) = self.venv.glob("lib/python*/site-packages")
        (here / "machine.pth").write_text(f"import site; [site.addsitedir(path) for path in {seen!r}]\n")
        there = json.loads(self.call([self.python, "-c", INSTALLED], limit).splitlines()[-1])
        needed = chosen(self.manifest["wheels"], there, f"cp{sys.version_info[0]}{sys.version_info[1]}")
        if needed:
            install = ["install", "--quiet", "--no-index", "--no-deps", "--no-compile", "--ignore-installed"]
            files = [str(self.work / "wheels" / wheel["file"]) for wheel in needed]
            self.call([self.python, "-m", "pip", *install, *files], limit)
        return f"{len(needed)} wheels installed: {', '.join(wheel['name'] for wheel in needed)}"

    def look(self, limit: float) -> str:
        """Say what machine this is."""
        self.summary["cpus"] = len(os.sched_getaffinity(0))
        try:
            query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
            said = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
            self.summary["nvidia_smi"] = said.strip().splitlines()[0]
        except (OSError, subprocess.SubprocessError, IndexError):
            self.summary["nvidia_smi"] = None
        found = json.loads(self.call([self.python, "-c", PROBE], limit).splitlines()[-1])
        self.summary |= found
        if self.device == "cuda" and found["device"] == "cpu":
            raise StageError("torch sees no CUDA device; use --device cpu to try the archive without one")
        return f"{found['device']}, torch {found['versions']['torch']}, Python {found['versions']['python']}"

    def unpack_data(self, limit: float) -> str:
        """Lay out the folder that NEUROPRIOR_DATA names."""
        unpack = str(self.code / "gpu" / "unpack.py")
        said = self.call([self.python, unpack, str(HERE), str(self.data)], limit)
        return f"{len(said.strip().splitlines())} files"

    def run_tests(self, limit: float) -> str:
        """Run tests/gpu."""
        # Only the plugins that the project's own settings name: the machine may hold others. Its libraries are of
        # other versions than the project is developed with, so their warnings are shown and do not fail a test.
        self.environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        plugins = ["-p", "pytest_timeout", "-p", "jaxtyping._pytest_plugin", "-p", "no:cacheprovider"]
        command = [self.python, "-m", "pytest", "tests/gpu", *plugins, "-W", "default", "-ra", "--durations=10"]
        said = self.call(command, limit, "tests.log", self.code)
        return said.strip().splitlines()[-1].strip("= ")

    def run_benchmark(self, name: str, limit: float) -> str:
        """Run one benchmark and add what it found to benchmarks.json and benchmarks.md."""
        page, values = self.work / f"{name}.md", self.work / f"{name}.json"
        command = [self.python, "-m", "benchmarks", "--out", str(page), "--json", str(values), name]
        for old in (page, values):
            old.unlink(missing_ok=True)
        try:
            self.call(command, limit, cwd=self.code)
        finally:  # a benchmark that misses a bound fails, and its numbers are what one wants to see then
            self.gather(name, page, values)
        return "done"

    def gather(self, name: str, page: Path, values: Path) -> None:
        """Add one benchmark's page and numbers to those of the others."""
        if page.exists():
            with (self.results / "benchmarks.md").open("a") as out:
                out.write(page.read_text().rstrip() + "\n\n")
        gathered = self.results / "benchmarks.json"
        before = json.loads(gathered.read_text()) if gathered.exists() else {}
        with suppress(OSError, ValueError):  # killed before, or while, it wrote them
            gathered.write_text(json.dumps(before | {name: json.loads(values.read_text())}, indent=1) + "\n")

    def run_command(self, command: list[str], limit: float) -> str:
        """Run what the person asked for, in the code's folder."""
        said = self.call(command, limit, "command.log", self.code)
        return (said.strip().splitlines() or ["it said nothing"])[-1].strip()


def chosen(wheels: list[dict[str, Any]], there: dict[str, str], interpreter: str) -> list[dict[str, Any]]:
    """Return the wheels for this interpreter whose package is missing or too old, and what those pin exactly."""
    fit = {w["name"]: w for w in wheels if {interpreter, "py3"} & set(w["interpreters"])}
    missing = {n for n, w in fit.items() if n not in there or numbers(there[n]) < numbers(w["least"])}
    pinned = {n for name in missing for n, version in fit[name]["pins"].items() if there.get(n) != version}
    return [wheel for name, wheel in fit.items() if name in missing | pinned]


def numbers(version: str) -> tuple[int, ...]:
    """Return a version's release as numbers that compare."""
    release = re.match(r"[0-9.]*", version)
    found = [int(n) for n in re.findall(r"\d+", release[0] if release else "")]
    return tuple(found + [0] * (4 - len(found)))


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="where what came out is left")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all of it; what is not done by then is stopped")
    parser.add_argument("--work", type=Path, default=HERE / "work", help="where all else is written")
    parser.add_argument("--benchmarks", nargs="*", default=BENCHMARKS, metavar="NAME")
    parser.add_argument("command", nargs="*", help="after --: run this, in place of tests and benchmarks")
    arguments = parser.parse_args()
    try:
        for folder in (arguments.results, arguments.work):
            folder.mkdir(parents=True, exist_ok=True)
        for name in ("summary.json", "run.log", "tests.log", "command.log", "benchmarks.json", "benchmarks.md"):
            (arguments.results / name).unlink(missing_ok=True)
    except OSError as error:
        sys.exit(f"run: {error}")

    machine = Machine(arguments.results.resolve(), arguments.work.resolve(), arguments.device, arguments.minutes)
    machine.stage("archive", machine.check_archive, 60)
    machine.stage("code", machine.unpack_code, 60)
    machine.stage("environment", machine.make_environment, 180)
    machine.stage("machine", machine.look, 90)
    machine.stage("data", machine.unpack_data, 180)
    if arguments.command:
        machine.stage("command", lambda limit: machine.run_command(arguments.command, limit), float("inf"))
    else:
        machine.stage("tests", machine.run_tests, 240)
        for name in arguments.benchmarks:
            machine.stage(f"benchmark {name}", lambda limit, name=name: machine.run_benchmark(name, limit), 240)
    sys.exit(0 if machine.summary["ok"] else 1)


if __name__ == "__main__":
    main()
