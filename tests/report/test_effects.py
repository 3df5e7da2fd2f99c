"""Effects: the bootstrap covers what it says it covers, the effect size is unbiased, and few seeds are told apart."""

import math
from dataclasses import replace

import numpy as np
import pytest

from neuroprior.report.effects import effect_size, effects, effects_csv, effects_tables, hierarchical_bootstrap
from neuroprior.report.paired import paired_difference
from neuroprior.report.tables import NOT_MEASURED, shown_levels

from .conftest import MakeRun, accuracy

TRUTH = 0.05


def coverage(seeds: int, images: int, experiments: int = 300) -> tuple[float, float]:
    """How often the bootstrap's and the t interval hold the truth: seeds differ by 0.02, images add their own error."""
    rng = np.random.default_rng(1)
    by_bootstrap = by_t = 0
    for key in range(experiments):
        a = rng.binomial(images, 0.5 + rng.normal(TRUTH, 0.02, seeds)) / images
        b = rng.binomial(images, 0.5, seeds) / images
        low, high = hierarchical_bootstrap(a, b, images, key=key, replicates=1000)
        by_bootstrap += low <= TRUTH <= high
        gap = paired_difference(dict(enumerate(a.tolist())), dict(enumerate(b.tolist())))
        assert gap is not None
        assert gap.low is not None
        assert gap.high is not None
        by_t += gap.low <= TRUTH <= gap.high
    return by_bootstrap / experiments, by_t / experiments


@pytest.mark.parametrize("images", [1000, 10_000])
def test_with_ten_seeds_the_bootstrap_covers_the_truth_as_often_as_it_says(images: int) -> None:
    assert 0.90 <= coverage(10, images)[0] <= 0.99


def test_with_three_seeds_the_bootstrap_is_too_narrow_and_the_t_interval_is_not() -> None:
    by_bootstrap, by_t = coverage(3, 1_000_000)
    assert by_bootstrap < 0.85
    assert 0.92 <= by_t <= 0.98


def test_the_bootstrap_is_the_same_for_a_key_and_widens_with_fewer_images() -> None:
    a, b = np.array([0.5, 0.55, 0.6, 0.52]), np.array([0.4, 0.42, 0.45, 0.43])
    once, again, other = (hierarchical_bootstrap(a, b, 1000, key=key) for key in (1, 1, 2))
    assert once == again != other
    assert once == pytest.approx(other, abs=0.005)

    def width(images: int) -> float:
        low, high = hierarchical_bootstrap(a, b, images, key=1)
        return high - low

    assert width(50) > width(500) > width(500_000)


def test_without_spread_over_seeds_the_bootstrap_is_the_binomial_interval() -> None:
    n, images, p, q = 5, 400, 0.6, 0.4
    low, high = hierarchical_bootstrap(np.full(n, p), np.full(n, q), images, key=3)
    half = 1.96 * math.sqrt((p * (1 - p) + q * (1 - q)) / images / n)
    assert (low, high) == pytest.approx((p - q - half, p - q + half), abs=0.05 * half)


def test_the_corrected_effect_size_is_unbiased_and_the_plain_one_is_not() -> None:
    rng = np.random.default_rng(0)
    truth, n = 0.8, 5
    d = rng.normal(truth, 1.0, (20_000, n))
    found = [effect_size(row) for row in d]
    assert None not in found
    assert np.mean([g for g in found if g is not None]) == pytest.approx(truth, abs=0.02)
    assert np.mean(d.mean(1) / d.std(1, ddof=1)) > truth + 0.15


def test_an_effect_size_has_no_unit_and_is_undefined_for_few_seeds_or_no_spread() -> None:
    d = np.array([0.01, 0.03, 0.02, 0.05])
    size = effect_size(d)
    assert size is not None
    assert effect_size(100 * d) == pytest.approx(size)
    assert effect_size(-d) == pytest.approx(-size)
    assert effect_size(d + 0.1) != pytest.approx(size)
    for few in (d[:1], d[:2], np.full(4, 0.25)):
        assert effect_size(few) is None


def test_neural_conditions_stand_against_every_control_and_no_other_brain(make_many: MakeRun) -> None:
    results = make_many(seeds=(0, 1, 2))
    found = effects(results)
    ours = {one.card.name for one in found}
    assert {"neural_model", "neural_model@alpha=2", "neural_model@alpha=80"} <= ours
    controls = {one.control.name for one in found if one.card.name == "neural_model"}
    assert controls >= {"none", "shuffle", "lowpass", "pixel", "vgg", "random_twin", "blur", "blur@sigma=2"}
    assert not any(name.startswith("neural") for name in controls)
    assert next(label for label, _ in effects_tables(results)) == "Neural (model)"
    alone = replace(results, conditions=tuple(c for c in results.conditions if c.name in ("none", "neural_model")))
    fewer = {(one.control.name, one.sigma): one.bootstrap for one in effects(alone)}
    whole = {(one.control.name, one.sigma): one.bootstrap for one in found if one.card.name == "neural_model"}
    assert fewer == {key: whole[key] for key in fewer}  # other conditions do not change a comparison


def test_a_row_holds_the_mean_both_intervals_the_size_and_n(make_run: MakeRun) -> None:
    seeds = (0, 1, 2, 3)
    results = make_run(seeds=seeds, conditions=("none", "neural_model"))
    header, *rows = effects_csv(results)
    at_top = next(dict(zip(header, row, strict=True)) for row in rows if row[2] == "0.15")
    d = [accuracy("neural_model", seed, 0.15) - accuracy("none", seed, 0.15) for seed in seeds]
    assert float(at_top["difference_mean"]) == pytest.approx(np.mean(d))
    gap = paired_difference(dict(enumerate(d)), dict.fromkeys(range(4), 0.0))
    assert gap is not None
    assert float(at_top["t95_low"]) == pytest.approx(gap.low)
    assert float(at_top["bootstrap95_low"]) < np.mean(d) < float(at_top["bootstrap95_high"])
    assert at_top["n_seeds"] == "4"
    assert at_top["n_images"] == "500"
    ((_, table),) = effects_tables(results)
    assert "the t interval is the one to trust" in table.caption
    assert "500 test images" in table.caption
    assert [row[1] for row in table.rows] == ["clean", *(f"{sigma:g}" for sigma in shown_levels(results))]


def test_one_seed_has_a_difference_and_dashes(make_run: MakeRun) -> None:
    ((_, table),) = effects_tables(make_run(seeds=(2,), conditions=("none", "neural_model")))
    assert all(row[3:] == (NOT_MEASURED, NOT_MEASURED, NOT_MEASURED, "1") for row in table.rows)
    assert "n = 1 seed: no interval, no effect size" in table.caption
    ((_, two),) = effects_tables(make_run(seeds=(1, 2), conditions=("none", "neural_model")))
    assert all(row[5] == NOT_MEASURED != row[4] for row in two.rows)


def test_without_a_neural_condition_there_is_no_table(make_run: MakeRun) -> None:
    assert effects_tables(make_run(conditions=("none", "blur"))) == []
    assert effects_tables(make_run(unfinished=("neural_model",))) == []
