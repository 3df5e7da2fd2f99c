"""The store: what is finished is whole, and who edits it is told before anything runs."""

import json
import multiprocessing
import threading
import time
from pathlib import Path

import pytest
from small_steps import run, step

from neuroprior.experiment.store import CHECKPOINT, Step, Store, digest_file
from neuroprior.types import InputError


def edit(folder: Path) -> str:
    (folder / "said").write_text("something else")
    return r"said: edited since the step was finished \(its digest differs\); delete .* and give the same command again"


def remove(folder: Path) -> str:
    (folder / "said").unlink()
    return "said is missing from the finished step; delete .* and give the same command again"


def add(folder: Path) -> str:
    (folder / "note").write_text("x")
    return "note was added to the finished step; take it out again"


def garble(folder: Path) -> str:
    (folder / "step.json").write_text("{")
    return r"step\.json: missing or damaged"


@pytest.mark.parametrize("how", [edit, remove, add, garble])
def test_an_edited_step_is_refused_before_anything_runs(tmp_path, how):
    store, log = Store(tmp_path / "store"), tmp_path / "log"
    a = step("a")
    b = step("b", a, log=log)
    assert run([a], store) == []
    with pytest.raises(InputError, match=how(store.folder(a))):
        run([a, b], store)
    assert not log.exists()


def test_a_store_of_a_newer_version_is_refused(tmp_path):
    (tmp_path / "store.json").write_text('{"format": 99}')
    with pytest.raises(InputError, match=r"written by a newer neuroprior \(store format 99, this one knows 1\)"):
        run([step("a")], Store(tmp_path))
    (tmp_path / "store.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        run([step("a")], Store(tmp_path))


def test_a_clock_that_jumps_changes_nothing(tmp_path, monkeypatch):
    """The time of day is never asked: it leaps a year with every question, and the step took no time."""
    leaps = iter(range(0, 10**12, 31_536_000))
    monkeypatch.setattr(time, "time", lambda: float(next(leaps)))
    store, one = Store(tmp_path), step("a")
    with store.writing(one) as out:
        assert out is not None
        (out / "said").write_text("x")
    assert 0 <= json.loads((store.folder(one) / "step.json").read_text())["seconds"] < 60
    store.verify(one)


def test_a_step_killed_between_its_last_file_and_its_name_is_whole(tmp_path, monkeypatch):
    """All is written and the manifest too, only the rename is missing: nothing is done again, no checkpoint stays."""
    store, one = Store(tmp_path), step("a")
    monkeypatch.setattr(Store, "_publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    monkeypatch.setattr("neuroprior.experiment.store._tidy", lambda *_: None)  # a killed process tidies nothing

    def killed() -> None:
        with store.writing(one) as out:
            assert out is not None
            (out / CHECKPOINT).write_text("kept")
            (out / "said").write_text("x")

    with pytest.raises(KeyboardInterrupt):
        killed()
    monkeypatch.undo()
    assert not store.has(one)
    with store.writing(one) as out:
        assert out is None
    store.verify(one)
    assert sorted(p.name for p in store.folder(one).iterdir()) == ["said", "step.json"]


def test_hidden_files_that_others_leave_are_no_edit(tmp_path):
    store, one = Store(tmp_path), step("a")
    assert run([one], store) == []
    (store.folder(one) / ".DS_Store").write_text("x")
    assert run([one], store) == []


def test_tidying_after_a_dead_worker_leaves_the_next_one_alone(tmp_path):
    store, one = Store(tmp_path), step("a")
    with store.writing(one) as out:
        assert out is not None
        (out / "said").write_text("x")
        store.tidy(one)
        assert (out / "said").exists()
    store.verify(one)


def test_digest_of_a_folder(tmp_path):
    """Names and contents count; the time, hidden files and the folder's own name do not."""
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "a").write_text("a")
    (two / ".DS_Store").write_text("x")
    assert digest_file(one) == digest_file(two)
    (two / "deep" / "a").rename(two / "deep" / "b")
    assert digest_file(one) != digest_file(two)


def test_nobody_waits_for_a_dead_process(tmp_path):
    """A lock goes with the process that held it, even when it was killed."""
    store, one = Store(tmp_path), step("a")
    store.create()
    held = multiprocessing.get_context("forkserver").Process(target=hold, args=(store, one))
    held.start()
    deadline = time.monotonic() + 30
    while not store.is_taken(one.name) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert store.is_taken(one.name)
    threading.Timer(0.5, held.kill).start()
    assert run([one], store) == []
    held.join()
    assert store.has(one)


def hold(store: Store, one: Step) -> None:
    with store.writing(one):
        time.sleep(60)
