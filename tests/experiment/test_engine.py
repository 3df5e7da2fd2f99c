"""The engine: each step once, whatever dies or fills up."""

import dataclasses
import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
from small_steps import do, run, step

from neuroprior.experiment.engine import Engine, Held, News, run_steps
from neuroprior.experiment.engines import local
from neuroprior.experiment.engines.local import LocalEngine
from neuroprior.experiment.progress import Progress, Reporter, log_file, read_progress
from neuroprior.experiment.store import CHECKPOINT, Step, Store


@pytest.mark.parametrize("workers", [1, 3])
def test_steps_run_after_their_inputs_and_read_them(tmp_path, workers):
    store = Store(tmp_path)
    a, b = step("a"), step("b")
    c = step("c", a, b)
    d = step("d", c, a)
    assert run([a, b, c, d], store, workers) == []
    assert (store.folder(d) / "said").read_text() == "a b c a d"
    assert {p.name for p in tmp_path.iterdir() if not p.name.startswith(".")} == {
        "store.json",
        *(s.name for s in (a, b, c, d)),
    }
    assert list((tmp_path / ".unfinished").iterdir()) == []


def test_what_is_there_is_not_done_again(tmp_path):
    store, log = Store(tmp_path / "store"), tmp_path / "log"
    a = step("a", log=log)
    b = step("b", a, log=log)
    assert run([a, b], store) == []
    said: list = []
    assert run([a, b], store, said=said) == []
    assert log.read_text().split() == ["a", "b"]
    assert {what for _, what, _ in said} == {"already there"}


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("fail", "asked to fail"),
        ("die", r"killed \(3 times\), most likely for want of memory"),
        ("no space", r"no space left on the disk .*MB free\); free some"),
        ("no memory", r"out of memory .* \(compute\.workers=1\)"),
        ("read only", "cannot be written .* NEUROPRIOR_STORE"),
    ],
)
def test_one_step_fails_and_the_rest_goes_on(tmp_path, what, reason):
    store = Store(tmp_path)
    bad, good = step("bad", what=what), step("good")
    after_bad, after_good = step("after-bad", bad), step("after-good", good)
    (failure,) = run([bad, good, after_bad, after_good], store)
    assert failure.step == bad
    assert failure.reason.count("\n") == 0
    assert re.search(reason, failure.reason), failure.reason
    assert [store.has(one) for one in (bad, good, after_bad, after_good)] == [False, True, False, True]
    visible = {p.name for p in tmp_path.iterdir() if not p.name.startswith(".")}
    assert visible == {"store.json", good.name, after_good.name}


def test_a_step_whose_worker_died_is_tried_again(tmp_path):
    store, said = Store(tmp_path), list[tuple]()
    a = step("a", what="die once")
    b = step("b", a)
    assert run([a, b], store, said=said) == []
    assert ("a", "its process died, trying again (1 of 2)", 0.0) in said
    assert (store.folder(b) / "said").read_text() == "a b"


class PipeConnection:
    """Like the end of a pipe on Windows: it does all that a `Connection` does, and is none."""

    def __init__(self, pipe) -> None:
        self.send, self.recv, self.close, self.fileno = pipe.send, pipe.recv, pipe.close, pipe.fileno


def test_the_local_engine_works_with_what_windows_has(tmp_path, monkeypatch):
    """Workers that are spawned, pipes of another class, no SIGKILL."""
    spawned = multiprocessing.get_context("spawn")

    def pipe():
        ours, theirs = spawned.Pipe()
        return PipeConnection(ours), theirs

    windows = SimpleNamespace(Pipe=pipe, Process=spawned.Process)
    monkeypatch.setattr(local, "_FORKS", False)
    monkeypatch.setattr(multiprocessing, "get_context", {"spawn": windows}.__getitem__)
    monkeypatch.delattr(signal, "SIGKILL")
    store = Store(tmp_path)
    good, bad = step("good"), step("bad", what="die")
    engine = LocalEngine(store, do, workers=2, retries=0)
    (failure,) = run_steps([good, bad], store, engine, watch=lambda *_: None)
    assert store.has(good)
    assert failure.step == bad
    assert "its process was killed, most likely" in failure.reason


def test_a_failure_brings_the_last_lines_that_were_printed(tmp_path, capfd):
    store = Store(tmp_path)
    bad, good = step("bad", what="print"), step("good")
    (failure,) = run([bad, good], store)
    assert failure.reason == "RuntimeError: after printing"
    assert failure.log[-2:] == ("RuntimeError: asked to fail", "after printing")
    whole = log_file(store, bad.name).read_text()
    assert "line 8\nfrom a child\nTraceback" in whole
    assert not log_file(store, good.name).exists()  # it printed nothing
    assert "line 8" not in capfd.readouterr().out
    left = read_progress(store, bad.name)
    assert left is not None
    assert left.what == "failed: RuntimeError: after printing"
    assert len(list((tmp_path / ".progress").iterdir())) == 1


