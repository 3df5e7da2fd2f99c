"""The ledger: every published number is in it, and its verdict follows one rule on data whose truth is known."""

import csv
import io
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from neuroprior.experiment.results import METRICS_SCHEMA, RunResults
from neuroprior.experiment.steps.attacking import attacked_name
from neuroprior.report.printed import GAMMA, PAIRS
from neuroprior.report.published import (
    Entry,
    Ratio,
    judge,
    lacking,
    ledger,
    ledger_csv,
    ledger_table,
    ratio_of,
)
from neuroprior.robustness import Ledger
from neuroprior.types import AttackRecord

from .conftest import TAPS, MakeRun, card_of

PAPER = """
task: {source: parquet, train: cifar10/train.parquet}
network: {architecture: resnet18, width: 64}
training: {epochs: 40, validation_fraction: 0.01}
scale: full
"""
Rows = list[dict[str, object]]


def row(condition: str, seed: int, metric: str, value: float, n: int = 1000, **at: object) -> dict[str, object]:
    return dict(condition=condition, seed=seed, metric=metric, tap=at.get("tap"), x=at.get("x"), value=value, n=n)


def run_of(make_run: MakeRun, rows: Rows, names: tuple[str, ...] = ("none", "neural_model"), recipe: str = PAPER):
    cards = [card_of(name, name, "", "no target") for name in names]
    trained = [row("none", 0, "task_loss", 1.0, 49_500, x=0.0)]
    metrics = pa.Table.from_pylist([*rows, *trained], schema=METRICS_SCHEMA)
    return replace(make_run(seeds=(0,), cards=cards, metrics=metrics), recipe_yaml=recipe)


def noise(values: Mapping[str, float], seeds: int = 5, sigma: float = 0.15) -> Rows:
    return [
        row(name, seed, "noise_accuracy", value + 0.002 * seed + 0.001 * len(name) * (seed % 2), x=sigma)
        for name, value in values.items()
        for seed in range(seeds)
    ]


def entry(results: RunResults, claim: str) -> Entry:
    (found,) = [one for one in ledger(results) if one.claim.startswith(claim)]
    return found


def test_every_number_of_the_protocol_is_in_the_ledger(make_run: MakeRun) -> None:
    said = " ".join(f"{one.claim} {one.published} {one.source}" for one in ledger(make_run()))
    numbers = ["about 50", "about 20", "0.73", "0.39", "4.5", "0.029"]
    numbers += ["0.0025", "0.0030", "0.0028", "0.0034", "0.09", "0.11", "0.13"]
    numbers += ["92.4", "88.4", "88.8", "88.1", "54.1", "67.0", "64.1", "80.5"]
    numbers += [".0036", ".0032", ".0062", ".091", ".130", ".122", ".211"]
    numbers += ["0 / 1 / 0", "0 / 0.33 / 0.67", "0 / 0.67 / 0.33", "0.5 / 0.5 / 0"]
    numbers += ["narrower", "Brendel & Bethge", *(f"Mean smallest {norm}," for norm in ("L0", "L1", "L2", "L∞"))]
    assert [number for number in numbers if number not in said] == []
    assert sorted(GAMMA) == [2, 4, 8, 16, 32]


def test_the_rounding_of_a_published_pair_is_kept() -> None:
    by_name = {(pair.metric, pair.b): pair for pair in PAIRS}
    sizes = by_name["median_linf", "none"].sizes
    assert sizes == pytest.approx((0.00335 / 0.00255, 0.00345 / 0.00245))
    assert by_name["noise", "none"].above
    assert not by_name["median_linf", "adversarial"].above
    assert not by_name["mean_l2", "blur"].above  # blur beat neural in the rerun
    for pair in PAIRS:
        if pair.sizes is not None:
            assert (pair.sizes[0] > 1) == (pair.sizes[1] > 1) == pair.above  # rounding cannot turn a claim round


@pytest.mark.parametrize(
    ("ends", "above", "sizes", "verdict"),
    [
        ((1.2, 1.5), True, None, "direction reproduced"),
        ((1.2, 1.5), False, None, "direction differs"),
        ((0.6, 0.9), False, None, "direction reproduced"),
        ((0.6, 0.9), True, None, "direction differs"),
        ((0.9, 1.5), True, None, "undecided"),
        ((None, None), True, None, "undecided"),
        ((1.2, 1.5), True, (1.4, 1.8), "reproduced"),
        ((1.2, 1.5), True, (1.6, 1.8), "differs"),
        ((1.2, 1.5), True, (1.05, 1.1), "differs"),
        ((0.9, 1.5), True, (1.6, 1.8), "undecided"),
    ],
)
def test_the_rule(
    ends: tuple[float | None, float | None], above: bool, sizes: tuple[float, float] | None, verdict: str
) -> None:
    assert judge(Ratio(1.3, *ends, 5), above, sizes) == verdict


