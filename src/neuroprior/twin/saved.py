"""Twins to one file and back: weights as safetensors, all else as JSON in its header; nothing in it is executed."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from neuroprior.files import appearing_whole, disk_fault
from neuroprior.twin.core import Core
from neuroprior.twin.described import (
    CoreRecord,
    Record,
    TwinRecord,
    built,
    built_core,
    check_sizes,
    described,
    described_core,
)
from neuroprior.twin.model import Twin
from neuroprior.types import InputError
from neuroprior.weights import first_line, read_weights

__all__ = ["is_saved", "load_twins", "replacing", "save_twins"]

_FORMAT, _VERSION = "neuroprior.Twins", 1
_PER_NEURON = ("snr", "accuracy")  # of a Twin: kept as tensors, where they are known

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class _Contents(Record):
    """The JSON of a file's header."""

    cores: tuple[CoreRecord, ...]
    twins: tuple[TwinRecord, ...]


_READOUTS = ("gaussian", "factorised")  # the kinds that a record can be, of which pydantic chooses one
_CONTENTS, _TWIN = TypeAdapter(_Contents), TypeAdapter(TwinRecord)


def save_twins(twins: Sequence[Twin], path: str | os.PathLike[str]) -> None:
    """Write twins to one safetensors file; a core that several of them share is kept once.

    The header holds, as JSON, how each model is built, and all of a `Twin` that is no array; the tensors are its
    weights, buffers, `snr` and `accuracy`. What is read back predicts the same to the last bit, and the same twins
    give the same bytes. The file appears whole or not at all: after an error, one that was there before is as it was.
    Raises `InputError` for no twins, two of one name, values that are not finite, a model with parts that the format
    has no place for (a layer of one's own), and a disk that is full or cannot be written.
    """
    names = [twin.name for twin in twins]
    if not names:
        raise InputError(f"{path}: no twins to save; give one or more")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{path}: two twins are called {twice!r}; give each a name of its own")
    cores = list({id(twin.model.core): twin.model.core for twin in twins}.values())
    first = {id(twin.model.core): twin for twin in reversed(twins)}
    said_of = [f"twin {first[id(core)].name}: core" for core in cores]
    records = [described_core(core, where) for core, where in zip(cores, said_of, strict=True)]
    fresh = [built_core(record, where) for record, where in zip(records, said_of, strict=True)]
    contents = _Contents(tuple(records), tuple(_described_twin(twin, cores, records, fresh) for twin in twins))
    tensors: dict[str, torch.Tensor] = {}
    for k, core in enumerate(cores):
        tensors |= _prefixed(f"cores.{k}", core.state_dict())
    for k, twin in enumerate(twins):
        own = {name: value for name, value in twin.model.state_dict().items() if not name.startswith("core.")}
        tensors |= _prefixed(f"twins.{k}", own)
        for name in _PER_NEURON:
            if (values := getattr(twin, name)) is not None:
                tensors[f"twins.{k}.{name}"] = torch.from_numpy(np.array(values))
    _check_finite(tensors, path)
    said = json.dumps(asdict(contents), allow_nan=False)
    header = {"format": f"{_FORMAT}/{_VERSION}", "twins": said, "sha256": _sha256(said, tensors)}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata=header)
        _order_header(temporary)
        temporary.chmod(0o644)  # the library makes files that only their owner can read


def is_saved(path: str | os.PathLike[str]) -> bool:
    """Whether `save_twins` wrote this file, in this or a newer version."""
    return _header(path).get("format", "").partition("/")[0] == _FORMAT


