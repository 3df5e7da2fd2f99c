"""Files of weights: names and tensors, and nothing that runs."""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from neuroprior.types import InputError


def read_weights(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Read names and tensors from a safetensors file or a torch state dict; nothing else is ever unpickled.

    A checkpoint that holds nothing but one state dict (`{"model_state": ...}`) is read as that.
    Raises `InputError` for a file that is missing, damaged, holds anything else, or values that are not finite.
    """
    file = Path(path)
    if not file.is_file():
        folder = file.is_dir()
        raise InputError(f"{file}: {'a folder; name the file in it' if folder else 'no such file; mend its path'}")
    with file.open("rb") as opened:
        # eight bytes of length, then JSON; or cut so short that its name alone says what it was
        is_safetensors = opened.read(9)[8:] == b"{" or file.suffix == ".safetensors"
    loaded = _safetensors(file) if is_safetensors else _state_dict(file)
    if isinstance(loaded, Mapping) and len(loaded) == 1 and isinstance(inner := next(iter(loaded.values())), Mapping):
        loaded = inner
    if not (isinstance(loaded, Mapping) and loaded and all(isinstance(v, torch.Tensor) for v in loaded.values())):
        raise InputError(f"{file}: not a state dict (names to tensors); save model.state_dict() alone")
    for name, value in loaded.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise InputError(f"{file}: {name} holds values that are not finite; take weights that are whole")
    return dict(loaded)


def _safetensors(file: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except SafetensorError as error:
        raise InputError(f"{file}: damaged safetensors ({first_line(error)}); copy it again") from None


def _state_dict(file: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{file}: damaged, or holds more than tensors, and nothing else is ever unpickled; "
            "save model.state_dict() alone"
        ) from None
    except (PermissionError, MemoryError):  # says itself what is wrong
        raise
    except Exception:  # what torch raises depends on the first bytes
        raise InputError(
            f"{file}: no file of weights, or damaged; give a .safetensors file, or what torch.save(model.state_dict()) "
            "wrote, or copy it again"
        ) from None


def first_line(error: BaseException) -> str:
    """Return what an error says first, to be quoted in ours."""
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
