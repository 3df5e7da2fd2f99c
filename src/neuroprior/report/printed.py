"""What paper and rerun printed: pairs of numbers, shares of γ, and claims that a run does not measure."""

from collections.abc import Mapping
from dataclasses import dataclass

NBSP = "\N{NO-BREAK SPACE}"
TOP = 0.15  # the paper's highest noise level


@dataclass(frozen=True, slots=True)
class Pair:
    """Two published numbers of one measure, conditions `a` and `b`; `numbers` None where only a > b was published.

    `numbers`: as they were printed; `metric`: of `metrics.parquet`, or `noise` (at the highest level) or `clean`.
    """

    claim: str
    source: str
    metric: str
    a: str
    b: str
    said: str
    numbers: tuple[str, str] | None = None
    contradictory: bool = False
    """The paper says both that a > b and that it is not."""

    @property
    def sizes(self) -> tuple[float, float] | None:
        """The least and the greatest ratio a / b that the rounding of the printed numbers allows."""
        if self.numbers is None:
            return None
        (a, half_a), (b, half_b) = map(_read, self.numbers)
        return (a - half_a) / (b + half_b), (a + half_a) / (b - half_b)

    @property
    def above(self) -> bool:
        """Whether a > b was published."""
        return self.numbers is None or _read(self.numbers[0])[0] > _read(self.numbers[1])[0]


def _read(printed: str) -> tuple[float, float]:
    """The number, and half a unit of its last digit; `about` is read to five units."""
    digits = printed.removeprefix("about ").removesuffix(f"{NBSP}%")
    half = 2.5 if printed.startswith("about ") else 0.5 * 10.0 ** -len(digits.partition(".")[2])
    return float(digits), half


RERUN = "the authors' rerun, 2020 (probably in colour)"
_SHORT = {"vgg": "VGG", "adversarial": "adversarially trained"}

_PRINTED: tuple[tuple[str, str, str, Mapping[str, str]], ...] = (
    ("Accuracy at the highest noise", "paper, Fig. 4", "noise", {"neural_model": "about 50 %", "none": "about 20 %"}),
    (
        *("Median smallest L∞", "paper, Fig. 5", "median_linf"),
        {"neural_model": "0.0034", "none": "0.0025", "shuffle": "0.0030", "vgg": "0.0028"},
    ),
    (
        *("Median smallest L2", "paper, Fig. 5", "median_l2"),
        {"neural_model": "0.13", "none": "0.09", "shuffle": "0.11", "vgg": "0.11"},
    ),
    ("Median smallest L∞", "paper (Madry et al.)", "median_linf", {"neural_model": "0.0034", "adversarial": "0.029"}),
    (
        *("Clean accuracy", RERUN, "clean"),
        {"neural_model": "88.4 %", "none": "92.4 %", "shuffle": "88.8 %", "blur": "88.1 %"},
    ),
    (
        *("Gaussian-noise corruption", RERUN, "corruption.gaussian_noise"),
        {"neural_model": "67.0 %", "none": "54.1 %", "shuffle": "64.1 %", "blur": "80.5 %"},
    ),
    (
        *("Mean smallest L∞", RERUN, "mean_linf"),
        {"neural_model": ".0036", "none": ".0028", "shuffle": ".0032", "blur": ".0062"},
    ),
    (
        *("Mean smallest L2", RERUN, "mean_l2"),
        {"neural_model": ".130", "none": ".091", "shuffle": ".122", "blur": ".211"},
    ),
)


def _pairs(what: str, source: str, metric: str, printed: Mapping[str, str]) -> list[Pair]:
    """neural_model against each of the other conditions."""
    (a, ours), *others = ((name, number.replace(" %", f"{NBSP}%")) for name, number in printed.items())
    return [
        Pair(f"{what}, neural / {said}", source, metric, a, b, f"neural {ours}, {said} {theirs}", (ours, theirs))
        for b, theirs in others
        for said in [_SHORT.get(b, b)]
    ]


PAIRS: tuple[Pair, ...] = (
    *(pair for printed in _PRINTED for pair in _pairs(*printed)),
    *(
        Pair(
            *(f"Mean smallest {norm}, neural / none", "paper, Fig. 7", metric, "neural_model", "none", said),
            contradictory=norm in ("L0", "L2"),
        )
        for norm, metric, said in (
            ("L0", "mean_l0", "a gain in the caption, none in the text"),
            ("L1", "mean_l1", "a gain in caption and text"),
            ("L2", "mean_l2", "a gain in the text, none in the caption"),
            ("L∞", "mean_linf", "a gain in caption and text"),
        )
    ),
)
GAMMA: Mapping[float, tuple[float, float, float]] = {
    **dict.fromkeys((2.0, 4.0), (0.0, 1.0, 0.0)),
    **{8.0: (0.0, 0.33, 0.67), 16.0: (0.0, 0.67, 0.33), 32.0: (0.5, 0.5, 0.0)},
}
"""Table 1: alpha to the shares of layers 1, 5 and 9 (of 1, 5, 9, 13, 17)."""


@dataclass(frozen=True, slots=True)
class ScanPair:
    """Two published numbers of recordings, of which a > b was published; each side is (metric, condition)."""

    claim: str
    source: str
    said: str
    here: str
    a: tuple[str, str]
    b: tuple[str, str]


SCANS = (
    ScanPair(
        "Correlation with S_oracle, S_model / S_data (single trials)",
        "paper, Fig. 1D",
        "r = 0.73, 0.39",
        "S_model r = {0:.2f}, single trials {1:.2f}",
        ("oracle_correlation", "neural_model"),
        ("oracle_correlation", "neural_data"),
    ),
    ScanPair(
        "Width of the distribution, Eq. 5 over repeats / Eq. 4 over scans",
        "paper, Fig. 1C",
        "Eq. 4 much narrower",
        "standard deviation {0:.3f} over repeats, {1:.3f} over scans",
        ("fluctuation_over_repeats", "neural_data"),
        ("fluctuation_over_scans", "neural_data"),
    ),
)
ELSEWHERE = (("Time to train one network", "paper", f"4.5{NBSP}h on a TITAN RTX", "the metrics hold no time"),)
