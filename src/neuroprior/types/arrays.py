"""What the values share: shapes in annotations, the one error for people, image ids, arrays that stay as they are."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Float32, Float64, Int64, Shaped, UInt8
else:
    try:
        from jaxtyping import Bool, Float, Float32, Float64, Int64, Shaped, UInt8
    except ImportError:  # the regulariser must work with torch, numpy and safetensors alone: shapes go unchecked then

        class _Unchecked:
            def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
                return item[0]

        Bool = Float = Float32 = Float64 = Int64 = Shaped = UInt8 = _Unchecked

__all__ = [
    "Bool",
    "Float",
    "Float32",
    "Float64",
    "InputError",
    "Int64",
    "Shaped",
    "UInt8",
    "checked_ids",
    "freeze",
    "rows_of",
]


class InputError(ValueError):
    """What a person gave cannot be used. The message is one line: what is wrong, where, and how to mend it."""


def checked_ids(ids: np.ndarray, what: str) -> None:
    """Raise `InputError` unless these are unique strings; `what` begins the message."""
    if not isinstance(ids, np.ndarray):
        raise InputError(
            f"{what}: image ids must be a NumPy array of strings, got a {type(ids).__name__}; np.array(ids)"
        )
    if ids.ndim != 1 or ids.dtype.kind != "U":
        raise InputError(f"{what}: image ids must be a one-axis array of strings, got {ids.dtype} {ids.shape}")
    if len(np.unique(ids)) != len(ids):
        values, counts = np.unique(ids, return_counts=True)
        raise InputError(f"{what}: image id {str(values[counts > 1][0])!r} stands more than once; ids must be unique")


def rows_of(have: np.ndarray, wanted: Sequence[str] | np.ndarray, what: str) -> np.ndarray:
    """Return where in `have` each of `wanted` stands. Raises `InputError`, begun by `what`, when one is not there."""
    if isinstance(wanted, str):  # one id, not its letters
        wanted = [wanted]
    row = {name: i for i, name in enumerate(have.tolist())}
    missing = [name for name in wanted if name not in row]
    if missing:
        raise InputError(
            f"{what}: {len(missing)} of {len(wanted)} images are not among these {len(have)} (first: "
            f"{str(missing[0])!r}); pass the stimuli that the target was made from"
        )
    return np.array([row[name] for name in wanted], dtype=np.int64)


def freeze(value: object, *names: str) -> None:
    """Hold the named arrays as read-only views: frozen here, while the caller's own array stays as it was."""
    for name in names:
        array = getattr(value, name)
        if array is not None:
            view = array.view()
            view.flags.writeable = False
            object.__setattr__(value, name, view)
