"""Lossless compression of 8-bit gray images of one size: JPEG-LS prediction, residuals sorted by context, xz.

Each pixel is predicted from its four neighbours above and to the left (median edge detector, Weinberger et al. 2000).
How restless they are, and how wrong the predictions there were, chooses one of 16 streams for the residual (mod 256).
Each stream is then nearly memoryless, which is what xz's literal coder does well, with no context of its own.

Measured on gray CIFAR-10 (60,000 x 32x32), bits a pixel: 6.14 in xz as it is; 5.49 as residuals in xz, 5.44 folded
with lc=4 and pb=0, 5.67 place by place; 5.36 in streams by the neighbours alone; 5.27 as here (38.6 MiB).
"""

import hashlib
import json
import lzma
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

MAGIC = b"NPGRAY1\n"
# The 16-quantiles of the activity over gray CIFAR-10; other photographs lose 0.01 bits a pixel by them.
EDGES = np.array([6, 13, 21, 30, 39, 49, 60, 72, 86, 101, 118, 138, 164, 200, 260], dtype=np.int16)
STREAMS = len(EDGES) + 1
# One stream holds one context, so xz is told to look for none; with a small dictionary it seldom takes noise for a
# repetition (5.278 bits a pixel with the largest).
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 4096, "lc": 0, "lp": 0, "pb": 0}]


def encode(images: np.ndarray) -> bytes:
    """Compress `images`, uint8 `(image, height, width)`. Raises `ValueError` for anything else."""
    if images.dtype != np.uint8 or images.ndim != 3:
        raise ValueError(f"codec: images are {images.dtype} {images.shape}; give uint8 (image, height, width)")
    pixels = np.ascontiguousarray(images.transpose(1, 2, 0)).astype(np.int16)
    parts: list[list[np.ndarray]] = [[] for _ in range(STREAMS)]
    for place, predicted, order, ends, errors in _places(pixels):
        error = pixels[place] - predicted
        np.abs(error, out=errors)
        for part, residuals in zip(parts, np.split(error[order].astype(np.uint8), ends[:-1]), strict=True):
            part.append(residuals)
    streams = [b"".join(residuals.tobytes() for residuals in part) for part in parts]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        packed = list(pool.map(lambda s: lzma.compress(s, lzma.FORMAT_RAW, filters=FILTERS), streams))
    header = {
        "shape": images.shape,
        "sha256": _digest(images),
        "streams": [[len(stream), len(small)] for stream, small in zip(streams, packed, strict=True)],
    }
    text = json.dumps(header).encode()
    return b"".join((MAGIC, len(text).to_bytes(4, "little"), text, *packed))


def decode(data: bytes) -> np.ndarray:
    """Return what `encode` was given, writable. Raises `ValueError`, in one line, for damaged data."""
    if data[: len(MAGIC)] != MAGIC:
        raise ValueError(f"codec: data of {len(data)} bytes does not begin as packed gray images do")
    try:
        start = len(MAGIC) + 4
        end = start + int.from_bytes(data[len(MAGIC) : start], "little")
        header = json.loads(data[start:end])
        n, height, width = (int(side) for side in header["shape"])
        packed = []
        for _, size in header["streams"]:
            packed.append(data[end : end + size])
            end += size
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            unpacked = pool.map(lambda s: lzma.decompress(s, lzma.FORMAT_RAW, filters=FILTERS), packed)
            streams = [np.frombuffer(stream, dtype=np.uint8) for stream in unpacked]
        if end != len(data) or len(streams) != STREAMS or min(n, height, width) < 0:
            raise ValueError("sizes do not fit")
        if [len(s) for s in streams] != [count for count, _ in header["streams"]]:
            raise ValueError("streams are not as long as they were")
        if sum(len(s) for s in streams) != n * height * width:
            raise ValueError("there are not as many pixels as there were")
        images = _filled(streams, n, height, width)
        if _digest(images) != header["sha256"]:
            raise ValueError("the pixels are not those that were packed")
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, lzma.LZMAError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise ValueError(f"codec: damaged packed images ({said})") from None
    return images


def _filled(streams: list[np.ndarray], n: int, height: int, width: int) -> np.ndarray:
    pixels = np.zeros((height, width, n), dtype=np.int16)
    read = np.zeros(STREAMS, dtype=np.int64)
    for place, predicted, order, ends, errors in _places(pixels):
        counts = np.diff(ends, prepend=0)
        residuals = np.concatenate([s[a : a + c] for s, a, c in zip(streams, read, counts, strict=True)])
        read += counts
        error = np.empty(n, dtype=np.uint8)
        error[order] = residuals  # raises ValueError where a stream has run out
        pixels[place] = (predicted + error) & 255
        np.abs(pixels[place] - predicted, out=errors)
    return np.ascontiguousarray(pixels.astype(np.uint8).transpose(2, 0, 1))


def _places(
    pixels: np.ndarray,
) -> Iterator[tuple[tuple[int, int], np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Go through the places of all images at once, row by row; `pixels` need only be known before the place.

    Yields the place, its prediction, the images ordered by stream, where each stream ends among them, and the array
    that the caller writes the absolute errors of this place to.
    """
    height, width, n = pixels.shape
    errors = np.zeros(pixels.shape, dtype=np.int16)
    gray, none = np.full(n, 128, dtype=np.int16), np.zeros(n, dtype=np.int16)
    for y in range(height):
        for x in range(width):
            west, north, north_west, north_east = _neighbours(pixels, y, x, gray)
            low, high = np.minimum(west, north), np.maximum(west, north)
            predicted = np.clip(west + north - north_west, low, high)
            e_west, e_north, e_north_west, e_north_east = _neighbours(errors, y, x, none)
            activity = abs(west - north_west) + abs(north - north_west) + abs(north_east - north)
            activity += 2 * (e_west + e_north) + e_north_west + e_north_east
            stream = np.searchsorted(EDGES, activity, side="right").astype(np.uint8)
            ends = np.cumsum(np.bincount(stream, minlength=STREAMS))
            yield (y, x), predicted, np.argsort(stream, kind="stable"), ends, errors[y, x]


def _neighbours(plane: np.ndarray, y: int, x: int, outside: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return what stands west, north, north-west and north-east; at the edges, the nearest of those that there are."""
    north = plane[y - 1, x] if y else (plane[y, x - 1] if x else outside)
    west = plane[y, x - 1] if x else north
    north_west = plane[y - 1, x - 1] if x and y else north
    north_east = plane[y - 1, x + 1] if y and x + 1 < plane.shape[1] else north
    return west, north, north_west, north_east


def _digest(images: np.ndarray) -> str:
    whole = hashlib.sha256(f"{images.shape}".encode())
    whole.update(np.ascontiguousarray(images).data)
    return whole.hexdigest()
