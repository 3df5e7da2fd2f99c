"""The catalogue is whole, and names what it brings."""

import hashlib
import re
from pathlib import PurePosixPath

import pytest

from neuroprior.sources import SOURCES, find_source, hint
from neuroprior.types import InputError

FILES = [file for source in SOURCES for file in source.files]


def test_every_entry_is_complete():
    assert len({source.name for source in SOURCES}) == len(SOURCES)
    assert len({file.result for file in FILES}) == len(FILES)
    for source in SOURCES:
        assert source.about.endswith(".")
        assert source.licence
    for file in FILES:
        assert re.fullmatch("[0-9a-f]{64}", file.sha256)
        assert file.size > 1_000_000
        assert all(url.startswith("https://") for url in file.urls)
        for path in (file.path, file.result):
            assert not PurePosixPath(path).is_absolute()
            assert ".." not in PurePosixPath(path).parts
        assert (file.unpacks_to is not None) == file.path.endswith((".tar.gz", ".zip"))


def test_names_that_carry_a_hash_carry_this_one():
    """PyTorch writes the first eight digits into the name."""
    (vgg,) = find_source("vgg19").files
    assert vgg.name == f"vgg19-{vgg.sha256[:8]}.pth"


def test_the_twin_at_hand_is_the_one_in_the_catalogue(data):
    (file,) = find_source("sensorium").files
    content = data(file.path).read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (file.size, file.sha256)


def test_an_unknown_name_lists_those_there_are():
    says = r"no data of the name 'cifar'; did you mean 'cifar10'\? there are: cifar10, cifar100, "
    with pytest.raises(InputError, match=says):
        find_source("cifar")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("cifar-10-batches-bin", "cifar10"),
        ("./cifar-10-batches-bin/", "cifar10"),
        ("cifar-10-batches-bin/data_batch_1.bin", "cifar10"),
        ("cifar-100-binary", "cifar100"),
        ("twins/sensorium2022_26872-17-20_sota.pth", "sensorium"),
        ("vgg19/vgg19-dcbb9e9d.pth", "vgg19"),
        ("tiny-imagenet-200/train", "tiny-imagenet"),
        ("cifar-10-batches-binary", None),
        ("twins", None),
        ("/cifar-10-batches-bin", None),
        ("stimuli/tiny_imagenet_36x64.npz", None),
        ("", None),
    ],
)
def test_hint_says_what_would_bring_a_path(path, name):
    assert hint(path) == name
