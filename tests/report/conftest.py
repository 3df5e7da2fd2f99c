"""Synthetic runs with known numbers: nothing is trained here."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from neuroprior.experiment.conditions import condition_named
from neuroprior.experiment.results import METRICS_SCHEMA, ConditionCard, NoiseExamples, RunResults
from neuroprior.experiment.steps.attacking import attacked_name
from neuroprior.robustness import EXTRA_CORRUPTIONS, SEVERITIES, USUAL_CORRUPTIONS, Ledger
from neuroprior.types import AttackRecord, SimilarityTarget, Stimuli

SIGMAS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.15)
CUTOFFS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 14.0)
TAPS = ("stem", "layer1", "layer2", "layer3", "layer4")


def card_of(name: str, label: str, description: str, target: str) -> ConditionCard:
    """The card of a condition, as a run makes it of a recipe whose second losses weigh 20."""
    condition = condition_named(name)
    return ConditionCard(
        name,
        label,
        description,
        target,
        base=condition.base,
        adversarial=condition.adversarial,
        alpha=None if condition.second is None else float(dict(condition.options).get("alpha", 20)),
        plain=condition.plain,
        options=condition.options,
    )


CARDS = {
    "none": card_of("none", "None", "Trained on the task alone.", "no target"),
    "neural_model": card_of(
        "neural_model", "Neural (model)", "The twin's similarity is the target.", "similarity of a V1 twin's responses"
    ),
    "neural_data": card_of(
        "neural_data", "Neural (simulated data)", "Single trials.", "similarity of simulated single trials"
    ),
    "shuffle": card_of("shuffle", "Shuffle", "Images permuted.", "the twin's similarity, images permuted"),
    "blur": card_of("blur", "Blur σ 1 px", "A Gaussian blur is the first module.", "no target"),
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


MANY = {
    # name: (label, clean accuracy, loss of accuracy a unit of sigma)
    "none": ("None", 0.924, 4.5),
    "neural_model": ("Neural (model)", 0.884, 3.0),
    "neural_model@alpha=2": ("Neural (model) α 2", 0.919, 4.0),
    "neural_model@alpha=80": ("Neural (model) α 80", 0.825, 2.2),
    "neural_data": ("Neural (simulated data)", 0.895, 3.4),
    "shuffle": ("Shuffle", 0.888, 3.3),
    "lowpass": ("Low-pass pixels", 0.885, 2.9),
    "pixel": ("Pixels", 0.880, 2.95),
    "vgg": ("VGG-19 conv3_1", 0.893, 3.35),
    "random_twin": ("Untrained twin", 0.890, 3.2),
    "blur": ("Blur σ 1 px", 0.881, 1.9),
    "blur@sigma=2": ("Blur σ 2 px", 0.83, 1.3),
    "adversarial": ("Adversarial", 0.84, 1.6),
    "adversarial+neural_model": ("Adversarial + Neural (model)", 0.83, 1.45),
}


def many_metrics(seeds: Sequence[int]) -> pa.Table:
    """The metrics of fourteen conditions, of every kind that a report shows."""
    rows = []
    for c, (name, (_, clean, slope)) in enumerate(MANY.items()):
        for seed in seeds:
            luck = 0.004 * ((7 * seed + 3 * c) % 5 - 2) + 0.003 * ((seed * 5) % 3)

            def add(metric: str, value: float, n: int, tap: str | None = None, x: float | None = None) -> None:
                rows.append(dict(condition=name, seed=seed, metric=metric, tap=tap, x=x, value=value, n=n))  # noqa: B023

            for sigma in SIGMAS:
                add("noise_accuracy", max(0.1, clean - slope * sigma) + luck, 10_000, x=sigma)
            for radius in (0.0, 0.001, 0.002, 0.004, 0.006, 0.008):
                add("linf_accuracy", max(0.0, clean - 25 * slope * radius) + luck, 1000, x=radius)
            for shots in (1, 5):
                add("few_shot_accuracy", 0.3 + 0.05 * shots + luck, 600, x=float(shots))
            add("linear_probe_accuracy", 0.55 + luck, 10_000)
            add("similarity_correlation", 0.05 * (c % 6) + luck, 4950)
            for k, tap in enumerate(TAPS):
                add("similarity_correlation", 0.1 * k + 0.02 * (c % 5) + luck, 4950, tap=tap)
            for epoch in range(40):
                add("task_loss", 2.0 * 0.9**epoch + 0.03 * c, 50_000, x=float(epoch))
                add("validation_accuracy", clean - 0.5 * 0.8**epoch + luck, 500, x=float(epoch))
                if name in ("none", "blur", "blur@sigma=2", "adversarial"):
                    continue
                add("similarity_loss", 0.3 * 0.9**epoch + 0.01 * c, 496, x=float(epoch))
                theta = 0.4 * epoch * (np.arange(5) == (c + seed // 2) % 5)
                for tap, share in zip(TAPS, np.exp(theta) / np.exp(theta).sum(), strict=True):
                    add("gamma", float(share), 496, tap=tap, x=float(epoch))
    return pa.Table.from_pylist(rows, schema=METRICS_SCHEMA)


@pytest.fixture
def make_many(make_run: MakeRun) -> MakeRun:
    """Fourteen conditions, variants and combinations among them; alpha 20 where a name does not say it."""

    def make(seeds: Sequence[int] = (0, 1, 2, 3, 4), scale: str = "full") -> RunResults:
        target = {"none": "no target", "blur": "no target", "blur@sigma=2": "no target", "adversarial": "no target"}
        cards = [
            card_of(name, label, f"What {label} is.", target.get(name, "similarity of a V1 twin's responses"))
            for name, (label, _, _) in MANY.items()
        ]
        made = make_run(seeds=(0,), metrics=many_metrics(seeds), cards=cards)
        twin = made.targets["neural_model"]
        targets = {**made.targets, **{name: twin for name in MANY if name.startswith("neural_model@")}}
        recipe = f"regularizer:\n  alpha: 20.0\nblur_sigma: 1.0\nscale: {scale}\n"
        return replace(made, targets=targets, recipe_yaml=recipe)

    return make


PROBED_FIRST = {"none": 1.0, "neural_model": 1.6, "neural_data": 1.3, "shuffle": 0.9, "blur": 1.9}
"""How good each condition is made to be, `none` being 1."""
LOST = {"l0": 7.0, "l1": 3.2, "l2": 0.31, "linf": 0.0042}


def probed_metrics(conditions: Sequence[str], seeds: Sequence[int]) -> list[dict[str, object]]:
    """Rows of all that a network may be asked beyond noise, from closed forms: no two conditions or seeds alike."""
    rows: list[dict[str, object]] = []
    for condition in conditions:
        good = PROBED_FIRST[condition]
        for seed in seeds:
            luck = 0.006 * ((5 * seed + len(condition)) % 7 - 3)

            def add(metric: str, value: float, n: int, x: float | int | None = None, tap: str | None = None) -> None:
                at = None if x is None else float(x)
                rows.append(dict(condition=condition, seed=seed, metric=metric, tap=tap, x=at, value=value, n=n))  # noqa: B023

            errors = []
            for k, kind in enumerate((*USUAL_CORRUPTIONS, *EXTRA_CORRUPTIONS)):
                for severity in SEVERITIES:
                    accuracy = 0.62 - 0.02 * (k % 5) - 0.02 * (k % 4 + 2) * severity / good + luck
                    add(f"corruption.{kind}", accuracy, 1000, severity)
                    errors += [1 - accuracy] if kind in USUAL_CORRUPTIONS else []
            add("mean_corruption_error", float(np.mean(errors)), 1000)
            crossover = 7.5 / good + 10 * luck
            for cutoff in CUTOFFS:
                lows = 1 / (1 + np.exp(-(cutoff - crossover) / 1.5))
                add("low_pass_accuracy", 0.1 + 0.5 * lows + luck, 2000, cutoff)
                add("high_pass_accuracy", 0.1 + 0.5 * np.exp(-cutoff * good / 4) + luck, 2000, cutoff)
                most = 0.4 if condition == "shuffle" else 0.85  # its high images lead at every cutoff
                add("hybrid_low", most * lows, 800 + seed, cutoff)
                add("hybrid_high", 0.85 - most * lows, 800 + seed, cutoff)
            if condition != "shuffle":
                add("hybrid_crossover", crossover, 800 + seed)
            for k, norm in enumerate(LOST):
                radii = np.arange(24)
                power = radii * np.exp(-radii * (0.2 + 0.05 * k + luck) * good)
                share = power / power.sum()
                for radius in radii:
                    add(f"perturbation_spectrum_{norm}", float(share[radius]), 190, radius)
                half = np.interp(0.5, np.concatenate([[0], np.cumsum(share)]), np.concatenate([[0], radii + 0.5]))
                add(f"perturbation_half_power_{norm}", float(half), 190)
            for k, tap in enumerate(TAPS):
                add("responsive_units", 1 - 0.05 * k, 64, tap=tap)
                units = round(64 * (1 - 0.05 * k))
                add("preferred_frequency", 0.3 / good / (1 + 0.4 * k) + luck, units, tap=tap)
                add("low_pass_units", 0.1 * k + 0.1 * good + luck, units, tap=tap)
                add("orientation_selectivity", 0.4 - 0.06 * k + luck, units, tap=tap)
                add("simple_units", 0.9 - 0.1 * k + luck, units, tap=tap)
            for norm, radii in (("linf", (1 / 255, 2 / 255)), ("l2", (0.05, 0.1, 0.25))):
                for radius in radii:
                    add(f"attacked_already_wrong_{norm}", 80.0 - round(1000 * luck), 200, radius)
                    add(f"attacked_failed_checks_{norm}", 0.0, 200, radius)
            for radius in (1 / 255, 2 / 255):
                add("attacked_accuracy_linf", max(0.0, 0.6 - 120 * radius / good) + luck / 2, 200, radius)
            for radius in (0.05, 0.1, 0.25):
                add("attacked_accuracy_l2", max(0.0, 0.6 - 3 * radius / good) + 0.02 + luck / 2, 200, radius)
    return rows


def probed_ledger(conditions: Sequence[str], seeds: Sequence[int], *, exhaustive: bool, images: int = 20) -> Ledger:
    """Two attacks a norm, the first with two settings; the first image is already wrong, the last one never fooled.

    The second attack finds 1.2 times as much as the first, and nothing on the second image.
    """
    attacks = {
        "l0": ("sigma_zero", "jsma"),
        "l1": ("fmn", "sparse_fool"),
        "l2": ("brendel_bethge", "ddn"),
        "linf": ("brendel_bethge", "pgd"),
    }
    records = []
    for condition in conditions:
        for seed in seeds:
            name = attacked_name(condition, seed)
            for norm, lost in LOST.items():
                for k in range(images):
                    size = lost * PROBED_FIRST[condition] * (1 + 0.05 * seed) * (0.2 + 1.6 * k / images)

                    def add(
                        attack: str, setting: str, distance: float, status: str, *, alone: bool = True, asked: int = 50
                    ) -> None:
                        found = status == "found"
                        trace = ((asked, asked, distance),) if found else ()
                        records.append(
                            AttackRecord(
                                model=name,  # noqa: B023
                                sample=str(k),  # noqa: B023
                                attack=attack,
                                setting=setting,
                                repetition=0,
                                norm=norm,  # type: ignore[arg-type]  # noqa: B023
                                distance=distance,
                                forwards=asked + 2,
                                gradients=asked,
                                verified=found,
                                status=status,  # type: ignore[arg-type]
                                alone=alone,
                                trace=trace,
                            )
                        )

                    if k == 0:
                        add("clean", "", 0.0, "already_wrong", asked=0)
                        continue
                    add("clean", "", np.inf, "right", asked=0)
                    first, second = attacks[norm]
                    never = k == images - 1
                    for setting, times in (("lr=0.001,steps=100", 1.1), ("lr=0.0001,steps=100", 1.0)):
                        found = np.inf if never else times * size
                        alone = exhaustive or times == 1.1
                        add(first, setting, found, "not_found" if never else "found", alone=alone)
                    missed = never or k == 1
                    status = "not_found" if missed else "found" if exhaustive else "no_better"
                    found = np.inf if missed or not exhaustive else 1.2 * size
                    add(second, "steps=100,gamma=0.05", found, status, alone=exhaustive)
    return Ledger.of_records(records)


@pytest.fixture
def make_probed(make_run: MakeRun) -> MakeRun:
    """A run of five conditions in which everything was asked, its ledger among it."""

    def make(
        seeds: Sequence[int] = (0, 1, 2), conditions: Sequence[str] = tuple(CARDS), exhaustive: bool = True
    ) -> RunResults:
        run = make_run(seeds=seeds, conditions=conditions)
        rows = [*run.metrics.to_pylist(), *probed_metrics(conditions, seeds)]
        metrics = pa.Table.from_pylist(rows, schema=METRICS_SCHEMA)
        ledger = probed_ledger(conditions, seeds, exhaustive=exhaustive)
        return replace(run, metrics=metrics, attacks=ledger)

    return make
