"""A matrix that a user brings: rounding is taken away, anything more is refused by row, value and mend."""

import numpy as np
import pytest

from neuroprior.similarity import user
from neuroprior.similarity.user import load_matrix
from neuroprior.types import InputError

N = 40


@pytest.fixture(params=[1024, 7], ids=["one block", "blocks"])
def write(request, tmp_path, monkeypatch, target):
    """Write a matrix and ids; a matrix is checked the same whether it is read at once or in blocks."""
    monkeypatch.setattr(user, "_ROWS", request.param)

    def files(matrix=target.matrix, ids=tuple(target.image_ids), ending="\n"):
        np.save(tmp_path / "S.npy", matrix)
        (tmp_path / "ids.txt").write_text("\n".join(ids) + ending, encoding="utf-8")
        return tmp_path / "S.npy", tmp_path / "ids.txt"

    return files


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_sound_matrix_is_a_target(write, target, stimuli, dtype, order):
    made = load_matrix(*write(np.asarray(target.matrix, dtype=dtype, order=order)), stimuli)
    assert np.array_equal(made.matrix, target.matrix)
    assert np.array_equal(made.image_ids, stimuli.ids)
    assert made.stimuli_digest == stimuli.digest
    assert made.source == "user"
    assert made.details == {"matrix_file": "S.npy"}


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_exact_matrix_stays_in_its_file(write, target, stimuli, order):
    made = load_matrix(*write(np.asarray(target.matrix, order=order)), stimuli)
    assert isinstance(made.matrix, np.memmap)
    assert not made.matrix.flags.writeable
    rows = np.array([3, 30])
    assert np.array_equal(made.block(rows), target.matrix[np.ix_(rows, rows)])


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.astype(np.float64),
        lambda s: s.astype(">f4"),
        lambda s: spoiled(s, (30, 2), np.nextafter(s[30, 2], np.float32(2)), both=False),
        lambda s: spoiled(s, (30, 30), np.float32(1 - 1e-7)),
        lambda s: spoiled(s, (30, 2), np.nextafter(np.float32(1), np.float32(2))),
    ],
)
def test_any_other_is_corrected_in_memory_and_the_file_left(write, target, stimuli, change):
    file, ids = write(change(target.matrix))
    before = file.read_bytes()
    made = load_matrix(file, ids, stimuli).matrix
    assert not isinstance(made, np.memmap)
    assert made.dtype == np.float32
    assert np.array_equal(made, made.T)
    assert (np.diag(made) == 1).all()
    assert np.abs(made).max() <= 1
    assert file.read_bytes() == before


def test_ids_give_the_order_and_may_be_a_part(write, target, stimuli):
    rows = np.random.default_rng(0).permutation(N)[:15]
    part = target.matrix[np.ix_(rows, rows)]
    made = load_matrix(*write(part, target.image_ids[rows], ending=""), stimuli)
    assert np.array_equal(made.matrix, part)
    assert made.image_ids.tolist() == target.image_ids[rows].tolist()
    assert made.stimuli_digest == stimuli.select(target.image_ids[rows]).digest != stimuli.digest


def test_rounding_is_taken_away(write, target, stimuli):
    noise = np.random.default_rng(0).uniform(-4e-6, 4e-6, (N, N))
    rounded = target.matrix + noise
    rounded[3, 5] = rounded[5, 3] = 1 + 9e-6
    rounded[2, 2] = 1 - 9e-5
    made = load_matrix(*write(rounded), stimuli).matrix
    assert np.array_equal(made, made.T)
    assert (np.diag(made) == 1).all()
    assert made[3, 5] == 1
    upper = np.triu_indices(N, 1)
    mean = np.clip((rounded + rounded.T) / 2, -1, 1)[upper]
    assert np.abs(made[upper] - mean).max() < 1e-7


def test_the_target_survives_saving(write, stimuli, tmp_path):
    made = load_matrix(*write(), stimuli)
    made.save(tmp_path / "target.safetensors")
    again = type(made).load(tmp_path / "target.safetensors")
    assert np.array_equal(again.matrix, made.matrix)
    assert again.source == "user"


