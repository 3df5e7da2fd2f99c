"""Images and labels -> a trained network: data sets, ResNets, joint training."""

from neuroprior.classifier.datasets import (
    LabelledImages,
    check_parquet_images,
    load_packaged_digits,
    load_parquet_images,
)
from neuroprior.classifier.front import GaussianBlur, PixelScaling
from neuroprior.classifier.resnet import Architecture, ResNet
from neuroprior.classifier.training import EpochLog, Precision, TrainingSettings, evaluate, learning_rate, train

__all__ = [
    "Architecture",
    "EpochLog",
    "GaussianBlur",
    "LabelledImages",
    "PixelScaling",
    "Precision",
    "ResNet",
    "TrainingSettings",
    "check_parquet_images",
    "evaluate",
    "learning_rate",
    "load_packaged_digits",
    "load_parquet_images",
    "train",
]
