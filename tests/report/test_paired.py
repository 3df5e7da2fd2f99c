"""Paired intervals: those of scipy, blind to what seeds share, and absent where there is nothing to pair."""

import math

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]

from neuroprior.report.paired import CONTROLS, paired_csv, paired_difference, paired_tables

from .conftest import MANY, MakeRun, accuracy


@pytest.mark.parametrize("n", [2, 3, 5])
def test_interval_is_scipys_of_a_paired_test(n: int) -> None:
    a, b = np.random.default_rng(n).random((2, n))
    gap = paired_difference(dict(enumerate(a.tolist())), dict(enumerate(b.tolist())))
    low, high = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert gap is not None
    assert (gap.mean, gap.low, gap.high) == pytest.approx(((a - b).mean(), low, high), rel=1e-9)
    assert gap.n == n


def test_what_the_seeds_share_drops_out_and_what_they_do_not_does_not() -> None:
    rng = np.random.default_rng(0)
    a, b, luck = rng.random((3, 5)).tolist()
    plain = paired_difference(dict(enumerate(a)), dict(enumerate(b)))
    shared = [dict(enumerate(x + 10 * shift for x, shift in zip(values, luck, strict=True))) for values in (a, b)]
    assert plain is not None
    assert plain.low is not None
    both = paired_difference(*shared)
    one = paired_difference(shared[0], dict(enumerate(b)))
    assert both is not None
    assert one is not None
    assert both.low == pytest.approx(plain.low)
    assert one.low != pytest.approx(plain.low, abs=0.1)


def test_only_common_seeds_count() -> None:
    gap = paired_difference({0: 1.0, 1: 2.0, 7: 100.0}, {1: 1.0, 0: 0.5, 8: -100.0})
    assert gap is not None
    assert (gap.mean, gap.n) == (0.75, 2)
    single = paired_difference({0: 1.0}, {0: 0.5, 1: 3.0})
    assert single is not None
    assert (single.mean, single.low, single.n) == (0.5, None, 1)
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def test_csv_holds_every_condition_against_every_control(make_run: MakeRun) -> None:
    seeds = (0, 1, 2)
    header, *rows = paired_csv(make_run(seeds=seeds))
    assert header[:4] == ["condition", "control", "metric", "sigma"]
    assert len(rows) == 3 * 4 * 6  # controls shuffle, blur, none; four others each; clean, 3 levels, mean, similarity
    levels = sorted({float(row[3]) for row in rows if row[3] and float(row[3]) > 0})
    for condition, control, metric, sigma, mean, low, high, n in rows:
        if metric == "similarity_correlation":
            assert (mean == "") == ({"none", "blur"} & {condition, control} != set())
            continue
        at = levels if metric == "noise_accuracy_mean" else [float(sigma)]
        d = [sum(accuracy(condition, s, x) - accuracy(control, s, x) for x in at) / len(at) for s in seeds]
        assert float(mean) == pytest.approx(math.fsum(d) / 3, abs=1e-12)
        assert float(low) <= float(mean) <= float(high)
        assert n == "3"


def test_one_seed_leaves_all_blank_and_no_table(make_run: MakeRun) -> None:
    results = make_run(seeds=(0,))
    assert all(row[4:] == [""] * 4 for row in paired_csv(results)[1:])
    assert paired_tables(results) == []


def test_tables_are_one_a_control_and_count_their_comparisons(make_many: MakeRun) -> None:
    tables = paired_tables(make_many(seeds=(0, 1)))
    *against_controls, (varied, variants) = tables
    assert [label for label, _ in against_controls] == [MANY[name][0] for name in CONTROLS]
    n_variants = sum(card.base == "neural_model" != card.name for card in make_many().conditions)
    for _, table in against_controls:
        assert len(table.rows) == 13
        assert f"there being {6 * (4 * 13 + n_variants)} of them" in table.caption  # 4 controls, 13 others, 6 measures
        assert all(len(row) == len(table.header) for row in table.rows)
    assert (varied, len(variants.rows)) == ("Neural (model)", n_variants)
    against_none = {row[0]: row for row in against_controls[-1][1].rows}
    assert against_none["Neural (model)"][1].startswith("−")  # clean accuracy is lost
    assert against_none["Neural (model)"][4].startswith("+")  # and gained at the highest noise
