"""Coordinates instead of a matrix: as few as the tolerance asks for, in memory that grows with the images alone."""

import dataclasses
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroprior.similarity import (
    average_factored,
    average_targets,
    centered_cosine,
    factor_population,
    factor_target,
    factored,
    shuffle_target,
    target_from_population,
)
from neuroprior.types import InputError, Population, SimilarityTarget, Stimuli
from reference.similarity import centered_cosine as slow
from reference.similarity import smallest_rank

SEEDS = st.integers(0, 2**32 - 1)
ROUNDING = 1e-6


def some_stimuli(n: int) -> Stimuli:
    return Stimuli(np.array([f"image-{k:06d}" for k in range(n)]), np.zeros((n, 2, 2), dtype=np.uint8))


def some_population(seed: int, images: int, neurons: int) -> Population:
    """Responses of a decaying spectrum, as those of a brain have."""
    rng = np.random.default_rng(seed)
    dims = min(images, neurons)
    latent = rng.standard_normal((images, dims)) / (1 + np.arange(dims))
    mean = (latent @ rng.standard_normal((dims, neurons)) + 3).astype(np.float32)
    return Population(some_stimuli(images).ids, mean, rng.gamma(2.0, size=neurons).astype(np.float32), "twin")


def off_by(target, matrix) -> float:
    e = target.coordinates.astype(np.float64)
    return float(np.abs(e @ e.T - matrix).max())


@pytest.fixture(params=[1 << 26, 1 << 11], ids=["one block", "blocks"])
def _blocks(request, monkeypatch):
    monkeypatch.setattr(factored, "_BLOCK_BYTES", request.param)


@given(SEEDS, st.integers(2, 20), st.integers(1, 12))
@settings(max_examples=50, deadline=None)
def test_theorem_the_largest_entry_of_what_is_cut_stands_on_its_diagonal(seed, images, rank):
    rng = np.random.default_rng(seed)
    e = rng.standard_normal((images, 12))
    q, _ = np.linalg.qr(rng.standard_normal((12, 12)))
    residual = e @ e.T - (e @ q[:, :rank]) @ (e @ q[:, :rank]).T
    lengths = np.square(e).sum(axis=1) - np.square(e @ q[:, :rank]).sum(axis=1)
    assert np.abs(residual).max() == pytest.approx(lengths.max(), abs=1e-9)
    # and not for coordinates that are not orthogonal, where the residual is not positive semidefinite
    stretched = 1.5 * e @ q
    residual = e @ e.T - stretched @ stretched.T
    assert np.abs(residual).max() > (np.square(e).sum(axis=1) - np.square(stretched).sum(axis=1)).max()


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize(("images", "neurons"), [(60, 20), (30, 80), (40, 40)])
@pytest.mark.parametrize("tolerance", [0.3, 0.05, 0.01])
def test_as_few_coordinates_as_keep_every_entry(images, neurons, tolerance):
    population = some_population(3, images, neurons)
    s = slow(population.mean.astype(np.float64) * population.weights)
    rank, error = smallest_rank(s, tolerance)
    for made in (
        factor_population(population, some_stimuli(images), tolerance=tolerance),
        factor_target(target_from_population(population, some_stimuli(images)), tolerance=tolerance),
    ):
        assert made.rank == rank
        assert made.tolerance == pytest.approx(error, abs=ROUNDING)
        assert off_by(made, s) <= made.tolerance + ROUNDING
        assert np.abs(made.block(np.arange(images)) - s).max() <= tolerance + ROUNDING