def spoiled(matrix, at, value, both=True):
    matrix = np.array(matrix)
    matrix[at] = value
    if both:
        matrix[at[::-1]] = value
    return matrix


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda s: s[:, :-1], r"float32 \(40, 39\), not float \(image, image\) of 2 or more; save it with"),
        (lambda s: s[0], r"float32 \(40,\), not float"),
        (lambda s: s[:1, :1], r"float32 \(1, 1\), not float"),
        (lambda s: s.astype(int), r"int64 \(40, 40\), not float"),
        (lambda s: s.astype(complex), r"complex128 \(40, 40\), not float"),
        (lambda s: s.astype(object), r"not a \.npy file of numbers, or damaged \(Array can't be memory-mapped"),
        (
            lambda s: spoiled(s, (30, 2), np.nan),
            r"row 2, column 30 \('image-02', 'image-30'\) is nan; drop the image or mend its similarity",
        ),
        (
            lambda s: spoiled(s, (30, 2), 0.5, both=False),
            r"row 2, column 30 \('image-02', 'image-30'\) is -?0\.\d+, but row 30, column 2 is 0\.5; average S with",
        ),
        (
            lambda s: spoiled(s, (30, 12), -1.25),
            r"row 12, column 30 \('image-12', 'image-30'\) is -1\.25; similarities must lie in \[-1, 1\]",
        ),
        (lambda s: 1 - s, r"row 0, column 0 \('image-00', 'image-00'\) is 0; .* \(a distance matrix\? pass 1 - dist"),
        (lambda s: spoiled(s, (20, 20), 1.01), r"row 20, column 20 \('image-20', 'image-20'\) is 1\.01; an image's"),
    ],
)
def test_what_is_no_similarity_is_refused(write, target, stimuli, shapes_unchecked, spoil, says):
    with pytest.raises(InputError, match=rf"S\.npy: {says}") as error:
        load_matrix(*write(spoil(target.matrix)), stimuli)
    assert "\n" not in str(error.value)


def test_tolerances_are_as_written(write, target, stimuli):
    for at, value in (((1, 2), float(target.matrix[1, 2]) + 2e-5), ((3, 3), 1 - 2e-4)):
        with pytest.raises(InputError):
            load_matrix(*write(spoiled(target.matrix.astype(float), at, value, both=False)), stimuli)
    with pytest.raises(InputError):
        load_matrix(*write(spoiled(target.matrix.astype(float), (1, 2), 1 + 2e-5)), stimuli)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda ids: ids[:-1], r"39 ids for the 40 rows of S\.npy; write one image id a line"),
        (lambda ids: [*ids, "", ""], r"42 ids for the 40 rows"),
        (lambda ids: [*ids[:7], ids[3], *ids[8:]], r"line 8: 'image-03' stands in line 4 already; name each once"),
        (lambda ids: [*ids[:7], "other", *ids[8:]], r"line 8: 'other' is not among the 40 stimuli; pass the stimuli"),
        (lambda ids: [*ids[:7], "", *ids[8:]], r"line 8: '' is not among the 40 stimuli"),
    ],
)
def test_wrong_ids_are_named_by_line(write, target, stimuli, change, says):
    with pytest.raises(InputError, match=rf"ids\.txt: {says}"):
        load_matrix(*write(ids=change(target.image_ids.tolist())), stimuli)


def test_files_from_other_systems_and_other_files(write, target, stimuli, tmp_path):
    matrix, ids = write()
    ids.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(target.image_ids).encode())  # as Windows writes it
    assert np.array_equal(load_matrix(matrix, ids, stimuli).image_ids, target.image_ids)
    ids.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"ids\.txt: not a UTF-8 text file"):
        load_matrix(matrix, ids, stimuli)
    with pytest.raises(InputError, match=r"none\.txt: no such file; write the image ids there"):
        load_matrix(matrix, tmp_path / "none.txt", stimuli)
    with pytest.raises(InputError, match=r"none\.npy: no such file; save it with numpy\.save"):
        load_matrix(tmp_path / "none.npy", ids, stimuli)
    np.savez(tmp_path / "S.npz", S=target.matrix)
    with pytest.raises(InputError, match=r"S\.npz: an \.npz archive, not a \.npy file"):
        load_matrix(tmp_path / "S.npz", ids, stimuli)
    content = matrix.read_bytes()
    for damaged in (b"", b"0.1,0.2", content[:50], content[:-100]):
        matrix.write_bytes(damaged)
        with pytest.raises(InputError, match=r"S\.npy: not a \.npy file of numbers, or damaged"):
            load_matrix(matrix, ids, stimuli)
