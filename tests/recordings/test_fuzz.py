"""Files that something happened to: whatever the damage, a scan or one line; no traceback, no hang, no blow-up."""

import contextlib
import resource
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuroprior.recordings import SCAN_FORMATS, check_scan, load_scan, save_scan
from neuroprior.types import InputError, Scan, Stimuli

TRIALS, NEURONS = 12, 6
_BLOW_UP = 300 * 1024  # kB more than before


def recorded() -> Scan:
    rng = np.random.default_rng(0)
    return Scan(
        name="static26872-17-20",
        stimuli=Stimuli(np.array([f"imagenet-{k}" for k in range(6)]), rng.integers(0, 256, (6, 4, 8), np.uint8)),
        trial_image=np.array([0, 1, 2, 3, 4, 4, 5, 5, 4, 5, 4, 5]),
        responses=rng.gamma(2.0, size=(TRIALS, NEURONS)).astype(np.float32),
        tier=np.array(["train"] * 3 + ["validation"] + ["oracle"] * 8),
        behavior=rng.random((TRIALS, 3), dtype=np.float32),
        behavior_names=("pupil_dilation", "d_pupil_dilation", "running_speed"),
        pupil_center=rng.random((TRIALS, 2), dtype=np.float32),
        neuron_xyz=rng.random((NEURONS, 3), dtype=np.float32),
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> list[Path]:
    """One sound recording in every format; Sensorium's as a folder and as a zip."""
    folder = tmp_path_factory.mktemp("whole")
    paths = []
    for entry in SCAN_FORMATS:
        for suffix in ("", ".zip") if entry.name == "sensorium" else (entry.suffix,):
            path = folder / entry.name / f"scan{suffix}"
            save_scan(recorded(), path, entry.name)
            paths.append(path)
    return paths


def _file_of(path: Path, pick: int) -> Path:
    """Return the file that is damaged: of a folder or a recording of several files, one of them."""
    beside = sorted(file for file in path.parent.rglob("*") if file.is_file())
    return beside[pick % len(beside)]


@st.composite
def damages(draw) -> dict:
    return {
        "form": draw(st.integers(0, 10**6)),
        "file": draw(st.integers(0, 10**6)),
        "kind": draw(st.sampled_from(["flip", "flip", "flips", "cut", "grow", "zeros", "swap", "remove", "header"])),
        "where": draw(st.floats(0, 1, exclude_max=True)),
        "much": draw(st.integers(1, 400)),
        "seed": draw(st.integers(0, 2**32 - 1)),
    }


def damage(file: Path, how: dict) -> None:
    content = bytearray(file.read_bytes())
    rng = np.random.default_rng(how["seed"])
    # half of the blows fall where something is written: most of a small HDF5 file is nothing
    used = np.flatnonzero(np.frombuffer(bytes(content), np.uint8))
    at = int(how["where"] * max(len(content), 1))
    if how["seed"] % 2 and len(used):
        at = int(used[int(how["where"] * len(used))])
    match how["kind"]:
        case "flip":
            content[at : at + 1] = bytes([rng.integers(256)])
        case "flips":
            for place in rng.integers(0, max(len(content), 1), how["much"] if content else 0):
                content[place] = rng.integers(256)
        case "cut":
            del content[at:]
        case "grow":
            content[at:at] = rng.bytes(how["much"])
        case "zeros":
            content[at : at + how["much"]] = bytes(len(content[at : at + how["much"]]))
        case "swap":
            other = int(rng.integers(max(len(content), 1)))
            a, b = content[at : at + how["much"]], content[other : other + how["much"]]
            content[at : at + how["much"]], content[other : other + len(b)] = b, a
        case "header":
            content[: min(how["much"], len(content))] = rng.bytes(min(how["much"], len(content)))
    file.unlink()
    if how["kind"] != "remove":
        file.write_bytes(content)


def _try(whole: list[Path], place: Path, how: dict) -> str | None:
    """Damage a copy of one of the recordings and read it; return what was said of it."""
    source = whole[how["form"] % len(whole)]
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(source.parent, place)
    damage(_file_of(place / source.name, how["file"]), how)
    path = place / source.name
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        check_scan(load_scan(path, None if how["seed"] % 3 else source.parent.name))
    except InputError as error:
        said = str(error)
    else:
        said = None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < _BLOW_UP
    return said


def _fuzz(whole, tmp_path, n: int) -> None:
    said: list[str | None] = []

    @settings(
        max_examples=n,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    @given(damages())
    def one(how):
        line = _try(whole, tmp_path / "damaged", how)
        if line is not None:
            assert "\n" not in line
            assert line.startswith(str(tmp_path)) or line.startswith("scan ")
        said.append(line)

    one()
    assert sum(line is not None for line in said) > n / 5  # flipped pixels and rates are pixels and rates still


# of what is refused, the least share: bytes of pixels and rates are pixels and rates still, some (dates, flags) nothing
SINGLE = {"plain": 0.5, "plain-h5": 0.06, "sensorium-h5": 0.06, "sensorium": 0.33}


@pytest.mark.parametrize(("name", "least"), SINGLE.items(), ids=SINGLE)
def test_one_byte_changed_anywhere_is_read_or_said_in_one_line(whole, tmp_path, name, least):
    source = [path for path in whole if path.parent.name == name][-1]  # Sensorium's is the zip
    content, damaged = source.read_bytes(), tmp_path / source.name
    rng = np.random.default_rng(0)
    refused: list[str] = []
    for place in rng.choice(np.flatnonzero(np.frombuffer(content, np.uint8)), 150):
        spoiled = bytearray(content)
        spoiled[place] ^= int(rng.integers(1, 256))
        damaged.write_bytes(spoiled)
        try:
            load_scan(damaged, name)
        except InputError as error:
            refused.append(str(error))
        with contextlib.suppress(InputError):
            load_scan(damaged)  # as what it is taken for
    assert not [said for said in refused if "\n" in said]
    assert len(refused) > 150 * least


@pytest.mark.timeout(120)
def test_two_hundred_damaged_recordings(whole, tmp_path):
    _fuzz(whole, tmp_path, 200)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_damaged_recordings(whole, tmp_path):
    _fuzz(whole, tmp_path, 10_000)


def test_an_archive_that_climbs_out_of_its_folder_writes_nothing(whole, tmp_path):
    source = next(path for path in whole if path.suffix == ".zip")
    climbing = tmp_path / "inside" / "climbing.zip"
    climbing.parent.mkdir()
    shutil.copy(source, climbing)
    with zipfile.ZipFile(climbing, "a") as archive:
        archive.writestr("../outside.npy", b"x")
    with pytest.raises(InputError, match=r"climbing\.zip: .*\.\./outside\.npy"):
        load_scan(climbing)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["climbing.zip", "inside"]