def load_twins(path: str | os.PathLike[str]) -> tuple[Twin, ...]:
    """Read what `save_twins` wrote; twins that shared a core share one again.

    Raises `InputError` for a file that is missing, damaged, of a newer version or of something else, and for weights
    that do not fit the models that its header describes.
    """
    file = Path(path)
    header = _checked_header(file)
    tensors = {name: value.clone() for name, value in read_weights(file).items()}  # the file may change: not mapped
    with _wrong_values_said(f"{file}: "):
        contents = _CONTENTS.validate_json(header.get("twins", ""), strict=True)
    if not contents.twins:
        raise InputError(f"{file}: the header names no twins; save them again with this version")
    cores = [built_core(record, f"{file}: cores[{k}]") for k, record in enumerate(contents.cores)]
    twins = [_built_twin(k, contents, cores, tensors, file) for k in range(len(contents.twins))]
    for k, core in enumerate(cores):
        _fill(core, _part(tensors, f"cores.{k}."), f"{file}: cores.{k}")
    known = {f"cores.{k}.{name}" for k, core in enumerate(cores) for name in core.state_dict()}
    known |= {f"twins.{k}.{name}" for k, twin in enumerate(twins) for name in (*twin.model.state_dict(), *_PER_NEURON)}
    if strange := sorted(set(tensors) - known):
        raise InputError(f"{file}: {strange[0]} belongs to no twin of the header; save the twins again")
    if header.get("sha256") != _sha256(header["twins"], tensors):
        raise InputError(f"{file}: damaged (its SHA-256 is not what the header says); copy it again")
    for twin in twins:
        twin.model.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload] # missing from torch's stub
    return tuple(twins)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a name to write to; `path` appears whole or not at all. Raises `InputError` saying what ails a disk."""
    file = Path(path)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with appearing_whole(file) as temporary:
            yield temporary
    except (OSError, SafetensorError) as error:
        fault = disk_fault(error, file.parent)
        raise InputError(f"{file}: {fault or f'cannot be written ({first_line(error)}); name another file'}") from None


def _described_twin(
    twin: Twin, cores: Sequence[Core], records: Sequence[CoreRecord], fresh: Sequence[Core]
) -> TwinRecord:
    """Say what a twin is, and make sure that its model can be built from that (`fresh`: the cores that were)."""
    where = f"twin {twin.name}"
    number = next(i for i, core in enumerate(cores) if core is twin.model.core)
    plain = {field.name: getattr(twin, field.name) for field in fields(TwinRecord) if field.name != "model"}
    model = described(twin.model, number, where)
    with _wrong_values_said(f"{where}: "):
        record = _TWIN.validate_python({"model": model, **plain})
    check_sizes(records[number], record, where)
    _check_fit(built(model, fresh[number], where), twin.model.state_dict(), where)
    return record


def _built_twin(k: int, contents: _Contents, cores: Sequence[Core], tensors: Weights, file: Path) -> Twin:
    """Build twin `k` of the file, filled but for its core."""
    record, where = contents.twins[k], f"{file}: twins[{k}]"
    if record.model.core >= len(cores):
        raise InputError(f"{where}.model.core is {record.model.core}, of {len(cores)} cores; save the twins again")
    check_sizes(contents.cores[record.model.core], record, where)
    model = built(record.model, cores[record.model.core], f"{where}.model")
    given = _part(tensors, f"twins.{k}.")
    per_neuron: dict[str, Any] = {name: given.pop(name).numpy() for name in _PER_NEURON if name in given}
    for name, values in per_neuron.items():
        n = record.n_neurons
        if values.shape != (n,) or values.dtype != np.float32:
            raise InputError(f"{where}: {name} is {values.shape} {values.dtype}, not ({n},) float32; save it again")
    _fill(model, given, f"{file}: twins.{k}", without="core.")
    plain = {field.name: getattr(record, field.name) for field in fields(record) if field.name != "model"}
    return Twin(model=model, **plain, **per_neuron)


@contextmanager
def _wrong_values_said(where: str) -> Iterator[None]:
    """Raise what pydantic finds wrong as an `InputError`: the first fault, by the path and the value of its field."""
    try:
        yield
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise InputError(where + _fault(fault["type"], fault["loc"], fault["input"], fault["msg"])) from None


def _fault(kind: str, loc: tuple[str | int, ...], value: Any, message: str) -> str:
    """Say one fault on one line; the kind of readout, which pydantic puts into the path, is no part of it."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc if part not in _READOUTS]
    path = " ".join("".join(parts).removeprefix(".").split())
    wanted = message.removeprefix("Input should be ")
    match kind:
        case "json_invalid":
            return "damaged (its header is no JSON); copy it again, or save the twins again"
        case "unexpected_keyword_argument":
            return f"{path} is not known to this version; upgrade neuroprior"
        case "missing" if isinstance(loc[-1], str):
            return f"{path} is missing from the header; save the twins again"
        case "missing":
            path, wanted = path.rpartition("[")[0], "a list of the right length"
        case "too_long":
            wanted = "a list of the right length"
        case "union_tag_invalid" | "union_tag_not_found":
            path, value, wanted = f"{path}.kind", value.get("kind"), " or ".join(_READOUTS)
        case "float_type" | "float_parsing":
            wanted = "a finite number"
    return f"{path or 'the header'} is {value!r:.60}, not {wanted}; save the twins again"