def test_it_is_a_target_like_the_matrix(stimuli):
    population = dataclasses.replace(some_population(0, 40, 10), image_ids=stimuli.ids, source="recorded")
    matrix = target_from_population(population, stimuli, details={"scan": "a"})
    made = factor_population(population, stimuli, details={"scan": "a"})
    again = factor_target(dataclasses.replace(matrix, n_scans=3))
    assert (made.source, made.stimuli_digest, made.details) == (matrix.source, matrix.stimuli_digest, matrix.details)
    assert (again.source, again.stimuli_digest, again.details) == (matrix.source, matrix.stimuli_digest, matrix.details)
    assert (made.n_scans, again.n_scans) == (1, 3)
    assert np.array_equal(made.image_ids, stimuli.ids)


def test_max_rank_cuts_and_says_what_it_cost():
    population, stimuli = some_population(1, 60, 30), some_stimuli(60)
    matrix = target_from_population(population, stimuli)
    for make, given_ in ((factor_population, (population, stimuli)), (factor_target, (matrix,))):
        made = make(*given_, tolerance=0.01, max_rank=3)
        assert made.rank == 3
        assert made.tolerance > 0.1
        assert made.tolerance == pytest.approx(off_by(made, matrix.matrix), abs=ROUNDING)
        free = make(*given_, tolerance=0.01)
        assert make(*given_, tolerance=0.01, max_rank=free.rank + 5).rank == free.rank


def test_errors_of_the_mean_are_kept_and_add_up():
    stimuli = some_stimuli(80)
    populations = [some_population(seed, 80, 25) for seed in range(3)]
    matrices = average_targets([target_from_population(p, stimuli) for p in populations])
    cut = [factor_population(p, stimuli, tolerance=t) for p, t in zip(populations, (0.01, 0.02, 0.06), strict=True)]
    mean = average_factored(cut, tolerance=0.02)
    assert off_by(mean, matrices.matrix) <= mean.tolerance + ROUNDING
    assert np.mean([t.tolerance for t in cut]) < mean.tolerance <= np.mean([t.tolerance for t in cut]) + 0.02
    assert mean.n_scans == 3
    assert (mean.source, mean.details) == (matrices.source, matrices.details)
    # the cut is of the mean itself, whose rows are shorter than 1, and as small as can be
    exact = sum(t.coordinates.astype(np.float64) @ t.coordinates.T.astype(np.float64) for t in cut) / 3
    assert mean.rank == smallest_rank(exact, 0.02)[0] < sum(t.rank for t in cut)
    assert average_factored([*cut, dataclasses.replace(cut[0], source="user")]).source == "user"


@pytest.mark.usefixtures("_blocks")
def test_more_scans_than_images_average_as_well():
    stimuli = some_stimuli(12)
    cut = [factor_population(some_population(seed, 12, 30), stimuli, tolerance=0.2) for seed in range(4)]
    mean = average_factored(cut, tolerance=0.05)
    exact = sum(t.coordinates.astype(np.float64) @ t.coordinates.T.astype(np.float64) for t in cut) / 4
    assert sum(t.rank for t in cut) > 12 > mean.rank == smallest_rank(exact, 0.05)[0]


def test_only_the_same_stimuli_are_averaged():
    one = factor_population(some_population(0, 12, 5), some_stimuli(12))
    with pytest.raises(InputError, match="target 1 is of other stimuli than target 0"):
        average_factored([one, dataclasses.replace(one, stimuli_digest="x")])
    with pytest.raises(InputError, match="no target given"):
        average_factored([])


def user_matrix(negative: float) -> SimilarityTarget:
    """A symmetric matrix with unit diagonal whose least eigenvalue is -negative."""
    n = 12
    matrix = np.full((n, n), -(1 + negative) / (n - 1), dtype=np.float32)
    np.fill_diagonal(matrix, 1)
    return SimilarityTarget(matrix, some_stimuli(n).ids, some_stimuli(n).digest, "user")


