"""Labelled images in memory: the layouts in which image data sets come, and the digits that a dependency ships."""

from neuroprior.classifier.datasets.cifar_binary import count_cifar_binary, load_cifar_binary
from neuroprior.classifier.datasets.digits import load_packaged_digits
from neuroprior.classifier.datasets.image_folder import check_image_folder, count_image_folder, load_image_folder
from neuroprior.classifier.datasets.labelled import CIFAR10, Color, LabelledImages
from neuroprior.classifier.datasets.parquet import check_parquet_images, count_parquet_images, load_parquet_images
from neuroprior.classifier.datasets.samples import Samples, load_samples

__all__ = [
    "CIFAR10",
    "Color",
    "LabelledImages",
    "Samples",
    "check_image_folder",
    "check_parquet_images",
    "count_cifar_binary",
    "count_image_folder",
    "count_parquet_images",
    "load_cifar_binary",
    "load_image_folder",
    "load_packaged_digits",
    "load_parquet_images",
    "load_samples",
]