def test_what_a_step_says_can_be_looked_on_from_elsewhere(tmp_path):
    store, one = Store(tmp_path), step("a")
    assert read_progress(store, one.name) is None
    with Reporter(store, one.name) as reporter:
        reporter.say("half way", 0.5)
        reporter.say("too soon after", 0.6)
        said = read_progress(store, one.name)
        assert said is not None
        assert (said.what, said.part, said.pid) == ("half way", 0.5, os.getpid())
        assert said.seconds_left is None  # it began in the middle: its pace is not known yet
    assert read_progress(store, one.name) is None


def test_the_pace_of_a_resumed_step_is_from_where_it_was_resumed():
    """An hour's work, taken up at 70 %: after ten seconds it is at 70.28 %, and not as good as done."""
    said = Progress("epoch", 0.7 + 10 / 3600, started=0.0, said=10.0, since=0.0, before=0.7, host="h", pid=1)
    assert said.seconds_left is None
    later = dataclasses.replace(said, part=0.75, said=180.0)
    assert later.seconds_left == pytest.approx(0.25 * 3600)


def test_two_runs_at_once_do_each_step_once(tmp_path):
    """Two engines on one store, as two commands would be: every step is begun exactly once."""
    log = tmp_path / "log"
    a = step("a", what="sleep", log=log)
    b, c = step("b", log=log), step("c", a, log=log)
    context = multiprocessing.get_context("forkserver")
    both = [context.Process(target=run, args=([a, b, c], Store(tmp_path / "store"), 1)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert sorted(log.read_text().split()) == ["a", "b", "c"]
    assert Store(tmp_path / "store").has(c)


class HeldEngine(Engine):
    """Its workers find, after `run_steps` saw nothing, that another process is at work on the step."""

    def __init__(self, first: threading.Thread) -> None:
        self.given = list[str]()
        self._first = first
        self._held: list[Step] = []

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *why: object) -> None:
        self._first.join()

    @property
    def busy(self) -> bool:
        return bool(self._held)

    @property
    def has_room(self) -> bool:
        return True

    def give(self, step: Step, inputs: Mapping[str, Path]) -> None:
        self.given.append(step.label)
        self._held.append(step)
        self._first.start()
        time.sleep(0.3)

    def news(self):
        while self._held:
            yield News(held := self._held.pop(), Held(held))


def test_a_step_that_was_found_held_is_waited_for_without_a_worker(tmp_path):
    store, one, said = Store(tmp_path), step("a"), list[tuple]()
    store.create()

    def first() -> None:
        with store.writing(one) as out:
            assert out is not None
            time.sleep(1.0)
            (out / "said").write_text("by the first")

    engine = HeldEngine(threading.Thread(target=first))
    assert run_steps([one], store, engine, watch=lambda *news: said.append(news)) == []
    assert engine.given == ["a"]
    assert [what for _, what, _ in said] == ["another process is at work on it", "done"]
    assert (store.folder(one) / "said").read_text() == "by the first"


def test_a_stopped_step_keeps_its_checkpoint_and_nothing_else(tmp_path):
    store = Store(tmp_path)
    bad = step("bad", what="keep")
    assert len(run([bad], store)) == 1
    assert [p.name for p in store.unfinished(bad.name).iterdir()] == [CHECKPOINT]
    with store.writing(bad) as out:
        assert out is not None
        assert (out / CHECKPOINT).read_text() == "kept"
        (out / "said").write_text("x")
    assert sorted(p.name for p in store.folder(bad).iterdir()) == ["said", "step.json"]
    store.verify(bad)


class Unreadable:
    """Can be sent and not be read: its place at the other end raises."""

    def __reduce__(self):
        return (int, ("not a number",))


def test_a_message_that_cannot_be_read_ends_the_worker_not_the_run(tmp_path):
    good = step("good")
    bad = step("bad")
    object.__setattr__(bad, "files", Unreadable())
    (failure,) = run([bad, good], Store(tmp_path))
    assert failure.step == bad
    assert "its process died" in failure.reason
    assert Store(tmp_path).has(good)


def test_steps_are_longest_first(tmp_path):
    log = tmp_path / "log"
    steps = [step(f"s{k}", cost=cost, log=log) for k, cost in enumerate([1.0, 3.0, 2.0])]
    assert run(steps, Store(tmp_path / "store"), workers=1) == []
    assert log.read_text().split() == ["s1", "s2", "s0"]
