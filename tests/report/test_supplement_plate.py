"""Figure 7 of a ledger that is known: who counts, who is left out, and what one attack found by itself."""

import dataclasses
import math

import numpy as np
import pytest

from neuroprior.report.smallest import mean_of, smallest_csv, smallest_of, tried, tried_table
from neuroprior.report.supplement_plate import supplement_plate
from neuroprior.robustness import Ledger
from neuroprior.types import AttackRecord

from .conftest import CARDS, LOST, PROBED_FIRST, MakeRun


def sizes(condition: str, seed: int, norm: str, images: int = 20) -> list[float]:
    """The smallest perturbations that the synthetic ledger has: the first image is wrong, the last one never fooled."""
    scale = LOST[norm] * PROBED_FIRST[condition] * (1 + 0.05 * seed)
    return [0.0, *(scale * (0.2 + 1.6 * k / images) for k in range(1, images - 1))]


def test_the_mean_counts_the_wrong_as_nought_and_leaves_out_the_lost() -> None:
    mean = mean_of([np.array([0.0, 1.0, 2.0, np.inf, np.nan, 3.0])])
    assert mean.estimate is not None
    assert mean.estimate.mean == pytest.approx(1.5)
    assert mean.estimate.sem == pytest.approx(np.std([0, 1, 2, 3], ddof=1) / 2)
    assert mean.over_images
    assert (mean.images, mean.already_wrong, mean.not_found, mean.quarantined) == (6, 1, 1, 1)
    two = mean_of([np.array([0.0, 1.0]), np.array([2.0, np.inf])])
    assert two.estimate is not None
    assert (two.estimate.mean, two.estimate.sem, two.estimate.n) == (1.25, pytest.approx(0.75), 2)
    assert not two.over_images
    assert mean_of([np.array([np.inf, np.nan])]).estimate is None


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_means_are_those_of_the_ledger(make_probed: MakeRun, seeds: tuple[int, ...]) -> None:
    results = make_probed(seeds=seeds)
    assert results.attacks is not None
    theirs = {(line.model, line.norm): line.mean for line in results.attacks.withstood()}
    for norm in LOST:
        for one in smallest_of(results, norm):
            by_seed = [float(np.mean(sizes(one.card.name, seed, norm))) for seed in seeds]
            assert by_seed == pytest.approx([theirs[f"{one.card.name} seed {seed}", norm] for seed in seeds])
            assert one.best.estimate is not None
            assert one.best.estimate.mean == pytest.approx(np.mean(by_seed))
            one_seed = sizes(one.card.name, 0, norm)
            spread = one_seed if len(seeds) == 1 else by_seed
            assert one.best.estimate.sem == pytest.approx(np.std(spread, ddof=1) / math.sqrt(len(spread)))
            assert one.best.over_images == (len(seeds) == 1)
            assert (one.best.already_wrong, one.best.not_found) == (len(seeds), len(seeds))


def test_single_attacks_stand_beside_the_best_where_they_ran_alone(make_probed: MakeRun) -> None:
    for one in smallest_of(make_probed(seeds=(0, 1)), "l2"):
        assert [*one.alone] == ["brendel_bethge", "ddn"]
        assert one.alone["brendel_bethge"] == one.best  # the better of its two settings
        second = one.alone["ddn"]
        wanted = [1.2 * np.mean(sizes(one.card.name, seed, "l2")) for seed in (0, 1)]
        missed = [1.2 * sizes(one.card.name, seed, "l2")[1] for seed in (0, 1)]
        means = [(19 * mean - lost) / 18 for mean, lost in zip(wanted, missed, strict=True)]
        assert second.estimate is not None
        assert second.estimate.mean == pytest.approx(np.mean(means))
        assert second.not_found == 4
    assert all(not one.alone for one in smallest_of(make_probed(seeds=(0,), exhaustive=False), "l2"))


