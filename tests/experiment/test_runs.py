"""Runs on a disk: what they say of themselves, what a store lets go, what a full or read-only disk does."""

import json
import multiprocessing
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from neuroprior.experiment import (
    find_garbage,
    list_runs,
    packaged_recipe,
    plan_recipe,
    remove_garbage,
    run_recipe,
    show_run,
    store_of,
)
from neuroprior.experiment.forecast import Forecast
from neuroprior.experiment.store import CHECKPOINT, Store
from neuroprior.types import InputError
from small_demo import SMALL as DEMO

SMALL = [*DEMO, "conditions=[none, shuffle]"]


def go(out: Path, *more: str) -> list:
    return run_recipe(packaged_recipe("demo", [*SMALL, *more]), out, command=["test"], watch=lambda *_: None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "demo"
    assert go(out) == []
    return out


def test_list_and_show(finished):
    (summary,) = list_runs(finished.parent)
    assert (summary.name, summary.steps, summary.done, summary.from_future) == ("demo", 6, 6, False)
    assert list_runs(finished) == [summary]
    states = show_run(finished)
    assert [state.state for state in states] == ["done"] * 6
    assert all(state.seconds is not None and 0 <= state.seconds < 100 for state in states)
    assert all(state.peak_memory_mb is None or 50 < state.peak_memory_mb < 5000 for state in states)
    assert summary.disk_mb == pytest.approx(sum(state.disk_mb for state in states))


def test_a_clock_that_jumped_back_is_told(finished, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    origin = json.loads((out / "provenance.json").read_text())
    (out / "provenance.json").write_text(json.dumps({**origin, "created": "2999-01-01T00:00:00+00:00"}))
    (summary,) = list_runs(out)
    assert summary.from_future
    assert summary.done == 6


def test_stopped_steps_are_told_from_those_to_do(finished, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    store = store_of(out)
    for state in show_run(out):
        if state.kind in ("train", "measure"):
            shutil.rmtree(state.folder)
    begun = store.unfinished(show_run(out)[1].folder.name)
    begun.mkdir(parents=True)
    (begun / CHECKPOINT).write_text("x")
    assert [state.state for state in show_run(out)] == ["done", "stopped", "to do", "to do", "to do", "done"]


def test_nothing_of_a_living_run_is_garbage(finished):
    assert find_garbage(store_of(finished)) == []


def test_what_only_a_lost_run_needed_can_go(tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROPRIOR_STORE", str(tmp_path / "store"))
    assert go(tmp_path / "one") == []
    assert go(tmp_path / "two", "name=two", "conditions=[none]") == []
    store = Store(tmp_path / "store")
    left = store.unfinished("train-old-0123456789abcdef")
    left.mkdir(parents=True)
    (left / CHECKPOINT).write_text("x")
    (tmp_path / "store" / "notes").mkdir()  # not ours: left alone
    (only,) = find_garbage(store)
    assert (only.folder, only.why) == (left, "of no run")
    shutil.rmtree(tmp_path / "one")
    found = find_garbage(store)
    assert sorted(g.folder.name.rpartition("-")[0] for g in found) == [
        "measure-shuffle-seed0",
        "train-old",
        "train-shuffle-seed0",
    ]
    assert {g.why for g in found if "shuffle" in g.folder.name} == {"of ../one, which is gone"}
    remove_garbage(store, found)
    assert find_garbage(store) == []
    assert (tmp_path / "store" / "notes").is_dir()
    assert [state.state for state in show_run(tmp_path / "two")] == ["done"] * 4
    shutil.move(tmp_path / "two", tmp_path / "three")  # moved, not lost: the store cannot know, but who names it does
    assert {g.why for g in find_garbage(store)} == {"of ../two, which is gone"}
    assert find_garbage(store, tmp_path / "three") == []
    known = next((store.root / ".runs").glob("*.json"))
    known.write_text(json.dumps({**json.loads(known.read_text()), "host": "another-machine"}))
    assert find_garbage(store) == []  # its disk cannot be seen from here
    known.write_text("{")
    with pytest.raises(InputError, match=r"\.runs/.*json: damaged; delete it"):
        find_garbage(store)


def test_a_removal_that_was_killed_is_finished(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    store = store_of(tmp_path / "run")
    (store.root / ".removed-old-0").mkdir()
    linked = tmp_path / "elsewhere"
    shutil.copytree(show_run(finished)[0].folder, linked)
    (store.root / "target-old").symlink_to(linked)
    remove_garbage(store, find_garbage(store))
    assert not list(store.root.glob(".removed-*"))
    assert not (store.root / "target-old").is_symlink()
    assert (linked / "step.json").exists()


def test_a_store_named_from_another_folder_is_found_again(finished, tmp_path, monkeypatch):
    shutil.copytree(finished / "steps", tmp_path / "store")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEUROPRIOR_STORE", "store")
    assert go(tmp_path / "run") == []
    monkeypatch.delenv("NEUROPRIOR_STORE")
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    assert [state.state for state in show_run(tmp_path / "run")] == ["done"] * 6


def test_one_damaged_run_does_not_hide_the_others(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "plan.json").write_text("{")
    assert [(r.folder.name, r.created == "damaged", r.done) for r in list_runs(tmp_path)] == [
        ("bad", True, 0),
        ("good", False, 6),
    ]


@pytest.mark.slow
def test_a_killed_training_goes_on_from_its_checkpoint(finished, tmp_path):
    """Not only the same bytes in the end: what was trained before the kill is not trained again."""
    out, more = tmp_path / "run", ("conditions=[shuffle]", "training.epochs=12")
    checkpoints = "compute.checkpoint_seconds=0"
    whole: list[tuple[str, str, float]] = []
    recipe = packaged_recipe("demo", [*SMALL, *more])
    assert run_recipe(recipe, tmp_path / "whole", command=["test"], watch=lambda *a: whole.append(a)) == []

    def kill_once(label: str, what: str, part: float) -> None:
        if label.startswith("train") and part > 0.3 and not what.startswith("failed"):
            multiprocessing.active_children()[0].kill()

    killed = packaged_recipe("demo", [*SMALL, *more, checkpoints])
    (failure,) = run_recipe(killed, out, command=["test"], watch=kill_once)
    assert "its process was killed" in failure.reason
    said: list[tuple[str, str, float]] = []
    assert run_recipe(killed, out, command=["test"], watch=lambda *a: said.append(a)) == []
    trained = [(what, part) for label, what, part in said if label.startswith("train")]
    assert min(part for what, part in trained if what.startswith("epoch")) > 0.3
    assert (out / "metrics.parquet").read_bytes() == (tmp_path / "whole" / "metrics.parquet").read_bytes()


def test_how_often_state_is_kept_is_remembered(finished, tmp_path):
    assert go(tmp_path / "run", "compute.checkpoint_seconds=5", "conditions=[none]") == []
    assert "checkpoint_seconds: 5.0" in (tmp_path / "run" / "recipe.yaml").read_text()
    assert go(tmp_path / "run", "conditions=[none]") == []
    assert "checkpoint_seconds: 5.0" in (tmp_path / "run" / "recipe.yaml").read_text()


def test_what_only_the_report_shows_may_change(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    assert go(tmp_path / "run", "report.title=Another") == []
    assert "title: Another" in (tmp_path / "run" / "recipe.yaml").read_text()


def test_a_run_and_its_own_store_may_be_moved_together(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "moved")
    assert find_garbage(store_of(tmp_path / "moved")) == []


@pytest.mark.parametrize("what", ["nothing", "damaged"])
def test_where_there_is_no_run(tmp_path, what):
    if what == "damaged":
        (tmp_path / "plan.json").write_text("{")
    with pytest.raises(InputError, match=r"no run in it|plan\.json: damaged"):
        show_run(tmp_path)


def planned(out: Path) -> Forecast:
    return plan_recipe(packaged_recipe("demo", SMALL), out, watch=lambda *_: None)


@pytest.mark.slow
def test_the_plan_predicts_what_comes_and_writes_nothing(tmp_path):
    """Labels and order as run; memory and disk to a factor of 2; time at least of the right size."""
    out = tmp_path / "run"
    # In a process of its own, as the command is: the program's own memory is part of what is predicted, and this
    # process holds what all tests before left.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
        predicted = fresh.submit(planned, out).result()
    assert not out.exists()
    assert go(out) == []
    came = show_run(out)
    assert [cost.step.label for cost in predicted.costs] == [state.label for state in came]
    for cost, state in zip(predicted.costs, came, strict=True):
        assert not cost.done
        if state.peak_memory_mb is not None:
            assert state.peak_memory_mb / 2 < cost.memory_mb < 3 * state.peak_memory_mb
        if state.kind != "measure":
            assert state.disk_mb / 2 < cost.disk_mb < 2 * state.disk_mb
        # A few tenths of a second each, on cores that other tests use: a factor of 20 tells a wrong formula.
        assert state.seconds is not None
        assert state.seconds / 20 < cost.seconds + 1 < 20 * (state.seconds + 1)
    assert 0 < predicted.seconds <= sum(cost.seconds for cost in predicted.costs) + 1e-9
    again = planned(out)
    assert all(cost.done for cost in again.costs)
    assert (again.seconds, again.memory_mb, again.disk_mb) == (0, 0, 0)


@contextmanager
def small_disk(at: Path, size: str) -> Iterator[None]:
    """A disk of its own for a folder, where this process may mount one."""
    at.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", at], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", at], check=True)


def remount(at: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", at], check=True)


@pytest.mark.slow
def test_a_full_disk_is_told_nothing_is_lost_and_it_resumes(finished, tmp_path):
    at = tmp_path / "disk"
    with small_disk(at, "4m"):  # the target alone takes 8 MB
        (failure,) = go(at / "run")
        assert failure.step.label == "target"
        assert "no space left on the disk" in failure.reason
        assert "free some, then the same command resumes" in failure.reason
        assert not list((at / "run" / "steps").glob("target*"))
        remount(at, "size=100m")
        assert go(at / "run") == []
        assert (at / "run" / "metrics.parquet").read_bytes() == (finished / "metrics.parquet").read_bytes()


def test_a_read_only_disk_is_told_and_what_is_there_is_used(finished, tmp_path, monkeypatch):
    at = tmp_path / "disk"
    with small_disk(at, "100m"):
        shutil.copytree(finished / "steps", at / "steps")
        remount(at, "ro")
        monkeypatch.setenv("NEUROPRIOR_STORE", str(at / "steps"))
        with pytest.raises(InputError, match=r"steps: cannot be written \(Read-only file system\).*NEUROPRIOR_STORE"):
            go(tmp_path / "more", "conditions=[none, shuffle, blur]")
        assert go(tmp_path / "same") == []  # all is there: nothing need be written
        same = (tmp_path / "same" / "metrics.parquet").read_bytes()
        assert same == (finished / "metrics.parquet").read_bytes()
        remount(at, "rw")
        assert go(tmp_path / "more", "conditions=[none, shuffle, blur]") == []
