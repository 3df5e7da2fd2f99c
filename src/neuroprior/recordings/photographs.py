"""A folder of photographs -> stimuli of the paper's size."""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neuroprior.recordings.archive import write_archive
from neuroprior.recordings.pictures import eight_bit, find_pictures, reason
from neuroprior.types import InputError, Shaped, Stimuli, UInt8

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["PreparedStimuli", "prepare_stimuli"]

_DISPLAY = 4  # the screen's pixels to one of the model's, each way: 256x144 shown, 64x36 given to the model
_TOO_FEW = "{root}: n_oracle is {n_oracle} of {held} photographs, which leaves none to train on; ask for fewer"


@dataclass(frozen=True, slots=True, eq=False)
class PreparedStimuli:
    """What `prepare_stimuli` wrote, and what became of the files that it looked at."""

    stimuli: Stimuli
    tier: Shaped[np.ndarray, " image"]
    """"oracle" (to be shown repeatedly) or "train", one an image."""
    n_files: int
    """Picture files in the folder."""
    n_duplicates: int
    """Files left out because an image taken before came out the same to the last pixel."""


def prepare_stimuli(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    n: int | None = None,
    n_oracle: int = 100,
    seed: int = 0,
    size: tuple[int, int] = (36, 64),
    progress: Callable[[int, int], None] | None = None,
) -> PreparedStimuli:
    """Photographs -> gray (ITU-R 601 luma) -> centre crop -> `4 size`, as shown -> `size` (height, width), to `out`.

    `folder` is searched with the folders inside it, sorted by path. `n`: so many images, drawn at random; `n_oracle` of
    the images are drawn to be of tier 'oracle', the others are 'train'; both draws follow `seed`. An image whose crop
    is smaller than `4 size` goes to `size` in one step, so one that has `size` already keeps its pixels. Images that
    come out the same as one before are left out and counted. A camera's rotation mark is heeded; 16 bits, palettes and
    transparency as in `eight_bit`. `progress` is told files done and files in all.

    `out` is what `load_stimuli` reads: `images`, `names` (path in the folder without suffix, or with it where two
    would be alike), `tier`. It appears whole or not at all; same files, arguments and Pillow: same bytes.
    Raises `InputError` naming the file that cannot be decoded or is smaller than `size`, and for too few photographs.
    """
    root, target = Path(folder), Path(out)
    for what, value, least in (("n", n, 1), ("n_oracle", n_oracle, 0), ("seed", seed, 0), ("size", min(size), 1)):
        if value is not None and value < least:
            raise InputError(f"stimuli from {root}: {what} is {value}; it must be {least} or more")
    if target.is_dir():
        raise InputError(f"{target}: a folder; name the .npz file to write")
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give one that holds photographs")
    files = find_pictures(root)
    if not files:
        raise InputError(f"{root}: holds no photographs; give a folder of .png, .jpg, .bmp, .tif or .webp files")
    if n is not None and n > len(files):
        raise InputError(f"{root}: holds {len(files)} photographs, but n is {n}; ask for fewer")
    if n_oracle >= (n or len(files)):  # said before an hour of decoding, and again where copies leave too few
        raise InputError(_TOO_FEW.format(root=root, n_oracle=n_oracle, held=n or len(files)))
    # Each draw its own stream: asking for another n_oracle leaves the photographs as they are
    drawing, sorting = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(2))
    order = np.arange(len(files)) if n is None else drawing.permutation(len(files))
    taken: dict[bytes, int] = {}
    n_duplicates = 0
    for done, row in enumerate(order.tolist(), start=1):
        content = _prepared(files[row], size).tobytes()
        if content in taken:
            n_duplicates += 1
        else:
            taken[content] = row
        if progress is not None:
            progress(done if n is None else len(taken), n or len(files))
        if len(taken) == n:
            break
    if n is not None and len(taken) < n:
        raise InputError(
            f"{root}: {len(taken)} different photographs ({n_duplicates} more are copies), but n is {n}; ask for fewer"
        )
    if n_oracle >= len(taken):
        raise InputError(_TOO_FEW.format(root=root, n_oracle=n_oracle, held=len(taken)))
    rows = sorted(taken, key=taken.__getitem__)
    pixels = np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(len(rows), *size)
    names = _names(root, files)
    stimuli = Stimuli(np.array([names[taken[content]] for content in rows], dtype=np.str_), pixels)
    tier = np.where(np.isin(np.arange(len(rows)), sorting.permutation(len(rows))[:n_oracle]), "oracle", "train")
    write_archive(target, {"images": stimuli.pixels, "names": stimuli.ids, "tier": tier})
    return PreparedStimuli(stimuli, tier, len(files), n_duplicates)


def _prepared(file: Path, size: tuple[int, int]) -> UInt8[np.ndarray, "height width"]:
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as opened:
            ImageOps.exif_transpose(opened, in_place=True)
            gray = eight_bit(opened, "L")
    except Exception as error:  # a damaged file raises whatever its decoder was at
        raise InputError(f"{file}: cannot be decoded ({reason(error)}); replace or remove it") from None
    if gray.height < size[0] or gray.width < size[1]:
        raise InputError(
            f"{file}: {gray.width}x{gray.height} pixels (width x height), smaller than {size[1]}x{size[0]}; "
            "replace or remove it"
        )
    image = _centre(gray, size)
    shown = (_DISPLAY * size[1], _DISPLAY * size[0])
    if image.width >= shown[0] and image.height >= shown[1]:
        # Lanczos for the step whose factor is any number: Pillow's box takes a pixel whole or not at all, so edges
        # would come out ragged. Box for the step of exactly four, "downsampled by a factor of four": the mean of 4x4.
        return np.asarray(image.resize(shown, Image.Resampling.LANCZOS).reduce(_DISPLAY))
    return np.asarray(image.resize(size[::-1], Image.Resampling.LANCZOS))


def _centre(image: "Image.Image", size: tuple[int, int]) -> "Image.Image":
    """The largest part in the middle that has the shape of `size` (16:9), to whole pixels."""
    width = min(image.width, image.height * size[1] // size[0])
    height = min(image.height, image.width * size[0] // size[1])
    left, upper = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, upper, left + width, upper + height))


def _names(root: Path, files: list[Path]) -> list[str]:
    """Paths without suffix; a path keeps it where the name without would not be its own."""
    whole = [file.relative_to(root).as_posix() for file in files]
    bare = [file.relative_to(root).with_suffix("").as_posix() for file in files]
    count = Counter(bare) + Counter(whole)
    return [short if count[short] == 1 else long for short, long in zip(bare, whole, strict=True)]
