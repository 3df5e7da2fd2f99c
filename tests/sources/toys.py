"""A file and an archive that the tests fetch, and how a refusal is read."""

import hashlib
import io
import tarfile
from importlib import import_module

import numpy as np
import pytest

from neuroprior.sources import RemoteFile, Source, fetch
from neuroprior.types import InputError

fetching = import_module("neuroprior.sources.fetch")  # the package's name for the function hides the module

CONTENT = np.random.default_rng(0).bytes(300_000)
OTHER = np.random.default_rng(1).bytes(300_000)


def archive_of(content):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo("photos/one.bin")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


ARCHIVE = archive_of(CONTENT)


def source_of(*urls, path="twins/a.pth", content=CONTENT, unpacks_to=None):
    file = RemoteFile(path, urls, len(content), hashlib.sha256(content).hexdigest(), unpacks_to)
    return Source("toy", "Noise.", "none", (file,))


def refused(source, folder, **options):
    with pytest.raises(InputError) as caught:
        fetch(source, folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def everything(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
