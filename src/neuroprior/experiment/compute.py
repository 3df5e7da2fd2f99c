"""Device, precision, threads: `auto` is settled once a run, by measuring, and written down."""

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn import functional as F

from neuroprior.classifier import ResNet
from neuroprior.experiment.recipe import Recipe
from neuroprior.experiment.sections import ComputeSection, NetworkSection
from neuroprior.types import InputError, Precision

_GAIN = 1.15  # bfloat16 must be at least this much faster: less is within this measurement's noise
_REPEATS = 5
_TRIAL_IMAGES = 32


def resolve_compute(recipe: Recipe) -> ComputeSection:
    """Return the recipe's compute section without `auto`. Raises `InputError` for a CUDA device that is not there."""
    wanted = recipe.compute
    device = wanted.device if wanted.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("compute.device is cuda, but torch sees no CUDA device; set compute.device=cpu")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    chains = len(recipe.conditions) * len(recipe.seeds)
    # Small convolutions scale badly over threads: two networks on one core each beat one network on two.
    at_once = torch.cuda.device_count() if device == "cuda" else max(1, min(cores, chains))
    workers = wanted.workers if wanted.workers != "auto" else at_once
    threads = wanted.threads if wanted.threads != "auto" else max(1, cores // workers)
    precision = wanted.precision
    if precision == "auto":
        precision = faster_precision(recipe.network, min(recipe.training.batch_size, _TRIAL_IMAGES), device, threads)
    settled = {"device": device, "precision": precision, "threads": threads, "workers": workers}
    return wanted.model_copy(update=settled)


def faster_precision(network: NetworkSection, batch_size: int, device: str, threads: int) -> Precision:
    """Time a training step of the recipe's network in both precisions, in turn, and return the faster one's name."""
    with torch_settled(threads):
        model = ResNet(network.architecture, width=network.width)
        model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = torch.rand(batch_size, 1, 32, 32, device=device)
        labels = torch.zeros(batch_size, dtype=torch.long, device=device)

        def step(precision: Precision) -> float:
            start = time.perf_counter()
            with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
                loss = F.cross_entropy(model(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            float(loss.detach())  # waits for a GPU to finish
            return time.perf_counter() - start

        times: dict[Precision, list[float]] = {"float32": [], "bfloat16": []}
        for repeat in range(1 + _REPEATS):
            for precision, taken in times.items():
                seconds = step(precision)
                if repeat:  # the first one pays for caches and kernels
                    taken.append(seconds)
        gain = statistics.median(times["float32"]) / statistics.median(times["bfloat16"])
        return "bfloat16" if gain >= _GAIN else "float32"


@contextmanager
def torch_settled(threads: int) -> Iterator[None]:
    """So many threads, and on a GPU the same bytes every time: no kernels chosen by a race, no float32 cut to TF32."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = torch.get_num_threads(), cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    torch.set_num_threads(threads)
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = True, False, False, False
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before[1:]
