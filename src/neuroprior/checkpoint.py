"""The whole state of a training in one file, so that one that was killed goes on as if nothing had happened."""

import json
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from neuroprior.files import appearing_whole
from neuroprior.types import InputError

_PLAIN = str | int | float | bool | None


class Checkpoint:
    """Keeps a nested state (dicts, lists, tensors, plain values) at `path`, at most every `seconds`.

    safetensors, with the nesting as JSON in its header; written whole or not at all, and never a pickle. The old state
    stays until the new one is complete, so there must be room for two.
    """

    def __init__(self, path: Path, seconds: float | int = 30.0) -> None:
        self.path = path
        self.seconds = seconds
        self._last = time.monotonic()  # not the time of day, which may jump

    def is_due(self) -> bool:
        """Whether it is time to save again."""
        return time.monotonic() - self._last >= self.seconds

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace what was kept by `state`. Raises `OSError` where the disk takes no more; the old state then stays."""
        tensors: dict[str, torch.Tensor] = {}
        nesting = _without_tensors(state, "", tensors)
        with appearing_whole(self.path) as temporary:
            try:
                save_file(tensors, temporary, metadata={"state": json.dumps(nesting)})
            except SafetensorError as error:
                raise _of_the_disk(error, self.path) from None
        self._last = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """Return what was kept, on the CPU; None where nothing was. Raises `InputError` for a damaged file."""
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                nesting = json.loads(file.metadata()["state"])
                names = file.keys()
                state: dict[str, Any] = _with_tensors(nesting, {name: file.get_tensor(name) for name in names})
        except (SafetensorError, ValueError, KeyError, TypeError, OSError) as error:
            raise InputError(f"{self.path}: damaged ({error}); delete it, and the training begins again") from None
        return state


def _of_the_disk(error: SafetensorError, path: Path) -> Exception:
    """Return the library's error about a disk as Python's own, which everyone above knows how to say."""
    number = re.search(r"\(os error (\d+)\)", str(error))
    return error if number is None else OSError(int(number[1]), os.strerror(int(number[1])), str(path))


def _without_tensors(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Return `value` with each tensor moved to `tensors`, and its name there in its place."""
    match value:
        case torch.Tensor():
            tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
            return {"tensor": name}
        case Mapping():
            return {"dict": {key: _without_tensors(part, f"{name}/{key}", tensors) for key, part in value.items()}}
        case list() | tuple():
            return [_without_tensors(part, f"{name}/{k}", tensors) for k, part in enumerate(value)]
        case _ if isinstance(value, _PLAIN):
            return value
    raise TypeError(f"checkpoint: {name} is a {type(value).__name__}, which cannot be kept")


def _with_tensors(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    match value:
        case {"tensor": name}:
            return tensors[name]
        case {"dict": parts}:
            return {key: _with_tensors(part, tensors) for key, part in parts.items()}
        case list():
            return [_with_tensors(part, tensors) for part in value]
    return value
