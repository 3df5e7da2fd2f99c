"""Recordings of 60,000 images: an .npz file a mouse, and beside it the bank of pictures that all of them share.

| field | type | what |
| --- | --- | --- |
| `sp` | float (neuron, column) | responses to single presentations |
| `istim_sp` | integer (column) | picture of the bank that each column shows |
| `ss_all` | float (test image, repeat, neuron) | responses to the test images, each shown equally often |
| `istim_ss` | integer (test image) | picture of the bank that each test image is |
| `xpos`, `ypos` | float (neuron) | optional: cortical position |
| `iplane` | integer (neuron) | optional: number of the imaging plane |

The bank is `nat60k_text16.mat`: `img`, uint8 (height, width, image). Its pictures below 30,000 are natural images, the
next 30,000 the same ones flipped, those above textures. It is looked for beside the recording: the recording's own
(`save` writes one, named after it), `nat60k_text16.mat`, then the only `*text16*.mat` or `*text16*.npz` there is.

The trials of a `Scan` are the columns of `sp`, then the repeats of each test image. Test images are oracle, as is an
image that `sp` shows more than once; all others are train, none validation. Such files hold no behaviour and no pupil.
Further fields, which `save` writes and others need not know, say what those above cannot: `name`, `image_names` (one a
picture of the bank), `tier` (column), `trial_order` (place of each trial in the scan), `zpos` (neuron) and `notes`.
"""

import hashlib
import zipfile
from pathlib import Path

import numpy as np

from neuroprior.files import appearing_whole
from neuroprior.recordings.archive import read_archive, write_archive
from neuroprior.recordings.formats.fields import Fields, scan_fields
from neuroprior.recordings.formats.mat_images import read_mat_images, write_mat_images
from neuroprior.recordings.formats.scan_format import ScanFormat
from neuroprior.types import InputError, Int64, Scan, Shaped, UInt8

__all__ = ["NAT60K", "read_nat60k", "write_nat60k"]

_BANK = "nat60k_text16.mat"
_OWN = "_bank_text16.mat"
_NATURAL = 30_000  # pictures before their flipped versions begin
_CATEGORIES = 16  # of textures
_NEEDED = ("sp", "istim_sp", "istim_ss")
_POSITION = ("xpos", "ypos", "iplane", "zpos")
_OURS = ("name", "image_names", "tier", "trial_order", "ss_labels", "notes")
_MEND = "take the file as it was published, or give it the fields that docs/recordings.md lists"
_RAGGED = (
    "where its images have unequal repeats, keep as many of each as all have, as one array of numbers: "
    "numpy.stack([repeats[:fewest] for repeats in ss_all]); older files with averages alone hold no trials"
)
_WHERE = {
    "trial_image": "istim_sp",
    "responses": "sp",
    "neuron_xyz": "xpos, ypos, iplane",
    "images": "img",
}


def read_nat60k(file: Path) -> Scan:
    """Read a recording and, of its bank, the pictures shown.

    Raises `InputError`, one line naming file and field; also where no bank is beside it, or more than one could be it.
    """
    values = read_archive(file, ("ss_all",), mend=_RAGGED)
    values |= read_archive(file, _NEEDED, (*_POSITION, *_OURS), mend=_MEND)
    fault = Fields(file, values, _WHERE)
    single, repeated = _indices(fault, "istim_sp"), _indices(fault, "istim_ss")
    notes = []
    if "ss_labels" in values and repeated.max(initial=0) < _CATEGORIES:  # the two have been named either way round
        repeated = _indices(fault, "ss_labels")
        notes.append("istim_ss holds labels; the test images are taken from ss_labels")
    _shapes(fault, single, repeated)
    _finite(fault)
    repeats = values["ss_all"].shape[1]
    shown = np.concatenate([single, np.repeat(repeated, repeats)])
    rows, trial_row = np.unique(shown, return_inverse=True)
    if not len(rows):
        raise fault.fault("istim_sp", f"and 'istim_ss' hold no trial; {_MEND}")
    bank = _bank_of(file)
    images, n_bank = _pictures(bank, rows)
    for field, index in (("istim_sp", single), ("istim_ss", repeated)):
        outside = np.flatnonzero((index < 0) | (index >= n_bank))
        if len(outside):
            at = outside[0]
            raise fault.fault(
                field, f"is {index[at]} in place {at}, but {bank} holds {n_bank} pictures; rows count from 0"
            )
    names = _names(fault, rows, n_bank)
    images, names, place, twins = _each_picture_once(images, names)
    if twins:
        notes.append(f"{twins} pictures stand in {bank.name} twice: one id for both")
    trial_image = place[trial_row]
    tier, said = _tiers(fault, trial_image, len(single))
    notes += said
    mirrored = np.isin(single, repeated[repeated < _NATURAL] + _NATURAL)
    if mirrored.any() and "image_names" not in values:
        notes.append(f"istim_sp: {int(mirrored.sum())} trials show flipped versions of test images")
    responses = np.empty((len(shown), values["sp"].shape[0]), np.float32)
    with np.errstate(over="ignore"):  # what is too large becomes inf, which is refused
        responses[: len(single)] = values["sp"].T
        responses[len(single) :] = values["ss_all"].reshape(-1, responses.shape[1])
    if responses.min(initial=0) < 0:
        notes.append(f"responses: as low as {responses.min():.3g}, kept; activity is expected not to be negative")
    fields = {
        "name": values.get("name", np.array(file.stem)),
        "images": images,
        "image_names": names,
        "trial_image": trial_image,
        "responses": responses,
        "tier": tier,
    }
    xyz = _position(fault, responses.shape[1])
    if xyz is not None:
        fields["neuron_xyz"] = xyz
        if "zpos" not in values:
            notes.append("neuron_xyz: z is the number of the imaging plane (iplane), not micrometres")
    if "notes" in values:
        fields["notes"] = values["notes"]
    if "trial_order" in values:
        order = _order(fault, len(shown))
        fields |= {name: fields[name][order] for name in ("trial_image", "responses", "tier")}
    return Fields(file, fields, where=_WHERE, notes=notes).scan()


