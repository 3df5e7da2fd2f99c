"""Targets made in little memory are those made in much, and what holds of a whole holds of its parts."""

import dataclasses

import numpy as np
import pytest
import torch

from neuroprior.similarity import (
    average_targets,
    blocks,
    target_from_population,
    target_from_populations,
    unit,
    write_target,
)
from neuroprior.types import InputError, Population, SimilarityTarget, Stimuli
from neuroprior.types.disk import RowBlocks, write_tensors
from reference import similarity as slow


@pytest.fixture(params=[7, 13, 512])
def rows_at_a_time(request, monkeypatch) -> int:
    monkeypatch.setattr(blocks, "_ROWS", request.param)
    monkeypatch.setattr(blocks, "_NEURONS", request.param)
    monkeypatch.setattr(unit, "_BLOCK", request.param * 30)
    return request.param


def population(stimuli: Stimuli, seed: int, neurons: int = 30) -> Population:
    rng = np.random.default_rng(seed)
    r = rng.gamma(2.0, size=(len(stimuli), neurons)).astype(np.float32)
    return Population(stimuli.ids, r, rng.gamma(1.0, size=neurons).astype(np.float32), "recorded")


def part(target: SimilarityTarget, stimuli: Stimuli, rows: np.ndarray) -> SimilarityTarget:
    return target.select(stimuli.select(stimuli.ids[rows]))


def test_the_target_of_several_populations_is_the_mean_of_theirs(stimuli, rows_at_a_time):
    held = [population(stimuli, k, 20 + k) for k in range(3)]
    made = target_from_populations((p for p in held), stimuli)
    expected = average_targets([target_from_population(p, stimuli) for p in held])
    np.testing.assert_allclose(made.matrix, expected.matrix, atol=1e-6)
    np.testing.assert_allclose(made.matrix, sum(slow.centered_cosine(p.mean * p.weights) for p in held) / 3, atol=1e-5)
    np.testing.assert_array_equal(made.matrix, made.matrix.T)
    assert (np.diag(made.matrix) == 1).all()
    for field in ("image_ids", "stimuli_digest", "source", "n_scans", "details"):
        assert np.array_equal(getattr(made, field), getattr(expected, field))
    alike = target_from_populations([population(stimuli, k) for k in range(2)], stimuli, details={"tier": "train"})
    assert alike.details == {"neurons": 30, "averaged_targets": 2, "tier": "train"}


def test_populations_are_matched_by_id_and_centred_on_all_their_images(stimuli):
    first, second = population(stimuli, 0), population(stimuli, 1)
    order = np.random.default_rng(0).permutation(len(stimuli))
    moved = Population(second.image_ids[order], second.mean[order], second.weights, "twin")
    made = target_from_populations([first, moved], stimuli)
    same = target_from_populations([first, second], stimuli)
    np.testing.assert_allclose(made.matrix, same.matrix, atol=1e-6)
    assert (made.source, same.source) == ("user", "recorded")
    unmatched = Population(second.image_ids, second.mean[order], second.weights, "twin")
    assert not np.allclose(target_from_populations([first, unmatched], stimuli).matrix, same.matrix, atol=1e-2)


def test_one_population_is_held_at_a_time(stimuli):
    alive: list[int] = []

    def one_by_one():
        import gc
        import weakref

        refs: list[weakref.ref] = []
        for k in range(3):
            gc.collect()
            alive.append(sum(ref() is not None for ref in refs))
            made = np.random.default_rng(k).gamma(2.0, size=(len(stimuli), 9)).astype(np.float32)
            refs.append(weakref.ref(made))
            held = Population(stimuli.ids, made, np.ones(9, np.float32), "recorded")
            del made
            yield held
            del held

    target_from_populations(one_by_one(), stimuli)
    assert alive == [0, 0, 0]


def test_what_is_written_block_by_block_is_what_save_writes(stimuli, rows_at_a_time, tmp_path):
    one = population(stimuli, 2)
    whole = target_from_population(one, stimuli, details={"scan": "monday"})
    written = write_target(tmp_path / "blocks", one, stimuli, details={"scan": "monday"})
    again = SimilarityTarget.load(tmp_path / "blocks")
    for made in (written, again):
        np.testing.assert_allclose(made.matrix, whole.matrix, atol=1e-6)
        assert (np.diag(made.matrix) == 1).all()
        for field in ("image_ids", "stimuli_digest", "source", "n_scans", "details"):
            assert np.array_equal(getattr(made, field), getattr(whole, field))
    written.save(tmp_path / "saved")
    assert (tmp_path / "saved").read_bytes() == (tmp_path / "blocks").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["blocks", "saved"]


def test_a_file_appears_whole_or_not_at_all(stimuli, tmp_path):
    def wrong(last: np.ndarray):
        yield np.zeros((30, 40), np.float32)
        yield last

    fields = {"image_ids": stimuli.ids, "stimuli_digest": "x", "source": "user"}
    bad = np.zeros((10, 40), np.float32)
    bad[3, 5] = np.nan
    with pytest.raises(InputError, match="similarity of 'image-33' and 'image-05' is nan"):
        SimilarityTarget.write(tmp_path / "t", wrong(bad), **fields)
    with pytest.raises(InputError, match="must lie in"):
        SimilarityTarget.write(tmp_path / "t", wrong(np.full((10, 40), 2, np.float32)), **fields)
    with pytest.raises(ValueError, match="matrix was to end at byte"):
        SimilarityTarget.write(tmp_path / "t", wrong(np.zeros((9, 40), np.float32)), **fields)
    with pytest.raises(InputError, match="stands more than once"):
        SimilarityTarget.write(tmp_path / "t", [], **(fields | {"image_ids": np.array(["a", "a"])}))
    assert not list(tmp_path.iterdir())


