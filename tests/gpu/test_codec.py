"""The archive's image codec: what goes in comes out, and damage is told in one line."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroprior.classifier import load_parquet_images

spec = importlib.util.spec_from_file_location("gpu_codec", Path(__file__).parents[2] / "gpu" / "codec.py")
codec = importlib.util.module_from_spec(spec)
spec.loader.exec_module(codec)


@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(1, 7)),
    levels=st.sampled_from([1, 2, 17, 256]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_any_images_come_back(shape, levels, seed):
    images = np.random.default_rng(seed).integers(0, levels, shape).astype(np.uint8) * (255 // max(levels - 1, 1))
    back = codec.decode(codec.encode(images))
    assert back.dtype == np.uint8
    assert np.array_equal(back, images)
    back[0, 0, 0] ^= 1  # writable


@pytest.mark.parametrize("shape", [(1, 1, 1), (0, 4, 4), (3, 1, 9), (3, 9, 1)])
def test_edges_of_the_format(shape):
    images = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    assert np.array_equal(codec.decode(codec.encode(images)), images)
    swapped = images.transpose(0, 2, 1)  # not contiguous
    assert np.array_equal(codec.decode(codec.encode(swapped)), swapped)


def test_real_images_come_back_smaller_than_as_png(data):
    file = data("cifar10/test-00000-of-00001.parquet")
    images = load_parquet_images(file, n=2000).pixels[:, 0]
    packed = codec.encode(images)
    assert np.array_equal(codec.decode(packed), images)
    assert len(packed) * 8 / images.size < 5.4  # 6.1 as PNG, 5.5 as residuals in plain xz


@pytest.fixture(scope="module")
def packed() -> bytes:
    smooth = np.add.outer(np.arange(40), np.add.outer(np.arange(12), 3 * np.arange(16)))
    noise = np.random.default_rng(0).integers(0, 9, smooth.shape)
    return codec.encode((smooth + noise).astype(np.uint8))


@pytest.mark.parametrize("part", [0.0, 0.001, 0.01, 0.1, 0.5, 0.99])
def test_cut_short(packed, part):
    with pytest.raises(ValueError, match=r"^codec: ") as raised:
        codec.decode(packed[: int(part * len(packed))])
    assert "\n" not in str(raised.value)


def outcome(data: bytes) -> str:
    """Decode, and return what the error says; a byte of xz's that carries nothing may be changed without one."""
    try:
        codec.decode(data)  # which compares a digest of the pixels
    except ValueError as error:
        return str(error)
    return "whole"


def test_any_byte_changed_or_added(packed):
    rng = np.random.default_rng(0)
    header = int.from_bytes(packed[8:12], "little")
    for at in [*range(0, 12 + header, 7), *rng.integers(0, len(packed), 60)]:
        damaged = bytearray(packed)
        damaged[at] ^= 1 << int(rng.integers(8))
        says = outcome(bytes(damaged))
        assert says == "whole" or (says.startswith("codec: ") and "\n" not in says)
    with pytest.raises(ValueError, match="sizes do not fit"):
        codec.decode(packed + b"\0")


def test_another_shape_of_as_many_pixels(packed):
    header = json.loads(packed[12 : 12 + int.from_bytes(packed[8:12], "little")])
    streams = packed[12 + int.from_bytes(packed[8:12], "little") :]
    for shape in ([40, 16, 12], [40, 12, 17], [1, 1, 40 * 12 * 16], [-40, -12, 16]):
        text = json.dumps(header | {"shape": shape}).encode()
        with pytest.raises(ValueError, match="codec: damaged"):
            codec.decode(packed[:8] + len(text).to_bytes(4, "little") + text + streams)


@pytest.mark.parametrize("images", [np.zeros((2, 3, 3)), np.zeros((3, 3), np.uint8), np.zeros((1, 1, 3, 3), np.uint8)])
def test_only_stacks_of_gray_bytes_are_taken(images):
    with pytest.raises(ValueError, match="give uint8"):
        codec.encode(images)
