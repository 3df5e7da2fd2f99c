"""Synthetic runs with known numbers: nothing is trained here."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from neuroprior.experiment.results import METRICS_SCHEMA, ConditionCard, NoiseExamples, RunResults
from neuroprior.types import SimilarityTarget, Stimuli

SIGMAS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.15)
TAPS = ("stem", "layer1", "layer2", "layer3", "layer4")
CARDS = {
    "none": ConditionCard("none", "None", "Trained on the task alone.", "no target"),
    "neural_model": ConditionCard(
        "neural_model", "Neural (model)", "The twin's similarity is the target.", "similarity of a V1 twin's responses"
    ),
    "neural_data": ConditionCard(
        "neural_data", "Neural (data)", "Single trials.", "similarity of simulated single trials"
    ),
    "shuffle": ConditionCard("shuffle", "Shuffle", "Images permuted.", "the twin's similarity, images permuted"),
    "blur": ConditionCard("blur", "Blur σ 1 px", "A Gaussian blur is the first module.", "no target"),
}
CLEAN = {"none": 0.64, "neural_model": 0.59, "neural_data": 0.60, "shuffle": 0.63, "blur": 0.62}
SLOPE = {"none": 3.2, "neural_model": 1.9, "neural_data": 2.8, "shuffle": 3.3, "blur": 2.0}
WEIGHTS = "1 for every neuron (ready-made twin: no recording, so no w and v)"

MakeRun = Callable[..., RunResults]


def accuracy(condition: str, seed: int, sigma: float) -> float:
    """The accuracy that the synthetic run gives: a straight line down, a little offset a seed."""
    return max(0.12, CLEAN[condition] - SLOPE[condition] * sigma) + 0.01 * ((7 * seed + len(condition)) % 5 - 2)


def metrics_of(conditions: Sequence[str], seeds: Sequence[int], epochs: int = 6) -> pa.Table:
    rows = []

    def add(
        condition: str, seed: int, metric: str, value: float, n: int, tap: str | None = None, x: float | None = None
    ):
        rows.append(dict(condition=condition, seed=seed, metric=metric, tap=tap, x=x, value=value, n=n))

    for condition in conditions:
        for seed in seeds:
            for sigma in SIGMAS:
                add(condition, seed, "noise_accuracy", accuracy(condition, seed, sigma), 500, x=sigma)
            for epoch in range(epochs):
                add(condition, seed, "task_loss", 2.0 * 0.7**epoch + 0.02 * seed, 2000, x=epoch)
                add(condition, seed, "validation_loss", 2.1 * 0.75**epoch, 100, x=epoch)
                add(condition, seed, "validation_accuracy", 0.65 - 0.5 * 0.6**epoch + 0.01 * seed, 100, x=epoch)
            if condition in ("none", "blur"):
                continue
            add(condition, seed, "similarity_correlation", 0.5 - 0.02 * seed, 190)
            for k, tap in enumerate(TAPS):
                add(condition, seed, "similarity_correlation", 0.1 * k + 0.01 * seed, 190, tap=tap)
            for epoch in range(epochs):
                add(condition, seed, "similarity_loss", 0.3 * 0.8**epoch + 0.01 * seed, 190, x=epoch)
                theta = np.array([0.1 * epoch * (k == (3 + seed) % 5) * 8 for k in range(5)])
                for tap, share in zip(TAPS, np.exp(theta) / np.exp(theta).sum(), strict=True):
                    add(condition, seed, "gamma", float(share), 190, tap=tap, x=epoch)
    return pa.Table.from_pylist(rows, schema=METRICS_SCHEMA)


def cosine(responses: np.ndarray) -> np.ndarray:
    centred = responses - responses.mean(0)
    e = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    return np.clip(e @ e.T, -1, 1).astype(np.float32)


def targets_of(stimuli: Stimuli, conditions: Sequence[str]) -> tuple[dict[str, SimilarityTarget], SimilarityTarget]:
    rng = np.random.default_rng(3)
    n = len(stimuli)
    signal = rng.standard_normal((5, 20))[np.arange(n) % 5] + 0.6 * rng.standard_normal((n, 20))
    details = {"weights": WEIGHTS}

    def target(matrix: np.ndarray, source: str, details: dict[str, str]) -> SimilarityTarget:
        return SimilarityTarget(matrix, stimuli.ids, stimuli.digest, source, 1, details)  # type: ignore[arg-type]

    truth = cosine(signal)
    p = rng.permutation(n)
    noisy = cosine(signal + 1.5 * rng.standard_normal(signal.shape))
    made = {
        "neural_model": target(truth, "twin", details),
        "neural_data": target(noisy, "recorded", {"weights": "w (Eq. 1)"}),
        "shuffle": target(np.ascontiguousarray(truth[np.ix_(p, p)]), "twin", details),
    }
    return {name: one for name, one in made.items() if name in conditions}, target(truth, "user", {})


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    def make(
        seeds: Sequence[int] = (0, 1, 2),
        conditions: Sequence[str] = tuple(CARDS),
        unfinished: Sequence[str] = (),
        with_truth: bool = True,
        cards: Sequence[ConditionCard] | None = None,
        metrics: pa.Table | None = None,
        name: str = "A synthetic run",
        examples: int = 4,
    ) -> RunResults:
        rng = np.random.default_rng(0)
        y, x = np.mgrid[:36, :64]
        waves = [np.sin((x * np.cos(a) + y * np.sin(a)) * f) for a, f in rng.uniform(0.1, 1.2, (40, 2))]
        pixels = np.round(127.5 + 120 * np.array(waves)).astype(np.uint8)
        stimuli = Stimuli(np.array([f"photo-{k:02d}" for k in range(40)]), pixels)
        targets, truth = targets_of(stimuli, [c for c in conditions if c not in unfinished])
        return RunResults(
            folder=tmp_path / "run",
            name=name,
            description="Nothing here was measured.",
            task="handwritten digits",
            n_classes=10,
            recipe_yaml="alpha: 20\nnote: 'see http://example.org/<recipe>'\n",
            provenance={
                "command": "neuroprior run recipes/synthetic.yaml",
                "commit": "0123456789abcdef0123456789abcdef01234567",
                "device": "cpu",
                "threads": 1,
                "seeds": list(seeds),
                "versions": {"neuroprior": "0.0.1", "torch": "2.13.0"},
                "data": {"stimuli": stimuli.digest},
            },
            conditions=tuple(CARDS[c] for c in conditions) if cards is None else tuple(cards),
            metrics=metrics_of([c for c in conditions if c not in unfinished], seeds) if metrics is None else metrics,
            targets=targets,
            truth=truth if with_truth else None,
            stimuli=stimuli,
            examples=NoiseExamples(rng.random((examples, 28, 28), dtype=np.float32), ("7", "2", "1", "0")[:examples]),
            noise_levels=SIGMAS,
            missing=tuple(f"train {c}" for c in unfinished),
        )

    return make
