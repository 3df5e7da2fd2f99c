"""Networks from elsewhere: code that is imported, or a file or folder that holds the code with the weights."""

import importlib
import json
import os
import re
import sys
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import nn

from neuroprior.networks.folder import network_in
from neuroprior.types import InputError, NetworkCard
from neuroprior.weights import first_line, read_weights

__all__ = ["ScriptedNetwork", "load_network", "load_network_folder", "read_weights"]

# What `torch.export.save` writes for a program of tensors. Compiled code, pickled objects and the formats before
# torch 2.8 (whose weights are pickled) are not among it.
_PROGRAM = re.compile(
    r"models/model\.json|archive_format|archive_version|byteorder|\.data/\w+|extra/.*|data/sample_inputs/model\.pt"
    r"|data/weights/(model_weights_config\.json|weight_\d+)|data/constants/(model_constants_config\.json|tensor_\d+)"
)
_HOW = "give package.module:factory with its state dict as weights, or save it with torch.export.save (.pt2)"


class ScriptedNetwork(nn.Module):
    """A TorchScript network, whose inner layers take no hooks: only its `output` can be read."""

    def __init__(self, scripted: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.scripted = scripted
        self.output = nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return what the scripted network gives."""
        given: torch.Tensor = self.output(self.scripted(images))
        return given


def load_network(spec: str | os.PathLike[str], *, weights: str | os.PathLike[str] | None = None) -> nn.Module:
    """A network in evaluation mode, from `package.module:factory`, a TorchScript file or a `torch.export` program.

    Or from a folder that `neuroprior export` wrote, as `load_network_folder` reads it.
    `factory`: an `nn.Module`, or what gives one when called without arguments; the current directory is importable.
    `weights`: its parameters, as safetensors or a state dict; every name must fit. What a file is, its content says.
    A program keeps the names of its layers; of a TorchScript network only the layer "output" can be read.
    Importing runs code, and so does a network in a file when it is called: load what you trust. Nothing is unpickled.
    Raises `InputError` saying which of these failed.
    """
    file = Path(spec)
    if file.is_file() or file.is_dir():
        if weights is not None:
            raise InputError(f"{file}: holds its own weights; leave out {weights}, or give package.module:factory")
        return _from_file(file) if file.is_file() else load_network_folder(file)[0]
    module, colon, attribute = str(spec).partition(":")
    if not colon or not module or not attribute or os.sep in module:
        raise InputError(f"network {str(spec)!r}: no such file, nor package.module:factory; mend the path or the name")
    network = _imported(module, attribute)
    if weights is not None:
        _fill(network, Path(weights))
    return network.eval()


def load_network_folder(folder: str | os.PathLike[str]) -> tuple[nn.Module, NetworkCard]:
    """A network that `neuroprior export` wrote, in evaluation mode, and its card.

    Takes float images in [0, 1], `(image, channel, height, width)`, to logits. Every file is compared with `SHA256SUMS`
    first; nothing is unpickled. Raises `InputError` for a folder of which a file is missing, edited or refused.
    """
    program, card = network_in(folder)
    return _from_file(program), card


def _fill(network: nn.Module, file: Path) -> None:
    weights = read_weights(file)
    needed = network.state_dict()
    missing = [name for name in needed if name not in weights]
    unexpected = [name for name in weights if name not in needed]
    for names, fault in ((missing, "are missing"), (unexpected, "are not the network's")):
        if names:
            raise InputError(
                f"{file}: {len(names)} of the names {fault} (first: {names[0]!r}); give the weights of this network"
            )
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        said = str(error).splitlines()
        raise InputError(f"{file}: {said[-1].strip()}; give the weights of this network") from None


def _imported(module: str, attribute: str) -> nn.Module:
    with _current_directory_importable():
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise InputError(f"network {module}: importing it failed: {first_line(error)}; install that") from error
            raise InputError(
                f"network {module}:{attribute}: no module {error.name!r}; run where it can be imported, or install it"
            ) from None
        except Exception as error:  # the module's own code may fail with anything
            raise InputError(f"network {module}: importing it failed: {_named(error)}; mend the module") from error
        for name in attribute.split("."):
            if not hasattr(found, name):
                has = ", ".join(sorted(n for n in vars(found) if not n.startswith("_"))[:20])
                raise InputError(f"network {module}:{attribute}: nothing of the name {name!r} in it; there are: {has}")
            found = getattr(found, name)
        if isinstance(found, nn.Module):
            return found
        if not callable(found):
            raise InputError(f"network {module}:{attribute}: a {type(found).__name__}; name a factory or an nn.Module")
        try:
            made = found()
        except Exception as error:
            raise InputError(
                f"network {module}:{attribute}: calling it without arguments failed: {_named(error)}; "
                "name a factory that needs none"
            ) from error
    if not isinstance(made, nn.Module):
        raise InputError(f"network {module}:{attribute}: gives a {type(made).__name__}; it must give an nn.Module")
    return made


@contextmanager
def _current_directory_importable() -> Iterator[None]:
    """As `python -m` does."""
    here = os.getcwd()
    sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(here)


def _from_file(file: Path) -> nn.Module:
    if not zipfile.is_zipfile(file):
        raise InputError(f"{file}: weights alone, a pickle, or no network, and nothing is unpickled; {_HOW}")
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
            if "models/model.json" in names:
                _check_program(file, archive)
            elif "constants.pkl" not in names or not any(name.startswith("code/") for name in names):
                raise InputError(f"{file}: a pickled module, or weights alone, and nothing is unpickled; {_HOW}")
        return _program(file) if "models/model.json" in names else _scripted(file)
    except InputError:
        raise
    except Exception as error:  # either reader fails with whatever a damaged file leads it to
        raise InputError(f"{file}: cannot be loaded ({_named(error)}); save it again with this torch") from error


def _program(file: Path) -> nn.Module:
    with file.open("rb") as opened, warnings.catch_warnings():
        # torch 2.13 uses there what it has deprecated itself
        warnings.filterwarnings("ignore", message=r"`isinstance\(treespec", category=FutureWarning)
        # Not `load(opened).module()`, which is one flat graph: hooks on its layers are never called.
        return torch.export.unflatten(torch.export.load(opened)).eval()


def _scripted(file: Path) -> nn.Module:
    with warnings.catch_warnings():
        # Deprecated in favour of torch.export; files that exist are read nevertheless.
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.load` is deprecated", category=DeprecationWarning)
        return ScriptedNetwork(torch.jit.load(str(file), map_location="cpu")).eval()  # type: ignore[no-untyped-call]


def _check_program(file: Path, archive: zipfile.ZipFile) -> None:
    """Raise `InputError` where `torch.export.load` would unpickle, or run compiled code: it does both unasked."""
    names = archive.namelist()
    top = names[0].partition("/")[0]
    strange = [n for n in names if not (n.startswith(f"{top}/") and _PROGRAM.fullmatch(n[len(top) + 1 :]))]
    refused = f"{file}: holds more than tensors"
    if strange or len(set(names)) != len(names):
        raise InputError(f"{refused} ({(strange or names)[0]}), and nothing is unpickled; {_HOW}")
    _check_expressions(file, json.loads(archive.read(f"{top}/models/model.json")))
    for part in ("weights", "constants"):
        config = json.loads(archive.read(f"{top}/data/{part}/model_{part}_config.json"))["config"]
        for name, entry in config.items():
            if entry["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", entry["path_name"]):
                raise InputError(f"{refused} ({name}), and nothing is unpickled; {_HOW}")
    try:
        inputs = archive.read(f"{top}/data/sample_inputs/model.pt")
        if inputs:
            torch.load(BytesIO(inputs), weights_only=True)
    except Exception:
        raise InputError(f"{refused} (its sample inputs), and nothing is unpickled; {_HOW}") from None


_SYMBOL = re.compile(r"Symbol\('[A-Za-z]\w*'(?:, (?:positive|nonnegative|integer)=(?:True|False))*\)")
_ARITHMETIC = re.compile(r"(?:\d+|\b(?:Integer|Max|Min|FloorDiv|PythonMod|Mod)\b|[-+*/(), ])*")


def _check_expressions(file: Path, value: object, name: str = "") -> None:
    """Raise `InputError` for a size that is no arithmetic: `torch.export.load` evaluates it as Python."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_expressions(file, inner, key)
    elif isinstance(value, list):
        for inner in value:
            _check_expressions(file, inner, name)
    bad = name == "expr_str" and isinstance(value, str) and not _ARITHMETIC.fullmatch(_SYMBOL.sub("1", value))
    if bad or (name == "guards_code" and value):
        raise InputError(f"{file}: holds code in place of a size ({str(value)[:60]!r}), and none is run; {_HOW}")


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
