"""The ledger: what a network withstands as queries on rows that are known, and a file that only ever grows."""

import math

import numpy as np
import pyarrow.parquet as pq
import pytest

from neuroprior.robustness import Ledger
from neuroprior.robustness.ledger_file import LedgerFile
from neuroprior.types import AttackRecord, InputError


def record(sample: str, distance: float, status: str = "found", **other) -> AttackRecord:
    given = dict(
        model="net",
        sample=sample,
        attack="ddn" if status not in ("already_wrong", "quarantined") else "clean",
        setting="steps=10",
        repetition=0,
        norm="l2",
        distance=distance,
        forwards=12,
        gradients=10,
        verified=status == "found",
        status=status,
        image=f"digest of {sample}",
    )
    return AttackRecord(**{**given, **other})


ROWS = [
    record("a", 0.4, trace=((2, 1, 0.9), (6, 5, 0.4))),
    record("a", 0.3, attack="cw", trace=((3, 2, 0.3),)),
    record("b", 0.0, "already_wrong", gradients=0, forwards=1),
    record("c", math.inf, "not_found"),
    record("c", 0.1, "unverified", attack="cw"),
    record("d", math.inf, "quarantined"),
    record("e", 0.5, trace=((9, 8, 0.45),)),  # found at 0.45, moved out to 0.5 before it held
    record("e", math.inf, "no_better", attack="cw"),
]


def test_distances_are_the_smallest_verified():
    ledger = Ledger.of_records(ROWS)
    assert ledger.samples == ("a", "b", "c", "d", "e")
    np.testing.assert_array_equal(ledger.distances(), [0.3, 0.0, math.inf, math.nan, 0.5])
    np.testing.assert_array_equal(ledger.of(attacks=["ddn"]).distances(), [0.4, 0.0, math.inf, math.nan, 0.5])
    np.testing.assert_array_equal(ledger.of(samples=["e", "a"]).distances(), [0.5, 0.3])


def test_what_an_attack_finds_is_told_of_attempts_that_stood_alone():
    clean = [record(sample, math.inf, "right", attack="clean", gradients=0) for sample in "ace"]
    ledger = Ledger.of_records([*clean, *ROWS, record("a", 0.2, attack="pgd", alone=False)])
    assert set(ledger.of(attacks=["cw"]).samples) == set("abcde")  # clean rows and those of cw
    with pytest.raises(InputError, match=r"pgd began from what other attempts had found.*exhaustive"):
        ledger.of(attacks=["pgd"])


def test_every_kind_of_sample_is_counted():
    (line,) = Ledger.of_records(ROWS).withstood()
    assert (line.n, line.already_wrong, line.not_found, line.quarantined) == (5, 1, 1, 1)
    assert line.median == pytest.approx(0.4)  # of 0, 0.3, 0.5, inf
    assert line.median_of_right == 0.5  # of 0.3, 0.5, inf
    assert line.mean == pytest.approx(0.8 / 3)
    assert line.gradients == pytest.approx(70 / 5)


def test_a_median_between_two_failures_is_infinite():
    (line,) = Ledger.of_records([record("a", 0.1), record("b", math.inf, "not_found")]).withstood()
    assert line.median == math.inf


def test_accuracy_under_attack_falls_with_the_radius():
    accuracy = Ledger.of_records(ROWS).accuracy([0, 0.29, 0.3, 0.5, 10])
    np.testing.assert_allclose(accuracy, [0.75, 0.75, 0.5, 0.25, 0.25])  # the wrong one is never right


def test_the_best_so_far_counts_from_the_first_attempt_and_never_beats_what_was_verified():
    best = Ledger.of_records(ROWS).best_so_far([0, 1, 5, 11, 12, 100])
    inf, nan = math.inf, math.nan
    np.testing.assert_array_equal(best[0], [inf, 0.9, 0.4, 0.4, 0.3, 0.3])  # the second attempt begins after 10
    np.testing.assert_array_equal(best[1], [0.0] * 6)
    np.testing.assert_array_equal(best[2], [inf] * 6)
    np.testing.assert_array_equal(best[3], [nan] * 6)
    np.testing.assert_array_equal(best[4], [inf, inf, inf, 0.5, 0.5, 0.5])
    by_forwards = Ledger.of_records(ROWS).best_so_far([1, 2, 15], count="forwards")
    np.testing.assert_array_equal(by_forwards[0], [inf, 0.9, 0.3])


