"""Run all benchmarks, or those named, one after another; say what came out on one page.

    python -m benchmarks [NAME ...] [--out docs/results/benchmarks.md] [--json FILE]

Each runs as its own command (`python benchmarks/NAME.py --json`); the page names machine and commit, and keeps what it
says of benchmarks that are not run. Exit 1 where a bound was missed or a benchmark failed; the others run all the same.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from neuroprior.experiment.provenance import device_name, source_commit

HERE = Path(__file__).parent
SHARED = {"__main__", "__init__", "digits", "measured"}
NAMES = sorted(file.stem for file in HERE.glob("*.py") if file.stem not in SHARED)


def run(name: str) -> dict[str, Any]:
    """Run one; return its object, or what was said at the end where there is none."""
    command = [sys.executable, str(HERE / f"{name}.py"), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    lines = done.stdout.splitlines() or [""]
    print("\n".join(lines[:-1] if lines[-1].startswith("{") else lines), flush=True)
    try:
        return dict(json.loads(lines[-1]))
    except ValueError:
        return {"name": name, "failed": f"exit {done.returncode}: {lines[-1]}"}


def is_good(check: dict[str, Any]) -> bool:
    """Whether a bound was kept."""
    value, bound = check["value"], check["bound"]
    return bool(value >= bound if check["direction"] == "at least" else value <= bound)


def section(one: dict[str, Any], origin: dict[str, str]) -> str:
    """Return what came out of one, as Markdown."""
    name = one["name"]
    about = next(iter((HERE / f"{name}.py").read_text().split('"""')[1:]), "").splitlines()[0]
    lines = [f"## {name}", "", about, "", f"`python benchmarks/{name}.py`"]
    if "failed" in one:
        return "\n".join([*lines, "", f"**Failed**: {one['failed']}"]) + "\n"
    lines[-1] += f" on {one['device']}"
    lines += ["", "| what | measured | bound | |", "| --- | --- | --- | --- |"]
    for check in one["checks"]:
        kept = "kept" if is_good(check) else "**missed**"
        lines.append(f"| {check['what']} | {check['value']:.3g} | {check['direction']} {check['bound']:g} | {kept} |")
    lines += ["", *(f"- {key}: {value}" for key, value in one["details"].items())]
    lines += ["", f"<small>{', '.join(f'{key} {value}' for key, value in origin.items())}</small>"]
    return "\n".join(lines) + "\n"


def page(found: Sequence[dict[str, Any]], origin: dict[str, str], before: str) -> str:
    """Return the page with these benchmarks' sections new, and those of others as they stood in `before`."""
    sections = {text.splitlines()[0]: f"## {text}" for text in before.split("## ")[1:]}
    sections |= {one["name"]: section(one, origin) for one in found}
    head = "# Benchmarks\n\nWritten by `python -m benchmarks`; peer and ours in turn, in one process, medians.\n"
    return "\n".join([head, *(f"{sections[name].rstrip()}\n" for name in sorted(sections))])


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all where none is given")
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "results" / "benchmarks.md")
    parser.add_argument("--json", type=Path, help="also write all objects to this file")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(NAMES):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(NAMES)}")

    found = [run(name) for name in arguments.names or NAMES]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    origin = {
        "commit": source_commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "processor": f"{device_name('cpu')}, {cores} cores",
        "GPU": device_name("cuda") if torch.cuda.is_available() else "none",
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}",
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    before = arguments.out.read_text() if arguments.out.exists() else ""
    arguments.out.write_text(page(found, origin, before))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({**origin, "benchmarks": found}, indent=2) + "\n")
    bad = [one["name"] for one in found if "failed" in one or not all(map(is_good, one["checks"]))]
    print(f"{len(found) - len(bad)} of {len(found)} benchmarks kept their bounds; page: {arguments.out}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
