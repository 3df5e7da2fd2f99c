"""Say whether there is a CUDA device, and check the project on it: the GPU tests, then the benchmarks.

    python gpu/check.py [--out build/gpu-check]

Where there is none, that is said, and nothing is checked: exit code 0, since nothing is wrong. Else 1 where something
failed. The benchmarks' page and numbers are left in `--out`.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import torch
from run import BENCHMARKS

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/gpu-check"))
    out = parser.parse_args().out.resolve()
    if not torch.cuda.is_available():
        print(f"no CUDA device: nothing checked (torch {torch.__version__})")
        return
    print(f"CUDA device: {torch.cuda.get_device_name()} (torch {torch.__version__})", flush=True)
    out.mkdir(parents=True, exist_ok=True)
    commands = {"tests/gpu": ["pytest", "tests/gpu"]}
    for name in BENCHMARKS:
        page, values = str(out / f"{name}.md"), str(out / f"{name}.json")
        commands[name] = ["benchmarks", "--out", page, "--json", values, name]
    environment = os.environ | {"NEUROPRIOR_TEST_DEVICE": "cuda"}
    failed = [
        name
        for name, command in commands.items()
        if subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=environment).returncode
    ]
    sys.exit(f"check: failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