def test_negative_eigenvalues_are_refused_where_they_matter():
    assert factor_target(user_matrix(-0.01)).tolerance < 0.01
    made = factor_target(user_matrix(0.03))  # its rows would be longer than 1: they are not
    assert off_by(made, user_matrix(0.03).matrix) == pytest.approx(made.tolerance, abs=ROUNDING)
    assert made.tolerance <= 0.01
    for max_rank in (None, 3):
        with pytest.raises(InputError, match=r"negative eigenvalues \(down to -3\), .* off by up to 0\.\d+, over the"):
            factor_target(user_matrix(3), max_rank=max_rank)
    factor_target(user_matrix(3), tolerance=0.6)


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("neurons", [5, 50])
def test_unusable_responses_are_named_as_eq_2_names_them(neurons):
    stimuli, good = some_stimuli(31), some_population(2, 31, neurons)

    def spoiled(row, value):
        mean = np.array(good.mean)
        mean[row] = value
        return dataclasses.replace(good, mean=mean)

    centre = np.concatenate([good.mean[:-1], good.mean[:-1].mean(axis=0, dtype=np.float64, keepdims=True)])
    for population, says in (
        (spoiled(17, np.nan), "'image-000017' is not finite"),
        (spoiled((20, 3), -np.inf), "'image-000020' is not finite"),
        (dataclasses.replace(good, mean=centre.astype(np.float32)), "'image-000030' equals the mean"),
    ):
        for make in (factor_population, target_from_population):
            with pytest.raises(InputError, match=says):
                make(population, stimuli)
    with pytest.raises(InputError, match="at least 2 images"):
        factor_population(good.select(good.image_ids[:1]), stimuli)
    with pytest.raises(InputError, match="not among"):
        factor_population(good, some_stimuli(30))
    for wrong in ({"tolerance": 0.0}, {"tolerance": 1.0}, {"tolerance": float("nan")}, {"max_rank": 0}):
        with pytest.raises(InputError, match=f"factored target: {next(iter(wrong))} is"):
            factor_population(good, stimuli, **wrong)


def test_memory_grows_with_neither_the_responses_nor_the_square_of_the_images(tmp_path, monkeypatch):
    """48 MB of responses to 60,000 images (whose matrix were 14 GB), read in blocks of 1 MB."""
    images, neurons = 60_000, 200
    rng = np.random.default_rng(0)
    written = np.lib.format.open_memmap(tmp_path / "mean.npy", "w+", np.float32, (images, neurons))
    directions = rng.standard_normal((5, neurons), dtype=np.float32)
    for start in range(0, images, 5000):
        written[start : start + 5000] = rng.standard_normal((5000, 5), dtype=np.float32) @ directions
    written.flush()
    stimuli = some_stimuli(images)
    mean = np.load(tmp_path / "mean.npy", mmap_mode="r")
    population = Population(stimuli.ids, mean, np.ones(neurons, dtype=np.float32), "twin")
    monkeypatch.setattr(factored, "_BLOCK_BYTES", 1 << 20)
    tracemalloc.start()
    made = factor_population(population, stimuli)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert made.rank == 5
    assert peak < mean.nbytes / 2, f"{peak / 1e6:.0f} MB"
    some = np.arange(0, images, 997)
    e = (mean - mean.mean(axis=0, dtype=np.float64))[some]
    e /= np.linalg.norm(e, axis=1, keepdims=True)
    assert np.abs(made.block(some) - e @ e.T).max() < 1e-5


def test_a_matrix_of_eq_2_needs_no_more_coordinates_than_neurons():
    r = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    target = SimilarityTarget(centered_cosine(r), some_stimuli(50).ids, some_stimuli(50).digest, "user")
    made = factor_target(target, tolerance=1e-5)
    assert made.rank == 4
    assert made.tolerance < 1e-5


def test_shuffling_coordinates_shuffles_the_matrix(target):
    factored = factor_target(target, tolerance=1e-4)
    rows = np.arange(len(target))
    both = shuffle_target(target, 5).matrix, shuffle_target(factored, 5).block(rows)
    assert np.allclose(*both, atol=2e-4)
    assert not np.allclose(target.matrix, both[1], atol=0.1)
