"""Images and labels -> a trained network: data sets, ResNets, joint training."""

from neuroprior.classifier.checkpoint import Checkpoint
from neuroprior.classifier.datasets import (
    Color,
    LabelledImages,
    check_image_folder,
    check_parquet_images,
    count_cifar_binary,
    count_image_folder,
    count_parquet_images,
    load_cifar_binary,
    load_image_folder,
    load_packaged_digits,
    load_parquet_images,
)
from neuroprior.classifier.front import GaussianBlur, PixelScaling
from neuroprior.classifier.resnet import Architecture, ResNet
from neuroprior.classifier.training import EpochLog, TrainingSettings, evaluate, learning_rate, train

__all__ = [
    "Architecture",
    "Checkpoint",
    "Color",
    "EpochLog",
    "GaussianBlur",
    "LabelledImages",
    "PixelScaling",
    "ResNet",
    "TrainingSettings",
    "check_image_folder",
    "check_parquet_images",
    "count_cifar_binary",
    "count_image_folder",
    "count_parquet_images",
    "evaluate",
    "learning_rate",
    "load_cifar_binary",
    "load_image_folder",
    "load_packaged_digits",
    "load_parquet_images",
    "train",
]