def test_two_networks_are_not_mixed():
    ledger = Ledger.of_records(ROWS) + Ledger.of_records([record("a", 0.2, model="other")])
    with pytest.raises(InputError, match="choose one of each"):
        ledger.distances()
    assert ledger.of(model="other").distances() == [0.2]
    assert [line.model for line in ledger.withstood()] == ["net", "other"]
    with pytest.raises(InputError, match=r"no row of model .third.*net, other"):
        ledger.of(model="third")


def test_a_ledger_is_the_same_after_saving(tmp_path):
    Ledger.of_records(ROWS).save(tmp_path / "attacks.parquet")
    assert Ledger.load(tmp_path / "attacks.parquet").table.equals(Ledger.of_records(ROWS).table)
    (tmp_path / "other.parquet").write_text("no")
    for name in ("other.parquet", "missing.parquet"):
        with pytest.raises(InputError, match="no ledger"):
            Ledger.load(tmp_path / name)


def test_a_file_grows_by_whole_samples_and_ends_as_one(tmp_path):
    path, header = tmp_path / "attacks.parquet", {"model": "net", "seed": 0}
    first = LedgerFile(path, header)
    first.add(ROWS[:2])
    with pytest.raises(InputError, match="another search is at work"):
        LedgerFile(path, header)
    first.close()
    assert Ledger.load(path).samples == ("a",)  # as far as it has come
    file = LedgerFile(path, header)
    assert file.searched() == {"a": "digest of a"}
    file.add(ROWS[2:])
    assert not path.exists()
    whole = file.finish()
    assert whole.table.equals(Ledger.of_records(ROWS).table)
    assert Ledger.load(path).table.replace_schema_metadata().equals(whole.table)
    assert {entry.name for entry in tmp_path.iterdir()} <= {"attacks.parquet", ".attacks.parquet.lock"}


def test_parts_left_beside_the_whole_count_once(tmp_path):
    path, header = tmp_path / "attacks.parquet", {"model": "net"}
    file = LedgerFile(path, header)
    file.add(ROWS[:2])
    part = file.parts / "000001.parquet"
    kept = part.read_bytes()
    file.finish()
    file.close()
    file.parts.mkdir()
    part.write_bytes(kept)  # as if killed between the whole and the parts' removal
    assert LedgerFile(path, header).ledger.table.num_rows == 2


def test_a_file_goes_on_only_as_it_began(tmp_path):
    path = tmp_path / "attacks.parquet"
    file = LedgerFile(path, {"model": "net", "seed": 0, "answers": [0.5, 1.0]})
    file.add(ROWS)
    file.close()
    LedgerFile(path, {"model": "net", "seed": 0, "answers": [0.501, 1.0]}).close()  # as another machine rounds
    with pytest.raises(InputError, match="made with answers"):
        LedgerFile(path, {"model": "net", "seed": 0, "answers": [0.6, 1.0]})
    with pytest.raises(InputError, match=r"made with seed 0, now it is 1"):
        LedgerFile(path, {"model": "net", "seed": 1, "answers": [0.5, 1.0]})
    with pytest.raises(InputError, match="no folder"):
        LedgerFile(tmp_path / "none" / "attacks.parquet", {})
    pq.read_table(path.with_name("attacks.parquet.parts") / "000001.parquet")
    (path.with_name("attacks.parquet.parts") / "000001.parquet").write_bytes(b"cut off")
    with pytest.raises(InputError, match="damaged"):
        LedgerFile(path, {"model": "net", "seed": 0, "answers": [0.5, 1.0]})
