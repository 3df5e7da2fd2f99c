"""What benchmarks share: stimuli, timing two forms in turn, the most memory held, spread and checks."""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuroprior.types import Stimuli


def in_turn(forms: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Time each form once a round, in turn, so that a slow moment hits all; the first round is not kept."""
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for round_ in range(repeats + 1):
        for name, form in forms.items():
            start = time.perf_counter()
            form()
            if round_:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Return the ratio of medians."""
    return statistics.median(slow) / statistics.median(fast)


def spread(values: Sequence[float]) -> str:
    """Say median and range."""
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g}, n = {len(values)})"


def matrix_rate(size: int = 1024, dtype: torch.dtype = torch.float32, device: str = "cpu") -> float:
    """Multiply-adds a second of a square matrix product."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

    def product() -> None:
        a @ b
        wait_for(device)

    return size**3 / statistics.median(in_turn({"product": product}, 15)["product"])


def coarse_stimuli(n: int) -> Stimuli:
    """Return so many images of 9 x 16 random squares, 36 x 64 pixels."""
    coarse = np.random.default_rng(0).integers(0, 256, (n, 9, 16)).astype(np.float32)
    pixels = np.kron(coarse, np.ones((1, 4, 4), np.float32)).astype(np.uint8)
    return Stimuli(np.arange(n).astype(str), pixels)


def wait_for(device: str) -> None:
    """Let a GPU finish what it was told to do."""
    if device == "cuda":
        torch.cuda.synchronize()


def time_goes_to(form: Callable[[], Any], device: str = "cpu", most: int = 6) -> str:
    """Where a form's time goes, by operation: of the processor, or of a GPU's kernels."""
    kinds = torch.profiler.ProfilerActivity
    activities = [kinds.CPU, *([kinds.CUDA] if device == "cuda" else [])]
    with torch.profiler.profile(activities=activities) as profile:
        form()
        wait_for(device)
    taken = {
        event.key: event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
        for event in profile.key_averages()
    }
    total = sum(taken.values())
    longest = sorted(taken, key=lambda key: -taken[key])[:most]
    return ", ".join(f"{key[:60]} {100 * taken[key] / total:.0f} %" for key in longest)


def most_held() -> int:
    """Return the most bytes that this process held until now (Linux).

    Not `getrusage`'s: that one begins with what the process that started this one held.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def at_least(what: str, value: float, bound: float) -> dict[str, Any]:
    """Return a check that `value >= bound`."""
    return {"what": what, "value": value, "bound": bound, "direction": "at least"}


def at_most(what: str, value: float, bound: float) -> dict[str, Any]:
    """Return a check that `value <= bound`."""
    return {"what": what, "value": value, "bound": bound, "direction": "at most"}


def show(name: str, checks: list[dict[str, Any]], details: dict[str, Any], as_json: bool, device: str = "cpu") -> None:
    """Print details and checks; with `as_json` the last line is one object."""
    threads = f"cpu, {torch.get_num_threads()} threads"
    device = torch.cuda.get_device_name() if device == "cuda" else threads
    print(f"{name} on {device}, torch {torch.__version__}")
    for key, value in details.items():
        print(f"  {key}: {value}")
    for check in checks:
        value, bound, direction = check["value"], check["bound"], check["direction"]
        good = value >= bound if direction == "at least" else value <= bound
        print(f"  {'ok  ' if good else 'FAIL'} {check['what']}: {value:.3g} ({direction} {bound:g})")
    if as_json:
        print(json.dumps({"name": name, "device": device, "checks": checks, "details": details}))
