"""One archive with all that an experiment needs on a machine without a network: code, data, wheels and `run.py`.

    python gpu/pack.py [--out build/gpu-pack.tar] [--python 3.12 --python 3.11]

The code is what git tracks, as it stands in the working tree; MANIFEST.json names the commit, says whether the tree
differs from it, and holds every member's SHA-256. Same tree, same data: same bytes. What is slow to compress is kept
in a cache beside the archive, by the digest of what went in.
"""

import argparse
import hashlib
import io
import json
import lzma
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

import codec
import numpy as np
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

ROOT = Path(__file__).parents[1]
LARGEST = 58 * 2**20  # what can be carried is 64 MiB, with the tree that carries it
PARQUET = ("cifar10/train-00000-of-00001.parquet", "cifar10/test-00000-of-00001.parquet")
STIMULI = "stimuli/tiny_imagenet_36x64.npz"
# pip takes a platform's number as it stands: a wheel for 2.17 is not found by asking for 2.28.
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


class PackError(Exception):
    """The archive cannot be made; one line says why and what to do."""


class Cache:
    """Compressed data by the digest of what went in and of the code that compressed it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def kept(self, how: str, what: bytes, make: Callable[[], bytes]) -> bytes:
        """Return `make()`, or what it gave before for the same `how` and `what`."""
        key = hashlib.sha256(b"".join((how.encode(), b"\0", hashlib.sha256(what).digest()))).hexdigest()
        file = self.folder / key
        if not file.exists():
            unfinished = file.with_suffix(f".{os.getpid()}")
            unfinished.write_bytes(make())
            unfinished.replace(file)
        return file.read_bytes()

    def xz(self, what: bytes) -> bytes:
        """Return `what`, compressed as well as xz can."""
        return self.kept("xz", what, lambda: lzma.compress(what, preset=9 | lzma.PRESET_EXTREME))

    def gray(self, source: bytes, read: Callable[[], np.ndarray]) -> bytes:
        """Return the images that `read` finds in the bytes `source`, packed by `codec`, and tried."""

        def make() -> bytes:
            images = read()
            packed = codec.encode(images)
            if not np.array_equal(codec.decode(packed), images):
                raise PackError("codec: the images do not come back as they went in; nothing was packed")
            return packed

        return self.kept(Path(codec.__file__).read_text(), source, make)


def tar(members: dict[str, tuple[bytes, bool]]) -> bytes:
    """Return a tar of `name: (content, executable)`, in the order given, whose bytes depend on nothing else."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, (content, executable) in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(content), 0o755 if executable else 0o644, 0
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def git(*arguments: str) -> str:
    """Return what git says of the working tree."""
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise PackError(f"git {arguments[0]}: {error}; pack from a git checkout") from None


def code() -> bytes:
    """Return a tar of the files that git tracks, as they stand."""
    names = sorted(name for name in git("ls-files", "-z").split("\0") if name and (ROOT / name).is_file())
    if "gpu/run.py" not in names:
        raise PackError(
            "gpu/run.py is not tracked by git, and what is not tracked is not packed: git add gpu tests/gpu"
        )
    return tar({name: ((ROOT / name).read_bytes(), os.access(ROOT / name, os.X_OK)) for name in names})


def parquet(cache: Cache, file: Path, name: str) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return the members that hold a parquet file's images and labels, and how to lay them out."""
    import pyarrow.parquet as pq

    def read() -> np.ndarray:
        from neuroprior.classifier import load_parquet_images

        return load_parquet_images(file).pixels[:, 0]

    column = next(c for c in pq.read_schema(file).names if c in ("label", "fine_label"))
    labels = pq.read_table(file, columns=[column]).column(column).to_numpy()
    stem = f"data/{Path(name).parent}/{Path(name).name.split('-')[0]}"
    members = {
        f"{stem}.gray": cache.gray(file.read_bytes(), read),
        f"{stem}.labels.xz": cache.xz(labels.astype(np.uint8).tobytes()),
    }
    pixels, words = members
    return members, {"kind": "parquet", "to": name, "pixels": pixels, "labels": words, "column": column}


def stimuli(cache: Cache, file: Path, name: str) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return the members that hold the stimuli's pixels, names and tiers, and how to lay them out."""
    with np.load(file, allow_pickle=False) as held:
        images, words = held["images"], {key: held[key].tolist() for key in held.files if key != "images"}
    stem = f"data/{Path(name).with_suffix('')}"
    members = {
        f"{stem}.gray": cache.gray(images.tobytes(), lambda: images),
        f"{stem}.words.xz": cache.xz(json.dumps(words).encode()),
    }
    pixels, listed = members
    return members, {"kind": "npz", "to": name, "pixels": pixels, "words": listed}


def twin(cache: Cache, file: Path) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return the member that holds a twin's checkpoint as it is, and where it belongs."""
    member = f"data/twins/{file.name}.xz"
    return {member: cache.xz(file.read_bytes())}, {"kind": "file", "to": f"twins/{file.name}", "content": member}


def data(cache: Cache) -> tuple[dict[str, bytes], list[dict[str, str]]]:
    """Return the data's members, and how to lay them out."""
    folder = Path(os.environ.get("NEUROPRIOR_DATA") or ROOT.parent / "shared" / "data")
    missing = [name for name in (*PARQUET, STIMULI) if not (folder / name).is_file()]
    twins = sorted((folder / "twins").glob("*.pth"))
    if missing or not twins:
        raise PackError(f"{folder / (missing or ['twins/*.pth'])[0]}: no such file; set NEUROPRIOR_DATA")
    found = [parquet(cache, folder / name, name) for name in PARQUET]
    found += [stimuli(cache, folder / STIMULI, STIMULI), *(twin(cache, file) for file in twins)]
    return {k: v for part, _ in found for k, v in part.items()}, [entry for _, entry in found]


