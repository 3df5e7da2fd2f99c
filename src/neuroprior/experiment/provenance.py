"""Where a run's numbers come from: versions, commit, machine, digests, seeds, command."""

import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from neuroprior.experiment.recipe import Recipe
from neuroprior.experiment.store import code_version


def provenance(recipe: Recipe, command: Sequence[str], digests: Mapping[str, str]) -> dict[str, Any]:
    """Return all that is needed to know what ran; JSON throughout."""
    return {
        "command": " ".join(command),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": source_commit(),
        "versions": code_version(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device_name(recipe.compute.device),
        "compute": recipe.compute.model_dump(mode="json"),
        "seeds": list(recipe.seeds),
        "data": dict(sorted(digests.items())),
    }


def source_commit() -> str:
    """Return the commit the package's source lies in, with a note where files differ from it; else say so."""

    def git(*arguments: str) -> str:
        folder = Path(__file__).parent
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, timeout=20, check=True)
        return done.stdout.decode(errors="replace").strip()

    try:
        commit = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return "not in a git checkout"
    return f"{commit} with uncommitted changes" if changed else commit


def device_name(device: str) -> str:
    """Return the GPU's name, or the processor's."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
