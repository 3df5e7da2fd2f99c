"""The values: what they refuse, and that nothing is lost on disk."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

import neuroprior
from neuroprior.types import InputError, NeuronWeights, Scan, SimilarityTarget, Stimuli


def test_digest_is_of_ids_order_and_pixels(stimuli):
    same = Stimuli(stimuli.ids.copy(), stimuli.pixels.copy())
    assert same.digest == stimuli.digest
    assert stimuli.select(stimuli.ids[::-1]).digest != stimuli.digest
    changed = stimuli.pixels.copy()
    changed[3, 4, 5] ^= 1
    assert Stimuli(stimuli.ids, changed).digest != stimuli.digest
    renamed = stimuli.ids.copy()
    renamed[0] = "other"
    assert Stimuli(renamed, stimuli.pixels).digest != stimuli.digest


def test_select_goes_by_name_and_back(stimuli):
    backwards = stimuli.select(stimuli.ids[::-1])
    assert np.array_equal(backwards.pixels, stimuli.pixels[::-1])
    assert backwards.select(stimuli.ids).digest == stimuli.digest
    with pytest.raises(InputError, match="'nobody'"):
        stimuli.select(["nobody"])


def test_values_are_frozen_but_leave_the_callers_arrays_alone():
    ids, pixels = np.array(["a", "b"]), np.zeros((2, 3, 4), dtype=np.uint8)
    stimuli = Stimuli(ids, pixels)
    with pytest.raises(ValueError, match="read-only"):
        stimuli.pixels[0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        stimuli.ids = ids  # type: ignore[misc]
    pixels[0] = 1  # still the caller's to write


@pytest.mark.parametrize(
    ("ids", "pixels", "says"),
    [
        (["a", "a"], np.zeros((2, 3, 4), np.uint8), "'a' stands more than once"),
        (["a"], np.zeros((2, 3, 4), np.uint8), "1 ids for 2 images"),
    ],
)
@pytest.mark.usefixtures("shapes_unchecked")
def test_stimuli_refuse(ids, pixels, says):
    with pytest.raises(InputError, match=says):
        Stimuli(np.array(ids), pixels)


def test_target_survives_the_disk_without_loss(tmp_path, target):
    full = dataclasses.replace(target, details={"weights": "1", "pixel_mean": 113.9, "neurons": 30}, n_scans=8)
    path = tmp_path / "folder" / "t.safetensors"
    full.save(path)
    back = SimilarityTarget.load(path)
    assert np.array_equal(back.matrix, full.matrix)
    assert back.image_ids.tolist() == full.image_ids.tolist()
    for name in ("stimuli_digest", "source", "n_scans", "details"):
        assert getattr(back, name) == getattr(full, name)
    assert [p.name for p in path.parent.iterdir()] == ["t.safetensors"]  # no temporary file stays


def test_loaded_matrix_is_mapped_and_read_only(tmp_path, target):
    target.save(tmp_path / "t")
    back = SimilarityTarget.load(tmp_path / "t")
    assert not back.matrix.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        back.matrix[0, 0] = 0


def test_target_refuses_nan_and_names_the_images(target):
    matrix = target.matrix.copy()
    matrix[2, 5] = np.nan
    with pytest.raises(InputError, match="'image-02' and 'image-05' is nan"):
        dataclasses.replace(target, matrix=matrix)
    with pytest.raises(InputError, match=r"\[-1, 1\]"):
        dataclasses.replace(target, matrix=2 * target.matrix)
    skew = target.matrix.copy()
    skew[1, 2] += 0.01
    with pytest.raises(InputError, match="not symmetric"):
        dataclasses.replace(target, matrix=skew)


def test_any_image_id_survives_the_disk(tmp_path, target):
    names = target.image_ids.astype("<U40")
    names[:3] = ["two\nlines", "", "Ω/ü"]
    dataclasses.replace(target, image_ids=names).save(tmp_path / "t")
    assert SimilarityTarget.load(tmp_path / "t").image_ids.tolist() == names.tolist()


def test_a_header_without_its_fields_is_refused(tmp_path):
    from safetensors.numpy import save_file

    arrays = {"matrix": np.eye(2, dtype=np.float32), "image_ids": np.frombuffer(b'["a", "b"]', np.uint8)}
    save_file(arrays, tmp_path / "t", metadata={"format": "neuroprior.SimilarityTarget/1"})
    with pytest.raises(InputError, match="stimuli_digest"):
        SimilarityTarget.load(tmp_path / "t")


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_target_load_refuses_other_files(tmp_path, content):
    path = tmp_path / "t.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"t\.safetensors: "):
        SimilarityTarget.load(path)


def test_truncated_target_is_refused(tmp_path, target):
    path = tmp_path / "t"
    target.save(path)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(InputError, match="damaged, or a copy that was cut off"):
        SimilarityTarget.load(path)
    with pytest.raises(InputError, match="no such file"):
        SimilarityTarget.load(tmp_path / "missing")


def test_failed_save_leaves_nothing(tmp_path, target, monkeypatch):
    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="No space"):
        target.save(tmp_path / "t")
    assert list(tmp_path.iterdir()) == []


def test_snr_of_a_silent_neuron_is_zero():
    weights = NeuronWeights(np.array([4.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0]))
    assert weights.snr.tolist() == [2.0, 0.0, 0.0]


@pytest.mark.usefixtures("shapes_unchecked")
def test_scan_refuses_what_does_not_fit(stimuli):
    def scan(**changes):
        fields = {
            "name": "s",
            "stimuli": stimuli,
            "trial_image": np.array([0, 1, 1]),
            "responses": np.zeros((3, 2), np.float32),
            "tier": np.array(["train", "oracle", "oracle"]),
        }
        return Scan(**{**fields, **changes})

    assert scan().trial_ids.tolist() == ["image-00", "image-01", "image-01"]
    for changes, says in (
        ({"responses": np.zeros((2, 2), np.float32)}, "responses has 2 rows for 3 trials"),
        ({"trial_image": np.array([0, 1, 40])}, "row 40 of 40"),
        ({"trial_image": np.array([0, -1, 1])}, "row -1 of 40"),
        ({"neuron_xyz": np.zeros((3, 3), np.float32)}, "neuron_xyz has 3 rows for 2 neurons"),
        ({"tier": np.array(["train", "oracle", "test"])}, "'test'"),
        ({"responses": np.full((3, 2), np.nan, np.float32)}, "not finite"),
        ({"behavior_names": ("speed",)}, "1 behavior_names for 0 channels"),
    ):
        with pytest.raises(InputError, match=says):
            scan(**changes)


def test_everything_exported_is_there():
    for name in neuroprior.__all__:
        assert getattr(neuroprior, name) is not None


def test_the_regulariser_needs_only_torch_numpy_and_safetensors():
    blocked = "jaxtyping pydantic yaml typer rich matplotlib jinja2 pyarrow PIL skimage mlxtend scipy pandas sklearn"
    code = f"""
import importlib.util
import sys
def blocked(name):
    return name.split(".")[0] in {blocked.split()!r}
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if blocked(name):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
find_spec = importlib.util.find_spec  # torch asks it which libraries are there
importlib.util.find_spec = lambda name, package=None: None if blocked(name) else find_spec(name, package)
from neuroprior import SimilarityRegularizer, SimilarityTarget, Stimuli
import numpy as np, torch
from torch import nn
stimuli = Stimuli(np.array(["a", "b", "c"]), np.arange(3*16*16).reshape(3, 16, 16).astype(np.uint8))
target = SimilarityTarget(np.eye(3, dtype=np.float32), stimuli.ids, stimuli.digest, "user")
model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
loss = SimilarityRegularizer(model, target, stimuli, taps=["1"], stimuli_per_step=2)()
loss.backward()
print("works", float(loss.detach()) > 0)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "works True", done.stderr