def downloaded(folder: Path, pythons: list[str]) -> list[Path]:
    """Return the wheels that `wheels.txt` names, for each of these Pythons, downloaded where they are not yet here."""
    listed = Path(__file__).with_name("wheels.txt")
    pins = ROOT / "constraints.txt"
    key = hashlib.sha256(json.dumps([listed.read_text(), pins.read_text(), PLATFORMS, pythons]).encode()).hexdigest()
    done = folder / f"wheels-{key[:16]}"
    if not done.is_dir():
        unfinished = folder / f"{done.name}.{os.getpid()}"
        for python in pythons:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            command += ["--disable-pip-version-check", "--requirement", str(listed), "--constraint", str(pins)]
            command += ["--dest", str(unfinished), "--python-version", python, "--implementation", "cp"]
            for abi in (f"cp{python.replace('.', '')}", "abi3", "none"):
                command += ["--abi", abi]
            for platform in PLATFORMS:
                command += ["--platform", platform]
            said = subprocess.run(command, capture_output=True, text=True)
            if said.returncode:
                errors = [line for line in said.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
                raise PackError(f"wheels for Python {python}: {errors[-1][:200]}; is there a network?")
        unfinished.replace(done)
    return sorted(done.glob("*.whl"))


def uncompressed(wheel: Path) -> bytes:
    """Return the same wheel with its files stored as they are: xz then does better than each file's own deflate."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as new:
        for entry in old.infolist():
            plain = zipfile.ZipInfo(entry.filename)  # of 1980: the time of packing is left out
            plain.external_attr = entry.external_attr
            new.writestr(plain, old.read(entry))
    return buffer.getvalue()


def described(wheels: list[Path]) -> list[dict[str, Any]]:
    """Say of each wheel: its name, the least version that will do in its stead, and what it pins exactly."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [Requirement(line) for line in project["dependencies"] + project["optional-dependencies"]["dev"]]
    pins: dict[str, dict[str, str]] = {}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as held:
            metadata = next(name for name in held.namelist() if name.endswith(".dist-info/METADATA"))
            lines = HeaderParser().parsestr(held.read(metadata).decode()).get_all("Requires-Dist") or []
        needs = [r for r in map(Requirement, lines) if r.marker is None or r.marker.evaluate({"extra": ""})]
        asked += needs
        pins[wheel.name] = {
            canonicalize_name(r.name): bound.version for r in needs for bound in r.specifier if bound.operator == "=="
        }
    least: dict[str, Version] = {}
    for requirement in asked:
        for bound in requirement.specifier:
            if bound.operator in (">=", "~="):  # what is pinned goes with the wheel that pins it
                name = canonicalize_name(requirement.name)
                least[name] = max(least.get(name, Version("0")), Version(bound.version))
    out = []
    for wheel in wheels:
        name, version, _, tags = parse_wheel_filename(wheel.name)
        interpreters = sorted({tag.interpreter for tag in tags})
        out.append({"file": wheel.name, "name": name, "version": str(version), "interpreters": interpreters,
                    "least": str(least.get(name, "0")), "pins": pins[wheel.name]})  # fmt: skip
    return out


def pack(out: Path, pythons: list[str]) -> None:
    """Write the archive and say what is in it."""
    cache = Cache(out.parent / "gpu-cache")
    wheels = downloaded(cache.folder, pythons)
    members = {
        "run.py": Path(__file__).with_name("run.py").read_bytes(),
        "code.tar.xz": cache.xz(code()),
        "wheels.tar.xz": cache.xz(tar({wheel.name: (uncompressed(wheel), False) for wheel in wheels})),
    }
    contents, layout = data(cache)
    members |= contents
    changed = git("status", "--porcelain", "--untracked-files=no")
    manifest = {
        "commit": git("rev-parse", "HEAD").strip(),
        "dirty": bool(changed),
        "members": {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in sorted(members.items())
        },
        "wheels": described(wheels),
        "data": layout,
    }
    members = {"MANIFEST.json": json.dumps(manifest, indent=1).encode()} | dict(sorted(members.items()))
    whole = tar({name: (content, name == "run.py") for name, content in members.items()})
    for name, content in members.items():
        print(f"{len(content):>12,}  {name}")
    print(f"{len(whole):>12,}  {out} ({len(whole) / 2**20:.2f} MiB; {LARGEST - len(whole):,} bytes to the limit)")
    print(f"commit {manifest['commit'][:12]}{' with uncommitted changes' if changed else ''}, {len(wheels)} wheels")
    left_out = git("ls-files", "--others", "--exclude-standard").splitlines()
    if left_out:
        print(f"left out, since git does not track them: {len(left_out)} files ({left_out[0]}, ...)")
    if len(whole) > LARGEST:
        largest = max(members, key=lambda name: len(members[name]))
        raise PackError(f"{len(whole):,} bytes are more than {LARGEST:,}; largest: {largest}. Try one --python alone")
    unfinished = out.with_suffix(f".{os.getpid()}")
    unfinished.write_bytes(whole)
    unfinished.replace(out)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/gpu-pack.tar"))
    parser.add_argument("--python", action="append", help="a version to bring compiled wheels for (default 3.12, 3.11)")
    arguments = parser.parse_args()
    try:
        pack(arguments.out, arguments.python or ["3.12", "3.11"])
    except (PackError, OSError, ValueError) as error:
        print(f"pack: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
