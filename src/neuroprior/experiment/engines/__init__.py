"""Engines: where steps run. `local` in processes here, `ray` on a cluster of several nodes, `slurm` as its jobs."""

import importlib.util
import shutil
from typing import Literal

from neuroprior.experiment.engine import Do, Engine
from neuroprior.experiment.sections import ComputeSection
from neuroprior.experiment.store import Store
from neuroprior.types import InputError

EngineName = Literal["local", "ray", "slurm"]

_LIBRARIES = {"ray": "ray", "slurm": "submitit"}


def check_engine(name: EngineName, *, debug: bool = False) -> None:
    """Raise `InputError` where the engine's library is not installed, or there is no slurm (unless `debug`)."""
    library = _LIBRARIES.get(name)
    if library is not None and importlib.util.find_spec(library) is None:
        raise InputError(
            f"--engine {name}: {library} is not installed; pip install 'neuroprior[cluster]', or use --engine local"
        )
    if name == "slurm" and not debug and shutil.which("sbatch") is None:
        raise InputError(
            "--engine slurm: no slurm on this machine (sbatch is not found); give the command on a login node, or use "
            "--engine local"
        )


def make_engine(name: EngineName, store: Store, do: Do, compute: ComputeSection) -> Engine:
    """Return the engine of that name, as the recipe's settled `compute` has it. Nothing is started yet."""
    assert isinstance(compute.workers, int) and isinstance(compute.threads, int)  # noqa: PT018 - settled
    gpu = compute.device == "cuda"
    match name:
        case "local":
            from neuroprior.experiment.engines.local import LocalEngine

            return LocalEngine(store, do, workers=compute.workers, devices=_devices(gpu), retries=compute.retries)
        case "ray":
            from neuroprior.experiment.engines.on_ray import RayEngine

            return RayEngine(store, do, compute, gpu=gpu)
        case "slurm":
            from neuroprior.experiment.engines.on_slurm import SlurmEngine

            return SlurmEngine(store, do, compute, gpu=gpu)


def _devices(gpu: bool) -> int:
    if not gpu:
        return 0
    import torch

    return torch.cuda.device_count()