def test_the_ratios_interval_covers_a_known_ratio_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(400):
        shared = rng.normal(0, 0.3, 5)  # what a seed does to both networks cancels
        a, b = (np.exp(np.log(mean) + shared + rng.normal(0, 0.1, 5)) for mean in (2.5, 1.0))
        found = ratio_of(dict(enumerate(a.tolist())), dict(enumerate(b.tolist())))
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 2.5 <= found.high
    assert 0.92 <= covered / 400 <= 0.98


def test_a_ratio_turns_round_with_its_sides_and_needs_positive_numbers() -> None:
    a, b = {0: 0.5, 1: 0.6, 3: 0.4}, {0: 0.25, 1: 0.2, 2: 0.9}
    there, back = ratio_of(a, b), ratio_of(b, a)
    assert there is not None
    assert back is not None
    assert there.n == 2
    assert there.value == pytest.approx(np.sqrt(2 * 3))
    assert there.low is not None
    assert back.high is not None
    assert back.high == pytest.approx(1 / there.low)
    assert ratio_of({0: 0.0}, {0: 1.0}) is None
    assert ratio_of({0: float("inf")}, {0: 1.0}) is None
    assert ratio_of({0: 1.0}, {1: 1.0}) is None


def test_at_the_papers_size_the_size_counts_and_otherwise_only_the_direction(make_run: MakeRun) -> None:
    claim = "Accuracy at the highest noise"
    as_published = run_of(make_run, noise({"none": 0.2, "neural_model": 0.5}))
    assert lacking(as_published) == []
    found = entry(as_published, claim)
    assert found.verdict == "reproduced"
    assert found.ratio is not None
    assert found.ratio.value == pytest.approx(2.5, rel=0.05)
    assert "of the paper's size (ResNet18" in ledger_table(as_published).caption
    less = run_of(make_run, noise({"none": 0.2, "neural_model": 0.25}))
    assert entry(less, claim).verdict == "differs"
    smaller = PAPER.replace("width: 64", "width: 8").replace("epochs: 40", "epochs: 5")
    small = run_of(make_run, noise({"none": 0.2, "neural_model": 0.25}), recipe=smaller)
    assert lacking(small) == ["width 8", "epochs 5"]
    assert entry(small, claim).verdict == "direction reproduced"
    contradictory = {pair.claim for pair in PAIRS if pair.contradictory}
    assert contradictory == {"Mean smallest L0, neural / none", "Mean smallest L2, neural / none"}
    caption = ledger_table(small).caption
    assert "not of the paper's size" in caption
    assert "width 8, epochs 5" in caption
    assert entry(run_of(make_run, noise({"none": 0.3, "neural_model": 0.2})), claim).verdict == "differs"
    other_level = run_of(make_run, noise({"none": 0.2, "neural_model": 0.25}, sigma=0.5))
    assert entry(other_level, claim).verdict == "direction reproduced"  # not the paper's noise: the direction only
    assert "0.5" in entry(other_level, claim).here


def test_one_seed_decides_nothing(make_run: MakeRun) -> None:
    results = run_of(make_run, noise({"none": 0.2, "neural_model": 0.5}, seeds=1))
    assert entry(results, "Accuracy at the highest noise").verdict == "undecided"
    assert {one.verdict for one in ledger(results)} == {"undecided", "not measured"}
    table = ledger_table(results)
    assert "±" not in "".join("".join(row) for row in table.rows)


def test_what_a_run_cannot_have_is_not_measured_and_says_why(make_run: MakeRun) -> None:
    found = ledger(run_of(make_run, []))
    assert {one.verdict for one in found} == {"not measured"}
    assert all(one.here for one in found)
    by_claim = {one.claim: one.here for one in found}
    assert "no time" in by_claim["Time to train one network"]
    assert "recorded scans" in by_claim["Correlation with S_oracle, S_model / S_data (single trials)"]
    assert by_claim["Median smallest L∞, neural / VGG"] == "no condition vgg in this run"
    assert "no network trained" not in " ".join(lacking(run_of(make_run, [])))


def test_a_median_of_zero_or_infinity_is_shown_but_has_no_ratio(make_run: MakeRun) -> None:
    rows = [
        row(name, seed, "median_l2", value)
        for name, value in (("none", 0.0), ("neural_model", 0.1))
        for seed in range(3)
    ]
    found = entry(run_of(make_run, rows), "Median smallest L2, neural / none")
    assert (found.ratio, found.verdict) == (None, "undecided")
    assert "has no ratio" in found.here


def gamma_rows(tops: tuple[int, ...]) -> Rows:
    rows = []
    for seed, top in enumerate(tops):
        for k, tap in enumerate(TAPS):
            for epoch in (0, 1):
                value = 0.2 if not epoch else 0.8 if k == top else 0.05
                rows.append(row("neural_model@alpha=8", seed, "gamma", value, tap=tap, x=float(epoch)))
    return rows


