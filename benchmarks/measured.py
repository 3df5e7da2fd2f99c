"""What every benchmark shares: timing two forms in turn, the most memory held, saying the spread, printing checks."""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch


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