def test_rows_in_blocks_are_the_array(tmp_path):
    array = np.random.default_rng(0).random((11, 4)).astype(np.float32)
    cut = RowBlocks(array.shape, array.dtype, (array[k : k + 3] for k in range(0, 11, 3)))
    write_tensors(tmp_path / "a", {"x": array}, {"k": "v"})
    write_tensors(tmp_path / "b", {"x": cut}, {"k": "v"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_intersection_is_the_part_of_the_whole(stimuli):
    wholes = [target_from_population(population(stimuli, k), stimuli) for k in range(3)]
    mean = average_targets(wholes)
    rng = np.random.default_rng(0)
    kept = [rng.permutation(40)[:n] for n in (35, 40, 33)]
    parts = [part(target, stimuli, rows) for target, rows in zip(wholes, kept, strict=True)]
    common = [row for row in kept[0] if row in kept[1] and row in kept[2]]
    made = average_targets(parts, missing="intersection", stimuli=stimuli)
    assert made.image_ids.tolist() == stimuli.ids[common].tolist()
    np.testing.assert_allclose(made.matrix, mean.matrix[np.ix_(common, common)], atol=1e-6)
    assert made.stimuli_digest == stimuli.select(made.image_ids).digest
    assert made.details["images_left_out"] == 40 - len(common)
    assert made.n_scans == 3
    # centring each on the common images anew is something else
    again = [p.select(made.image_ids) for p in (population(stimuli, k) for k in range(3))]
    assert np.abs(target_from_populations(again, stimuli).matrix - made.matrix).max() > 0.02


def test_another_order_is_matched_where_the_stimuli_are_known(stimuli):
    one, two = (target_from_population(population(stimuli, k), stimuli) for k in range(2))
    moved = part(two, stimuli, np.random.default_rng(0).permutation(40))
    made = average_targets([one, moved], stimuli=stimuli)
    np.testing.assert_array_equal(made.matrix, average_targets([one, two]).matrix)
    assert "images_left_out" not in made.details
    with pytest.raises(InputError, match="target 1 is of other stimuli than target 0"):
        average_targets([one, moved])


def test_missing_images_are_counted_and_pixels_compared(stimuli):
    one, two = (target_from_population(population(stimuli, k), stimuli) for k in range(2))
    fewer = part(two, stimuli, np.arange(5, 40))
    with pytest.raises(
        InputError,
        match=r"target 1 lacks 5 of the 40 images of target 0 and holds 0 others \(first: 'image-00'\); predict one",
    ):
        average_targets([one, fewer], stimuli=stimuli)
    with pytest.raises(InputError, match="target 1 lacks 0 of the 35 images of target 0 and holds 5 others"):
        average_targets([fewer, one])
    with pytest.raises(InputError, match="pass the stimuli of all"):
        average_targets([one, fewer], missing="intersection")
    pixels = stimuli.pixels.copy()
    pixels[20, 3, 3] ^= 1
    with pytest.raises(InputError, match="target 0 was made from other pixels"):
        average_targets([one, fewer], missing="intersection", stimuli=Stimuli(stimuli.ids, pixels))
    with pytest.raises(InputError, match="average_targets, target 0: stimuli: 5 of 40 images are not among"):
        average_targets([one, fewer], missing="intersection", stimuli=stimuli.select(stimuli.ids[5:]))
    apart = part(two, stimuli, np.arange(20, 40)), part(one, stimuli, np.arange(21))
    with pytest.raises(InputError, match="1 images are common to all 2; at least 2"):
        average_targets(apart, missing="intersection", stimuli=stimuli)


def test_what_cannot_be_used_is_said_in_one_line(stimuli, tmp_path):
    good = population(stimuli, 0)
    fewer = good.select(stimuli.ids[:30])
    bad, at_mean = (good.mean.copy() for _ in range(2))
    bad[4, 2] = np.nan
    at_mean[:] = at_mean[:1]
    cases = [
        ([], "no population given"),
        ([good, good, fewer], "population 2 lacks 10 of the 40 images of population 0 and holds 0 others"),
        ([dataclasses.replace(good, mean=bad)], "response to image 'image-04' is not finite"),
        ([good, dataclasses.replace(good, mean=at_mean)], "image 'image-00' equals the mean over images"),
        ([dataclasses.replace(good, weights=0 * good.weights)], "all weights are 0"),
    ]
    for populations, message in cases:
        with pytest.raises(InputError) as error:
            target_from_populations(populations, stimuli)
        assert message in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="'image-04' is not finite"):
        write_target(tmp_path / "t", dataclasses.replace(good, mean=bad), stimuli)
    with pytest.raises(InputError, match="10 of 40 images are not among these 30"):
        write_target(tmp_path / "t", good, stimuli.select(stimuli.ids[:30]))
    assert not list(tmp_path.iterdir())


def test_responses_are_left_as_they_were_and_unit_vectors_have_length_1(stimuli):
    one = population(stimuli, 3)
    before = one.mean.copy()
    e = unit.unit_vectors(one.mean, torch.from_numpy(one.weights.copy()), str)
    np.testing.assert_allclose(torch.linalg.vector_norm(e, dim=1).numpy(), 1, atol=1e-6)
    target_from_populations([one], stimuli)
    np.testing.assert_array_equal(one.mean, before)
