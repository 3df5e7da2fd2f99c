"""Measurements as values, and a finished run: everything that a report needs, read from the run's folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from neuroprior.recordings import ScanStability
from neuroprior.robustness import Ledger
from neuroprior.types import Float32, SimilarityTarget, Stimuli

METRICS_SCHEMA = pa.schema(
    [
        pa.field("condition", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("tap", pa.string()),  # the layer, for what is measured per layer; null otherwise
        pa.field("x", pa.float64()),  # noise sigma, or epoch; null for a single number
        pa.field("value", pa.float64(), nullable=False),
        pa.field("n", pa.int64(), nullable=False),  # how many images or pairs are behind the value
    ]
)
"""Long form, no time and no path. Metrics: `noise_accuracy` (x: sigma; of Gaussian noise, of others
`uniform_noise_accuracy` and `salt_and_pepper_noise_accuracy`), `linf_accuracy` (x: radius), `similarity_correlation`
(Pearson of S_cnn and S_neural on held-out stimuli, i < j; one row with tap null for the gamma-weighted S, one a tap);
of the smallest perturbations in l2 (or linf) `median_l2`, `median_of_right_l2`, `mean_l2` (of the finite),
`already_wrong_l2`, `not_found_l2`, `quarantined_l2` and `gradients_l2` (spent for an image), `perturbation_spectrum_l2`
(x: cycles per image) and `perturbation_half_power_l2`; `attacked_accuracy_linf` (x: radius), with
`attacked_already_wrong_linf` and `attacked_failed_checks_linf`; `corruption.KIND` (accuracy; x: severity) and
`mean_corruption_error`; `low_pass_accuracy`, `high_pass_accuracy`, `hybrid_low`, `hybrid_high` (x: cutoff, cycles per
image) and `hybrid_crossover`; of units, one a tap, `preferred_frequency` (cycles per pixel), `low_pass_units`,
`orientation_selectivity`, `simple_units`, `responsive_units`; `white_box_median_linf`, `decision_based_median_linf`;
of simulated twins, with the seed of their fit, `similarity_to_truth` and `similarity_to_truth_oracle` (Pearson of
S_model and the noise-free S, both means over scans, on training and on oracle images, pairs i < j; condition
`neural_model` or `neural_model@twin=VARIANT`; as `neural_data`, with the seed of the mice, S_data of single trials and
S_oracle of all repeats, Eq. 3), `twin_correlation` and `twin_single_trial_correlation` (of predictions and the oracle
images' mean responses, or single responses; mean over neurons, n of them); of recordings, with seed 0,
`oracle_correlation` (x: the scan's place; Pearson of its Eq. 3 with what the condition makes of the same images, pairs
i < j; conditions also `neural_data` and `neural_data_apart`, single trials inside the average and apart from it,
`other_scans`, the mean of the others, and of simulated mice `truth`), `fluctuation_over_scans` and
`fluctuation_over_repeats` (x: the scan's place; standard deviation of Eq. 4 and of Eq. 5);
and, with x: epoch, `task_loss`, `similarity_loss`, `validation_loss`, `validation_accuracy`, `gamma` (one a tap)."""


OF_RECORDINGS = frozenset(
    {
        "similarity_to_truth",
        "similarity_to_truth_oracle",
        "twin_correlation",
        "twin_single_trial_correlation",
        "oracle_correlation",
        "fluctuation_over_scans",
        "fluctuation_over_repeats",
    }
)
"""Metrics that are of recordings and twins: their seeds are of no network."""


@dataclass(frozen=True, slots=True)
class ConditionCard:
    """What a condition is, in words: `label` for legends, `description` one sentence, `target` said in one clause.

    `base`: the condition that it is a variant of, or itself; `adversarial`: trained on attacked images; `alpha`: the
    weight of its second loss (at the end, where it changes), None without one; `plain`: made without a brain, another
    trained network or an attack, so that it is what a brain must beat; `options`: what is otherwise for it than the
    recipe's sections say.
    """

    name: str
    label: str
    description: str
    target: str
    base: str
    adversarial: bool = False
    alpha: float | None = None
    plain: bool = False
    options: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class NoiseExamples:
    """A few test images, to be shown at every noise level. `images`: [0, 1], `(image, height, width)`."""

    images: Float32[np.ndarray, "image height width"]
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class UnitImages:
    """What excites some units of a network most. `layers`, `channels`: of each unit; `images`: [0, 1]."""

    layers: tuple[str, ...]
    channels: tuple[int, ...]
    images: Float32[np.ndarray, "unit channel height width"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Measurements:
    """What was measured of the networks of some conditions, wherever they were trained."""

    name: str
    conditions: tuple[ConditionCard, ...]
    metrics: pa.Table
    noise_levels: tuple[float, ...]
    shown_levels: tuple[float, ...] = (0.05, 0.10, 0.15)
    """Noise levels of the headline table."""
    n_classes: int | None = None
    """None until a network has been measured."""
    targets: Mapping[str, SimilarityTarget] = field(default_factory=dict)
    """By condition; conditions without a target (`none`, `blur`) are absent."""
    attacks: Ledger | None = None
    """Every attempt to fool a network, `model` being `CONDITION seed SEED`; None where nothing was attacked."""
    missing: tuple[str, ...] = ()
    """What is not finished, by name."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the networks that something was measured of, ascending."""
        rows = zip(self.metrics["metric"].to_pylist(), self.metrics["seed"].to_pylist(), strict=True)
        return tuple(sorted({seed for metric, seed in rows if metric not in OF_RECORDINGS}))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class RunResults(Measurements):
    """One run, as far as it is finished. `missing` names the steps that are not."""

    folder: Path
    description: str
    task: str
    """What is classified, in words that end a sentence: "handwritten digits"."""
    recipe_yaml: str
    provenance: Mapping[str, Any]
    truth: SimilarityTarget | None
    """The noise-free similarity, where the mouse was simulated and it is known."""
    stimuli: Stimuli
    stability: ScanStability | str | None = None
    """Of the recordings behind the target; why there is none; None where it is made of no recording, or not yet."""
    examples: NoiseExamples
    units: Mapping[str, UnitImages] = field(default_factory=dict)
    """By condition, of the first seed: what excites some units most."""
    masking: Mapping[int, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)
    """By seed: what was measured of each network to tell masked gradients, as `robustness.Masking` has it, `masked` and
    the `verdict` in words."""
    figures: tuple[str, ...] | None = None
    """Which figures the page has; all where it is None."""