@pytest.mark.parametrize(
    ("tops", "verdict"),
    [((1, 2, 2), "reproduced"), ((0, 3, 4), "differs"), ((1, 2, 4), "undecided"), ((1,), "undecided")],
)
def test_gamma_is_judged_by_where_every_seeds_largest_lies(
    make_run: MakeRun, tops: tuple[int, ...], verdict: str
) -> None:
    results = run_of(make_run, gamma_rows(tops), ("none", "neural_model@alpha=8"))
    assert entry(results, "γ of layers 1, 5 and 9 at α = 8").verdict == verdict
    assert entry(results, "γ of layers 1, 5 and 9 at α = 2").verdict == "not measured"


def attempts(better: bool, *, alone: bool = True) -> Ledger:
    """Two networks, each attacked by both on two images; on the second network C&W may find the nearer ones."""
    records = []
    for seed in (0, 1):
        for k in range(3):
            sizes = {"brendel_bethge": 1.0, "cw": 1.5 if better or seed == 0 else 0.5}
            statuses = {"clean": ("already_wrong" if k == 0 else "right", 0.0 if k == 0 else np.inf)}
            if k:
                statuses |= {attack: ("found", size * k) for attack, size in sizes.items()}
            for attack, (status, distance) in statuses.items():
                made = AttackRecord(
                    model=attacked_name("none", seed),
                    sample=str(k),
                    attack=attack,
                    setting="",
                    repetition=0,
                    norm="l2",
                    distance=distance,
                    forwards=2,
                    gradients=1,
                    verified=status == "found",
                    status=status,  # type: ignore[arg-type]
                    alone=alone or attack != "cw",
                    trace=((1, 1, distance),) if status == "found" else (),
                )
                records.append(made)
    return Ledger.of_records(records)


def test_one_attack_beats_another_only_if_it_does_on_every_network_by_itself(make_run: MakeRun) -> None:
    results = run_of(make_run, noise({"none": 0.2}, seeds=2))
    claim = "L2: Brendel & Bethge against C&W"
    on_all = entry(replace(results, attacks=attempts(True)), claim)
    assert (on_all.verdict, on_all.here) == ("reproduced", "the smaller median on 2 of 2 networks")
    on_one = entry(replace(results, attacks=attempts(False)), claim)
    assert (on_one.verdict, on_one.here) == ("differs", "the smaller median on 1 of 2 networks")
    for attacks in (None, attempts(True, alone=False), attempts(True).of(attacks=["cw"])):
        assert entry(replace(results, attacks=attacks), claim).verdict == "not measured"


def test_the_corruption_is_a_mean_over_severities_and_the_norms_have_a_row_each(make_probed: MakeRun) -> None:
    results = make_probed(seeds=(0, 1, 2))
    found = entry(results, "Gaussian-noise corruption, neural / none")
    rows = [r for r in results.metrics.to_pylist() if r["metric"] == "corruption.gaussian_noise"]
    mean = np.mean([r["value"] for r in rows if r["condition"] == "neural_model"])
    assert f"Neural (model) {100 * mean:.1f}\N{NO-BREAK SPACE}±" in found.here
    assert found.verdict == "direction reproduced"


def test_table_and_csv_tell_the_same_verdicts_once_each(make_run: MakeRun) -> None:
    results = make_run()
    table, (header, *rows) = ledger_table(results), ledger_csv(results)
    assert [one[-1] for one in table.rows] == [one[header.index("verdict")] for one in rows]
    assert all(len(one) == len(header) for one in rows)
    assert len({(one[0], one[1]) for one in rows}) == len(rows)
    assert f"Of {len(rows)} rows" in table.caption
    for word in ("Direction reproduced:", "direction differs:", "Undecided:"):
        assert word in table.caption
    buffer = io.StringIO()
    csv.writer(buffer).writerows([header, *rows])
    assert [*csv.reader(io.StringIO(buffer.getvalue()))][1:] == rows


def scans(metric: str, condition: str, values: list[float]) -> Rows:
    return [row(condition, 0, metric, value, 4950, x=float(k)) for k, value in enumerate(values)]


def test_numbers_of_recordings_are_judged_over_scans(make_run):
    rows = scans("oracle_correlation", "neural_model", [0.70, 0.74, 0.72])
    rows += scans("oracle_correlation", "neural_data", [0.40, 0.38, 0.39])
    rows += scans("fluctuation_over_repeats", "neural_data", [0.2, 0.21, 0.19])
    rows += scans("fluctuation_over_scans", "neural_data", [0.2, 0.19, 0.21])
    results = run_of(make_run, rows)
    correlation, width = entry(results, "Correlation with S_oracle"), entry(results, "Width of the distribution")
    assert correlation.verdict == "direction reproduced"
    assert correlation.ratio.n == 3
    assert correlation.here.endswith("S_model r = 0.72, single trials 0.39 (3 scans)")
    assert width.verdict == "undecided"
    assert results.seeds == (0,)  # of the one network, not of the scans


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("twin", "needs a target made of recorded scans"),
        ("scans", "the run does not say how stable its recordings are"),
    ],
)
def test_without_recordings_the_ledger_says_what_it_needs(make_run, kind, says):
    results = run_of(make_run, [], recipe=f"{PAPER}target: {{kind: {kind}}}\n")
    assert entry(results, "Correlation with S_oracle").here == says
