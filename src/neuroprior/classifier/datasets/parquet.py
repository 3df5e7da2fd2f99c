"""The Hugging Face image layout: a parquet file of encoded images and labels."""

import io
import os
from pathlib import Path

import numpy as np

from neuroprior.classifier.datasets.labelled import CIFAR10, Color, LabelledImages, mode_of
from neuroprior.recordings.pictures import Mode, eight_bit
from neuroprior.types import InputError

__all__ = ["check_parquet_images", "load_parquet_images"]

_IMAGE_COLUMNS = ("img", "image")
_LABEL_COLUMNS = ("label", "fine_label")


def load_parquet_images(path: str | os.PathLike[str], color: Color = "gray", n: int | None = None) -> LabelledImages:
    """Read one file of the Hugging Face image layout: `img: {bytes, path}`, and `label` or `fine_label`.

    `gray` is ITU-R 601 luma, L = 0.299 R + 0.587 G + 0.114 B, rounded; gray files stay as they are. `rgb` of a gray
    file repeats it. `n`: only the first so many images. Raises `InputError` for a missing or damaged file, missing
    columns, images that cannot be decoded or are not all of one size.
    """
    file, mode = Path(path), mode_of(color)
    encoded, numbers, classes = _columns(file, n)
    pixels = _decoded(file, encoded, mode)
    return LabelledImages(pixels, numbers, classes)


def check_parquet_images(path: str | os.PathLike[str], n: int | None = None) -> None:
    """Raise `InputError` as `load_parquet_images` would, from the images' headers alone: seconds for 50,000 images."""
    from PIL import Image, UnidentifiedImageError

    file = Path(path)
    encoded, _, _ = _columns(file, n)
    size: tuple[int, int] | None = None
    for row, content in enumerate(encoded):
        try:
            with Image.open(io.BytesIO(content or b"")) as image:
                size = size or image.size
                _same_size(file, row, image.size[::-1], size[::-1])
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise InputError(_undecodable(file, row, error)) from None


def count_parquet_images(path: str | os.PathLike[str]) -> int:
    """Return how many images a file of the layout holds, from its footer alone."""
    import pyarrow.parquet as pq

    return int(pq.read_metadata(path).num_rows)


def _columns(file: Path, n: int | None) -> tuple[list[bytes | None], np.ndarray, tuple[str, ...]]:
    """Return the first `n` encoded images and their labels, and the classes of the whole file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not file.is_file():
        raise InputError(f"{file}: no such file; download the data set in the Hugging Face parquet layout")
    try:
        table = pq.read_table(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(
            f"{file}: not a parquet file ({str(error).splitlines()[0][:120]}); download it again"
        ) from None
    image_column = _found(file, table.column_names, _IMAGE_COLUMNS)
    label_column = _found(file, table.column_names, _LABEL_COLUMNS)
    column = table.column(image_column)
    if not (pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0):
        raise InputError(f"{file}: column {image_column!r} is {column.type}; it must be a struct with a field 'bytes'")
    labels = table.column(label_column)
    if not pa.types.is_integer(labels.type) or labels.null_count:
        raise InputError(f"{file}: column {label_column!r} is {labels.type}; labels must be integers without gaps")
    numbers = labels.to_numpy().astype(np.int64)
    # Of the whole file: the first n images of a sorted file would lack classes.
    n_classes = max(int(numbers.max(initial=0)) + 1, {"label": 10, "fine_label": 100}[label_column])
    classes = CIFAR10 if n_classes == 10 and label_column == "label" else tuple(str(k) for k in range(n_classes))
    return pa.compute.struct_field(column.slice(0, n), "bytes").to_pylist(), numbers[:n], classes


def _same_size(file: Path, row: int, size: tuple[int, ...], first: tuple[int, ...]) -> None:
    if size != first:
        raise InputError(
            f"{file}: image in row {row} is {size[0]}x{size[1]}, the first is {first[0]}x{first[1]}; "
            "all must be of one size"
        )


def _undecodable(file: Path, row: int, error: Exception) -> str:
    return f"{file}: image in row {row} cannot be decoded ({error}); download it again"


def _found(file: Path, columns: list[str], wanted: tuple[str, ...]) -> str:
    for name in wanted:
        if name in columns:
            return name
    raise InputError(f"{file}: no column {' or '.join(map(repr, wanted))}; it has {', '.join(columns) or 'none'}")


def _decoded(file: Path, encoded: list[bytes | None], mode: Mode) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    if not encoded:
        raise InputError(f"{file}: holds no images; download it again")
    pixels: np.ndarray | None = None
    for row, content in enumerate(encoded):
        try:
            with Image.open(io.BytesIO(content or b"")) as image:
                decoded = np.asarray(eight_bit(image, mode))
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            raise InputError(_undecodable(file, row, error)) from None
        if pixels is None:
            pixels = np.empty((len(encoded), *decoded.shape), dtype=np.uint8)
        _same_size(file, row, decoded.shape[:2], pixels.shape[1:3])
        pixels[row] = decoded
    assert pixels is not None
    return pixels[:, None] if mode == "L" else np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