def test_the_plate_draws_the_means_and_hollow_marks_for_fewer_images(make_probed: MakeRun) -> None:
    results = make_probed(seeds=(0, 1))
    plate = supplement_plate(results)
    assert [panel.name for panel in plate.panels] == [f"smallest-{norm}" for norm in LOST]
    axes = plate.panels[2].figure.axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [card.label for card in CARDS.values()]
    best = [container[0].get_xydata()[0].tolist() for container in axes.containers]
    assert best == [
        [pytest.approx(np.mean([np.mean(sizes(name, seed, "l2")) for seed in (0, 1)])), k]
        for k, name in enumerate(CARDS)
    ]
    singles = [line for line in axes.lines if len(line.get_ydata()) and line.get_ydata()[0] % 1]
    assert [line.get_markerfacecolor() == "#ffffff" for line in singles] == [False, True] * len(CARDS)
    for words in (
        "Mean over 20 test images",
        "L2 2 and 2 of 40",
        "± SEM over seeds (ddof 1); n = 2 seeds",
        "checked again",
        "L0 σ-zero (2 settings), JSMA (1 setting)",
        "L2 Brendel & Bethge (2 settings), DDN (1 setting)",
        "Small gray marks",
        "Hollow",
    ):
        assert words in plate.caption
    assert "L0 (pixels changed)" in plate.panels[0].alt


def test_one_seed_says_that_its_bars_are_over_images(make_probed: MakeRun) -> None:
    plate = supplement_plate(make_probed(seeds=(0,), exhaustive=False))
    assert "± SEM over images (ddof 1), not over trainings; n = 1 seed." in plate.caption
    assert "SEM over seeds" not in plate.caption
    assert "Small gray marks" not in plate.caption
    assert "have no mark of their own" in plate.caption


def test_a_condition_that_nothing_fooled_is_named_and_not_drawn(make_probed: MakeRun) -> None:
    results = make_probed(seeds=(0,), conditions=("none", "blur"))
    records = [
        AttackRecord(f"{name} seed 0", "0", "ddn", "steps=100", 0, "l2", distance, 1, 1, distance < np.inf, status)
        for name, distance, status in (("none", 0.5, "found"), ("blur", np.inf, "not_found"))
    ]
    plate = supplement_plate(dataclasses.replace(results, attacks=Ledger.of_records(records)))
    assert plate.caption.endswith("Not drawn, nothing was found: Blur σ 1 px (L2).")
    assert len(plate.panels[0].figure.axes[0].containers) == 1
    lost = dataclasses.replace(results, attacks=Ledger.of_records(records[1:]))
    assert supplement_plate(lost).absent


def test_settings_are_named_in_full(make_probed: MakeRun, make_run: MakeRun) -> None:
    results = make_probed(seeds=(0,), conditions=("none",))
    assert results.attacks is not None
    assert len(tried(results.attacks)) == 8
    table = tried_table(results)
    assert table is not None
    assert table.rows[4] == ("L2, Brendel & Bethge", "yes", "1", "lr=0.001, steps=100; lr=0.0001, steps=100")
    helped = tried_table(make_probed(seeds=(0,), conditions=("none",), exhaustive=False))
    assert helped is not None
    assert {row[1] for row in helped.rows} == {"no"}
    assert tried_table(make_run(seeds=(0,))) is None


def test_csv_has_the_best_and_each_attack_with_counts(make_probed: MakeRun, make_run: MakeRun) -> None:
    header, *rows = smallest_csv(make_probed(seeds=(0, 1), conditions=("none", "blur")))
    assert len(rows) == len(LOST) * 2 * 3
    first = dict(zip(header, rows[0], strict=True))
    assert first["attack"] == "best"
    assert first["sem_over"] == "seeds"
    assert (first["n_images"], first["already_wrong"], first["not_found"], first["quarantined"]) == (
        "40",
        "2",
        "2",
        "0",
    )
    assert float(first["mean"]) == pytest.approx(np.mean([np.mean(sizes("none", seed, "l0")) for seed in (0, 1)]))
    assert len(smallest_csv(make_run(seeds=(0,)))) == 1
    assert supplement_plate(make_run(seeds=(0,))).absent