def write_nat60k(scan: Scan, file: Path) -> None:
    """Write what `read_nat60k` reads: the recording, and its bank beside it. Behaviour and pupil are left out.

    The images of tier oracle go to `ss_all`. Raises `InputError` where they are not all shown equally often, and for a
    scan that could not be read again.
    """
    Fields(file, scan_fields(scan)).scan()
    oracle = np.flatnonzero(scan.tier == "oracle")
    single = np.flatnonzero(scan.tier != "oracle")
    repeated, counts = np.unique(scan.trial_image[oracle], return_counts=True)
    if len(counts) and counts.min() != counts.max():
        most, fewest = (str(scan.stimuli.ids[repeated[k]]) for k in (counts.argmax(), counts.argmin()))
        raise InputError(
            f"{file}: field 'ss_all' holds equally many repeats of every image, but {most!r} was shown {counts.max()} "
            f"times and {fewest!r} {counts.min()} times; drop trials, or save in another format"
        )
    by_image = oracle[np.argsort(scan.trial_image[oracle], kind="stable")]
    repeats = int(counts[0]) if len(counts) else 1
    order = np.empty(len(scan.trial_image), np.int64)
    order[np.concatenate([single, by_image])] = np.arange(len(order))
    fields = {
        "sp": np.ascontiguousarray(scan.responses[single].T),
        "istim_sp": scan.trial_image[single],
        "ss_all": scan.responses[by_image].reshape(len(repeated), repeats, scan.responses.shape[1]),
        "istim_ss": repeated,
        "name": np.array(scan.name),
        "image_names": scan.stimuli.ids,
        "tier": scan.tier[single],
        "trial_order": order,
    }
    if scan.neuron_xyz is not None:
        x, y, z = scan.neuron_xyz.T
        fields |= {"xpos": x, "ypos": y, "zpos": z, "iplane": np.unique(z, return_inverse=True)[1]}
    if scan.notes:
        fields["notes"] = np.array(scan.notes)
    bank = file.with_name(file.stem + _OWN)
    for place in (file, bank):
        if place.is_dir():
            raise InputError(f"{place}: is a folder; name a file")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with appearing_whole(bank) as temporary:
            write_mat_images(temporary, {"img": scan.stimuli.pixels})
            write_archive(file, fields)
    except OSError as error:
        raise InputError(f"{bank}: cannot be written ({error.strerror or error}); name another place") from None


def _indices(fault: Fields, field: str) -> Int64[np.ndarray, " column"]:
    value = fault.values[field]
    whole = value.dtype.kind in "iu" or (value.dtype.kind == "f" and bool((value == np.trunc(value)).all()))
    if value.ndim != 1 or not whole:
        raise fault.no(field, "integers (column)", "give each column the row of its picture in the bank, from 0")
    return value.astype(np.int64)


def _shapes(fault: Fields, single: np.ndarray, repeated: np.ndarray) -> None:
    sp, ss_all = fault.values["sp"], fault.values["ss_all"]
    if sp.dtype.kind not in "fiu" or sp.ndim != 2 or sp.shape[1] != len(single) or not len(sp):
        raise fault.no("sp", f"real numbers (neuron, {len(single)})", "give one column for each of 'istim_sp'")
    if ss_all.dtype.kind not in "fiu" or ss_all.ndim != 3 or ss_all.shape[::2] != (len(repeated), len(sp)):
        wanted = f"real numbers ({len(repeated)}, repeat, {len(sp)})"
        raise fault.no(
            "ss_all", wanted, "give (test image, repeat, neuron), the images and neurons of the other fields"
        )


def _finite(fault: Fields) -> None:
    """Said here by the file's own axes; what a `Scan` makes of them has others."""
    for field, what in (("sp", "neuron {}, column {}"), ("ss_all", "test image {}, repeat {}, neuron {}")):
        for start, row in enumerate(fault.values[field]):
            if not np.isfinite(row).all():
                at = np.argwhere(~np.isfinite(row))[0]
                said = f"is {row[tuple(at)]} at {what.format(start, *at)}; drop it from every field or mend the value"
                raise fault.fault(field, said)


