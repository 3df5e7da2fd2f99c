"""Similarity targets and Eq. 3: time and memory against the bare matrix products and the loops a person would write.

    python benchmarks/similarity.py [--json] [--repeats 2] [--images 5000] [--neurons 8000] [--scans 8]

Four things, at the paper's sizes, float32. (1) The target of 8 scans of 8,000 neurons on 5,000 images, all made and
checked, against the 8 products E E^T alone; its memory above what the process held before, in a process of its own.
(2) The target of 50,000 images of 1,000 neurons, written to disk; memory of that process as a whole. (3) Eq. 3 of 100
images x 10 trials x 8,000 neurons against a loop over pairs of trials whose unit vectors are there already, timed on a
random sample of pairs and scaled to all, and (4) against their Gram matrix, reduced by blocks: once with the unit
vectors given, once with making them, as ours does.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from measured import at_least, at_most, in_turn, most_held, ratio, show, spread

from neuroprior.similarity import oracle_similarity, target_from_populations, write_target
from neuroprior.types import Population, SimilarityTarget, Stimuli

ORACLE, TRIALS, ORACLE_NEURONS = 100, 10, 8000
SAMPLED = 4000  # pairs of trials that the loop is timed on
LARGE = (50_000, 1000)
MIB = 1 << 20


def stimuli_of(images: int) -> Stimuli:
    """Images of 36x64, which only their digest needs."""
    pixels = np.random.default_rng(0).integers(0, 256, (images, 36, 64), dtype=np.uint8)
    return Stimuli(np.array([f"image-{k}" for k in range(images)]), pixels)


def population_of(ids: np.ndarray, neurons: int, seed: int) -> Population:
    """Positive responses, and weights as uneven as SNRs are."""
    random = np.random.default_rng(seed)
    mean = random.standard_exponential((len(ids), neurons), dtype=np.float32)
    return Population(ids, mean, random.gamma(2.0, size=neurons).astype(np.float32), "recorded")


def populations_of(ids: np.ndarray, neurons: int, scans: int) -> Iterator[Population]:
    """One population after another, each made when it is asked for."""
    for seed in range(scans):
        yield population_of(ids, neurons, seed)


def measure_target(images: int, neurons: int, scans: int) -> None:
    """Print the bytes that a target of several scans takes above what was held before (in a process of its own)."""
    stimuli = stimuli_of(images)
    target_from_populations(populations_of(stimuli.ids[:600], 64, 2), stimuli)  # libraries load, threads start
    before = most_held()
    target = target_from_populations(populations_of(stimuli.ids, neurons, scans), stimuli)
    assert len(target) == images
    print(most_held() - before)


def measure_file(path: Path, images: int, neurons: int) -> None:
    """Print the seconds that writing a large target takes and the most bytes that the whole process ever held."""
    stimuli = stimuli_of(images)
    population = population_of(stimuli.ids, neurons, 0)
    start = time.perf_counter()
    target = write_target(path, population, stimuli)
    seconds, held = time.perf_counter() - start, most_held()
    rows = np.random.default_rng(1).choice(images, size=32, replace=False)
    assert np.abs(target.block(rows) - exact_block(population, rows)).max() < 1e-5
    print(seconds, held, path.stat().st_size)


def exact_block(population: Population, rows: np.ndarray) -> np.ndarray:
    """Eq. 2 in float64, of some images."""
    mean = population.mean.mean(axis=0, dtype=np.float64)
    e = (population.mean[rows] - mean) * population.weights
    e /= np.linalg.norm(e, axis=1, keepdims=True)
    return e @ e.T


def in_a_process(*arguments: object) -> list[float]:
    """Run this file again, to measure one thing; return the numbers printed."""
    command = [sys.executable, __file__, *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(word) for word in done.stdout.split()]


def unit_trials(responses: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """e_it, as one would write it."""
    r = responses * weights
    r = r - r.mean(dim=0)
    return r / r.norm(dim=1, keepdim=True)


def by_gram(e: torch.Tensor) -> torch.Tensor:
    """Eq. 3 of unit vectors sorted by image: all pairs of trials at once, then the mean of each block."""
    similarity = (e @ e.T).view(ORACLE, TRIALS, ORACLE, TRIALS).mean(dim=(1, 3))
    similarity.diagonal().mul_(TRIALS**2).sub_(TRIALS).div_(TRIALS**2 - TRIALS)
    return similarity


def by_loop(e: np.ndarray, pairs: np.ndarray) -> float:
    """Add up the similarity of pairs of trials in Python."""
    total = 0.0
    for t, u in pairs.tolist():
        total += np.dot(e[t], e[u])
    return float(total)


def oracle_checks(repeats: int) -> tuple[list[dict], dict[str, str]]:
    """Eq. 3 against the loop and the Gram matrix."""
    random = np.random.default_rng(0)
    ids = np.repeat(np.arange(ORACLE), TRIALS)
    signal = random.standard_exponential((ORACLE, ORACLE_NEURONS), dtype=np.float32)
    responses = signal[ids] * random.standard_exponential((len(ids), ORACLE_NEURONS), dtype=np.float32)
    weights = random.gamma(2.0, size=ORACLE_NEURONS).astype(np.float32)
    r, w = torch.from_numpy(responses), torch.from_numpy(weights)
    e = unit_trials(r, w)
    pairs = np.stack(np.triu_indices(len(ids), 1), axis=1)
    sampled = random.choice(pairs, size=SAMPLED, replace=False)
    vectors = e.numpy()
    assert np.abs(by_gram(e).numpy() - oracle_similarity(responses, ids, weights)[1]).max() < 1e-5
    taken = in_turn(
        {
            "ours, from responses": lambda: oracle_similarity(responses, ids, weights),
            "Gram matrix, unit vectors given": lambda: by_gram(e),
            "Gram matrix, from responses": lambda: by_gram(unit_trials(r, w)),
            f"loop, {SAMPLED} pairs, unit vectors given": lambda: by_loop(vectors, sampled),
        },
        repeats,
    )
    ours, gram, whole, loop = taken.values()
    all_pairs = [seconds * len(pairs) / SAMPLED for seconds in loop]
    size = f"{ORACLE} images x {TRIALS} x {ORACLE_NEURONS} neurons"
    return [
        at_least(f"Eq. 3, {size}: times faster than a loop over pairs of trials", ratio(all_pairs, ours), 30),
        at_least(f"Eq. 3, {size}: times faster than the Gram matrix reduced by blocks", ratio(whole, ours), 4),
    ], {
        **{f"seconds, {name}": spread(seconds) for name, seconds in taken.items()},
        f"seconds, loop over all {len(pairs)} pairs, scaled from {SAMPLED} drawn at random": spread(all_pairs),
        "times faster than the Gram matrix alone, its unit vectors given": f"{ratio(gram, ours):.2f}",
    }


def target_checks(images: int, neurons: int, scans: int, repeats: int) -> tuple[list[dict], dict[str, str]]:
    """The target of several scans against its bare products, and its memory."""
    stimuli = stimuli_of(images)
    held = list(populations_of(stimuli.ids, neurons, scans))
    unit, product = torch.from_numpy(held[0].mean.copy()), torch.empty(images, images)

    def bare() -> None:
        for _ in range(scans):
            torch.mm(unit, unit.T, out=product)

    def ours() -> SimilarityTarget:
        return target_from_populations(held, stimuli)

    taken = in_turn({"ours": ours, "bare products": bare}, repeats)
    del held, unit, product
    matrix, block = 4 * images**2, 4 * images * neurons
    (above,) = in_a_process("--measure-target", images, neurons, scans)
    size = f"{scans} scans x {neurons} neurons x {images} images"
    return [
        at_most(f"{size}: time over that of the bare products", ratio(taken["ours"], taken["bare products"]), 1.3),
        at_most(f"{size}: most memory, MiB (one matrix and two blocks)", above / MIB, (matrix + 2 * block) / MIB),
    ], {f"seconds, {name}": spread(seconds) for name, seconds in taken.items()}


def file_checks(images: int, neurons: int) -> tuple[list[dict], dict[str, str]]:
    """A large target, written block by block."""
    with tempfile.TemporaryDirectory() as folder:
        seconds, held, size = in_a_process("--measure-file", Path(folder) / "target.safetensors", images, neurons)
    return [
        at_most(f"{images} images of {neurons} neurons to disk: most memory of the process, GB", held / 1e9, 2.0)
    ], {
        f"{images} images to disk": f"{seconds:.3g} s once, {size / 1e9:.3g} GB",
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2, help="of the large target; Eq. 3 is timed 15 times")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--neurons", type=int, default=8000)
    parser.add_argument("--scans", type=int, default=8)
    parser.add_argument("--json", action="store_true", help="end with one JSON object on a line")
    parser.add_argument("--measure-target", nargs=3, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--measure-file", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure_target:
        return measure_target(*arguments.measure_target)
    if arguments.measure_file:
        path, images, neurons = arguments.measure_file
        return measure_file(Path(path), int(images), int(neurons))

    oracle, oracle_details = oracle_checks(15)
    target, target_details = target_checks(arguments.images, arguments.neurons, arguments.scans, arguments.repeats)
    file, file_details = file_checks(*LARGE)
    return show(
        "similarity",
        [*target, *file, *oracle],
        {**target_details, **file_details, **oracle_details},
        arguments.json,
    )


if __name__ == "__main__":
    main()
