"""Looking on from elsewhere: states, pace and what is left, as a table and as lines."""

import io
import itertools
import json
from types import SimpleNamespace

import pytest
from rich.console import Console

from neuroprior.cli.live import LiveRun, follow, headline, table
from neuroprior.experiment import look_on
from neuroprior.experiment.progress import log_file
from neuroprior.experiment.runs import PlannedStep, RunPlan, store_of
from neuroprior.types import InputError


@pytest.fixture
def run(tmp_path):
    """Four steps: `a` took 10 s, `b` of the same kind is a quarter done after 5 s, `c` is to do, `d` was stopped."""
    out = tmp_path / "run"
    out.mkdir()
    steps = [PlannedStep(label, kind, label * 16) for label, kind in zip("abcd", ("k", "k", "k", "other"), strict=True)]
    RunPlan(tuple(steps), None).write(out)
    store = store_of(out)
    store.create()
    names = {step.label: step.name for step in steps}
    (store.root / names["a"]).mkdir()
    (store.root / names["a"] / "step.json").write_text(json.dumps({"seconds": 10.0}))
    for label in "bd":
        store.unfinished(names[label]).mkdir(parents=True)
    (store.unfinished(names["d"]) / "checkpoint.safetensors").write_text("x")
    (store.root / ".progress").mkdir()
    said = {"what": "epoch 1 of 4", "part": 0.25, "started": 100.0, "said": 105.0, "since": 100.0, "before": 0.0}
    said |= {"host": "node7", "pid": 1}
    (store.root / ".progress" / f"{names['b']}.json").write_text(json.dumps(said))
    log_file(store, names["d"]).parent.mkdir()
    log_file(store, names["d"]).write_text("one\n\ntwo\n")
    return out, store, names


def test_states_pace_and_what_is_left(run):
    out, store, names = run
    with store.lock(names["b"]):
        view = look_on(out)
        assert [step.state for step in view.steps] == ["done", "at work", "to do", "stopped"]
        b, d = view.steps[1], view.steps[3]
        assert (b.what, b.part, b.seconds, b.seconds_left, b.host) == ("epoch 1 of 4", 0.25, 5.0, 15.0, "node7")
        assert d.said == ("one", "two")
        assert view.seconds_left is None  # nothing is known of the kind `other`
        (store.root / names["d"]).mkdir()
        (store.root / names["d"] / "step.json").write_text(json.dumps({"seconds": 1.0}))
        view = look_on(out)
        assert view.seconds_left == 15.0 + (10.0 + 20.0) / 2  # b's own pace; c as the median of a's and b's
        assert headline(view) == f"{out}: 2 of 4 steps done, 1 at work, about 30 s left"
    assert look_on(out).steps[1].state == "to do"  # whoever said it is gone
    with pytest.raises(InputError, match="no run in it"):
        look_on(out.parent)


def test_the_table_fits_and_what_is_at_work_comes_first(run):
    out, store, names = run
    with store.lock(names["b"]):
        view = look_on(out)

        def drawn(height: int) -> list[str]:
            console = Console(file=io.StringIO(), width=100)
            console.print(table(view, height))
            return console.file.getvalue().splitlines()  # type: ignore[attr-defined]

        whole = drawn(40)
        assert [line.split()[0] for line in whole[-4:]] == ["a", "b", "c", "d"]
        assert "━" * 5 + "─" * 15 in whole[-3]
        assert "epoch 1 of 4" in whole[-3]
        few = drawn(8)
        assert [line.split()[0] for line in few[-4:]] == ["b", "d", "c", "and"]
        assert "and 1 more" in few[-1]


def test_plain_lines_where_there_is_no_terminal(run, capsys, monkeypatch):
    out, store, names = run
    follow(out, once=True)
    assert capsys.readouterr().out.splitlines()[:2] == ["a: done", "b: to do"]
    lock = store.lock(names["b"])
    lock.acquire()
    clock = itertools.count(0.0, 3.0)
    waits = SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda _: lock.release())
    monkeypatch.setattr("neuroprior.cli.live.time", waits)
    follow(out, once=False)
    said = capsys.readouterr().out.splitlines()
    assert "b: epoch 1 of 4 (25%, about 15 s left)" in said
    assert said[-1] == "nobody is at work on it: the command that began it goes on"
    with LiveRun(out) as live:
        live.update("a", "done", 1.0)
        live.update("a", "done", 1.0)
    assert capsys.readouterr().err == "a: done\n"
