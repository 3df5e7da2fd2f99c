"""Images and labels -> a trained network: data sets, ResNets, joint training."""

from neuroprior.checkpoint import Checkpoint
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
from neuroprior.classifier.episodes import EpisodeLoss
from neuroprior.classifier.front import GaussianBlur, PixelScaling
from neuroprior.classifier.recorded import Recorded, Tape, as_written
from neuroprior.classifier.resnet import Architecture, ResNet
from neuroprior.classifier.second_loss import InParts, SecondLoss
from neuroprior.classifier.so_far import EpochLog
from neuroprior.classifier.step import JointStep, Perturb
from neuroprior.classifier.task import Classification, FewShotTask, Task
from neuroprior.classifier.training import (
    TrainingSettings,
    evaluate,
    learning_rate,
    train,
)
from neuroprior.classifier.transfer import (
    FewShot,
    class_means_head,
    core_features,
    few_shot_accuracy,
    linear_probe_accuracy,
)
from neuroprior.logs import JsonLines, NoLog, Several, TensorBoard, TrainingLog

__all__ = [
    "Architecture",
    "Checkpoint",
    "Classification",
    "Color",
    "EpisodeLoss",
    "EpochLog",
    "FewShot",
    "FewShotTask",
    "GaussianBlur",
    "InParts",
    "JointStep",
    "JsonLines",
    "LabelledImages",
    "NoLog",
    "Perturb",
    "PixelScaling",
    "Recorded",
    "ResNet",
    "SecondLoss",
    "Several",
    "Tape",
    "Task",
    "TensorBoard",
    "TrainingLog",
    "TrainingSettings",
    "as_written",
    "check_image_folder",
    "check_parquet_images",
    "class_means_head",
    "core_features",
    "count_cifar_binary",
    "count_image_folder",
    "count_parquet_images",
    "evaluate",
    "few_shot_accuracy",
    "learning_rate",
    "linear_probe_accuracy",
    "load_cifar_binary",
    "load_image_folder",
    "load_packaged_digits",
    "load_parquet_images",
    "train",
]