def _checked_header(file: Path) -> dict[str, str]:
    header = _header(file)
    kind, _, version = header.get("format", "").partition("/")
    if kind == _FORMAT:
        if version != str(_VERSION):
            raise InputError(f"{file}: format {header['format']} is newer than this version; upgrade neuroprior")
        return header
    if kind:
        raise InputError(f"{file}: holds a {kind.rpartition('.')[2]}, not twins; name a file that save_twins wrote")
    if "state" in header:
        raise InputError(f"{file}: the state of a training that is not over, not twins; let it go on to its end")
    read_weights(file)  # says so if it is missing or damaged
    raise InputError(f"{file}: not written by save_twins; a Sensorium checkpoint is read with load_twin")


def _header(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return the metadata of a safetensors file; empty where it is another file, or none."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return {}


def _order_header(file: Path) -> None:
    """Put the metadata in the order of their names: the library's is a hash map's, another one at each saving."""
    with file.open("r+b") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        opened.seek(8)
        opened.write(json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(length))


def _sha256(said: str, tensors: Weights) -> str:
    """Of the header's JSON, and of each tensor's name, type, shape and bytes, by name."""
    sha = hashlib.sha256(said.encode())
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        sha.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        sha.update(value.numpy().tobytes())
    return sha.hexdigest()


def _prefixed(prefix: str, state: Weights) -> dict[str, torch.Tensor]:
    return {
        f"{prefix}.{name}": value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in state.items()
    }


def _part(tensors: Weights, prefix: str) -> dict[str, torch.Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def _check_finite(tensors: Weights, path: str | os.PathLike[str]) -> None:
    for name, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise InputError(f"{path}: {name} would hold values that are not finite; save twins that are whole")


def _check_fit(module: nn.Module, state: Weights, where: str, without: str = "\0") -> None:
    """Raise `InputError` unless `state` has exactly the module's tensors, in shape and type."""
    expected = {name: value for name, value in module.state_dict().items() if not name.startswith(without)}
    for name, value in expected.items():
        if name not in state:
            raise InputError(f"{where}.{name} is missing; the file is incomplete: save the twins again")
        shape, dtype = tuple(state[name].shape), state[name].dtype
        if (shape, dtype) != (tuple(value.shape), value.dtype):
            raise InputError(
                f"{where}.{name} is {shape} {_said(dtype)}, and its model needs {tuple(value.shape)} "
                f"{_said(value.dtype)}; save the twins again"
            )
    if strange := sorted(set(state) - set(expected)):
        raise InputError(f"{where}.{strange[0]} has no place in its model; save twins of this package's parts only")


def _fill(module: nn.Module, state: Weights, where: str, without: str = "\0") -> None:
    _check_fit(module, state, where, without)
    module.load_state_dict(dict(state), strict=False, assign=True)


def _said(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