def _bank_of(file: Path) -> Path:
    for name in (file.stem + _OWN, _BANK):
        if file.with_name(name).is_file():
            return file.with_name(name)
    others = [p for p in sorted(file.parent.glob("*text16*.mat")) if not p.name.endswith(_OWN)]
    others += [p for p in sorted(file.parent.glob("*text16*.npz")) if p != file and _holds(p, "img")]
    if len(others) > 1:
        named = " or ".join(p.name for p in others)
        raise InputError(f"{file}: its pictures could be in {named}; rename the right one to {_BANK}")
    if not others:
        raise InputError(
            f"{file}: its pictures are in another file, which is not in its folder; put {_BANK} (or an .npz file with "
            f"'img' and text16 in its name) in {file.parent}"
        )
    return others[0]


def _pictures(bank: Path, rows: Int64[np.ndarray, " row"]) -> tuple[UInt8[np.ndarray, "picture height width"], int]:
    """Rows of the bank, ascending, and how many it has; those outside are left to the caller, who knows their field."""
    rows = rows[rows >= 0]
    if bank.suffix != ".npz":
        return read_mat_images(bank, "img", rows)
    mend = "give uint8 (height, width, image)"
    fault = Fields(bank, read_archive(bank, ("img",), mend=mend))
    img = fault.values["img"]
    if img.dtype != np.uint8 or img.ndim != 3 or not img.size:
        raise fault.no("img", "uint8 (height, width, image)", mend)
    return np.ascontiguousarray(np.moveaxis(img[:, :, rows[rows < img.shape[2]]], -1, 0)), img.shape[2]


def _names(fault: Fields, rows: np.ndarray, n_bank: int) -> Shaped[np.ndarray, " image"]:
    if "image_names" in fault.values:
        names: np.ndarray = fault.unique("image_names", n_bank, "picture of the bank")[rows]
        return names
    return np.array([f"nat60k-{row:05d}" for row in rows.tolist()])


def _each_picture_once(
    images: np.ndarray, names: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Int64[np.ndarray, " image"], int]:
    """Merge equal pictures under the first's id; also where each went, and how many were merged."""
    first: dict[bytes, int] = {}  # by digest: there are tens of thousands
    digests = [hashlib.sha256(np.ascontiguousarray(image).data).digest() for image in images]
    same = np.array([first.setdefault(digest, row) for row, digest in enumerate(digests)], dtype=np.int64)
    kept, place = np.unique(same, return_inverse=True)
    return images[kept], names[kept], place.astype(np.int64), len(images) - len(kept)


def _tiers(fault: Fields, trial_image: np.ndarray, n_single: int) -> tuple[Shaped[np.ndarray, " trial"], list[str]]:
    tier = np.full(len(trial_image), "oracle", dtype="<U10")
    if "tier" in fault.values:
        tier[:n_single] = fault.strings("tier", n_single, "column of 'sp'")
        return tier, []
    single = trial_image[:n_single]
    tested = np.isin(single, trial_image[n_single:])
    again = ~tested & (np.bincount(single, minlength=trial_image.max() + 1)[single] > 1)
    tier[:n_single][~(tested | again)] = "train"
    notes = []
    if tested.any():
        notes.append(f"sp: {int(tested.sum())} trials show test images: oracle")
    if again.any():
        notes.append(f"sp: {len(np.unique(single[again]))} images are shown more than once: oracle")
    return tier, notes


def _position(fault: Fields, neurons: int) -> np.ndarray | None:
    if not {"xpos", "ypos"} <= fault.values.keys():
        return None
    depth = "zpos" if "zpos" in fault.values else "iplane"
    columns = []
    for name in ("xpos", "ypos", depth):
        value = fault.values.get(name, np.zeros(neurons))
        if value.dtype.kind not in "fiu" or value.shape != (neurons,):
            raise fault.no(name, f"real numbers ({neurons},)", "give one for each neuron of 'sp'")
        columns.append(value)
    return np.stack(columns, axis=1)


def _order(fault: Fields, trials: int) -> np.ndarray:
    value = fault.values["trial_order"]
    if value.dtype.kind not in "iu" or not np.array_equal(np.sort(value, axis=None), np.arange(trials)):
        raise fault.no(
            "trial_order", f"each of 0..{trials - 1} once", "leave it out, and the trials stand as in the file"
        )
    return value


def _holds(path: Path, name: str) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return f"{name}.npy" in archive.namelist()
    except Exception:  # what is raised depends on the bytes that are damaged
        return False


def _recognises(path: Path) -> bool:
    return path.is_file() and _holds(path, "istim_sp")


NAT60K = ScanFormat(
    "nat60k",
    "an .npz file with sp, istim_sp, ss_all and istim_ss, and its picture bank nat60k_text16.mat in the same folder",
    _recognises,
    read_nat60k,
    write_nat60k,
    ("behavior", "behavior_names", "pupil_center"),
    ".npz",
)
