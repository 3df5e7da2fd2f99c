"""Training logs: what was written is there, also after a kill and a resumption."""

import builtins
import json
import math
from pathlib import Path

import pytest

from neuroprior.logs import JsonLines, NoLog, Several, TensorBoard, TrainingLog
from neuroprior.types import InputError


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def written(log: TrainingLog, steps: range, value: float = 0.5) -> None:
    for step in steps:
        log.write(step, {"task_loss": value, "gamma/layer1": value / 2})


def test_a_line_is_there_as_soon_as_it_is_written(tmp_path):
    log = JsonLines(tmp_path / "new" / "log.jsonl")
    log.write(3, {"task_loss": 0.1 + 0.2, "images_per_second": 100})
    assert lines(log.path) == [{"step": 3, "task_loss": 0.1 + 0.2, "images_per_second": 100.0}]
    log.close()
    log.close()
    log.write(4, {})
    log.close()
    assert [line["step"] for line in lines(log.path)] == [3, 4]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_is_said_of_the_log():
    """An open file's errors name nothing: neither that of writing, nor that of closing what could not be written."""
    log = JsonLines(Path("/dev/full"))
    with pytest.raises(OSError, match="No space left") as caught:
        log.write(0, {"task_loss": 0.5})
    assert caught.value.filename == "/dev/full"
    with pytest.raises(OSError, match="No space left") as caught:
        log.close()
    assert caught.value.filename == "/dev/full"
    log.close()


def test_what_json_cannot_say_is_null(tmp_path):
    log = JsonLines(tmp_path / "log")
    log.write(0, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1e-300})
    log.close()
    assert lines(log.path) == [{"step": 0, "a": None, "b": None, "c": None, "d": 1e-300}]


def test_a_value_may_not_be_named_step(tmp_path):
    with pytest.raises(TypeError, match="step"):
        JsonLines(tmp_path / "log").write(0, {"step": 1.0})
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("cut", [None, 1, 20, 46])
@pytest.mark.parametrize("step", [0, 4, 9])
def test_stopped_and_gone_on_is_as_never_stopped(tmp_path, step, cut):
    """Whatever was logged after the last checkpoint, and wherever the last line was cut off."""
    whole, stopped = JsonLines(tmp_path / "whole"), JsonLines(tmp_path / "stopped")
    written(whole, range(12))
    written(stopped, range(9))
    stopped.close()
    if cut is not None:
        stopped.write(9, {"task_loss": 0.5, "gamma/layer1": 0.25})
        stopped.close()
        text = stopped.path.read_text()
        last = text.splitlines(keepends=True)[-1]
        stopped.path.write_text(text[: len(text) - len(last) + cut])
    again = JsonLines(tmp_path / "stopped")
    again.go_on_from(step)
    assert [line["step"] for line in lines(again.path)] == list(range(step))
    written(again, range(step, 12))
    again.close()
    whole.close()
    assert again.path.read_bytes() == whole.path.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["stopped", "whole"]


def test_a_whole_line_without_its_end_is_kept(tmp_path):
    path = tmp_path / "log"
    path.write_text('{"step": 0}\n{"step": 1}')
    log = JsonLines(path)
    log.go_on_from(2)
    log.write(2, {})
    log.close()
    assert lines(path) == [{"step": 0}, {"step": 1}, {"step": 2}]


def test_going_on_while_open_and_from_nothing(tmp_path):
    log = JsonLines(tmp_path / "log")
    log.go_on_from(0)
    assert not log.path.exists()
    written(log, range(3))
    log.go_on_from(1)
    written(log, range(1, 2), value=7.0)
    log.close()
    assert [(line["step"], line["task_loss"]) for line in lines(log.path)] == [(0, 0.5), (1, 7.0)]


@pytest.mark.parametrize("strange", ["my notes", "[1]", '{"epoch": 1}', '{"step": "one"}'])
def test_a_file_that_is_no_log_is_left_alone(tmp_path, strange):
    path = tmp_path / "notes"
    path.write_text(f'{{"step": 0}}\n{strange}\n{{"step": 1}}\n')
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"notes: line 2 is not of a training log; move the file away"):
        JsonLines(path).go_on_from(1)
    assert path.read_bytes() == before


def test_several_get_the_same_and_all_are_closed(tmp_path):
    class Breaks(NoLog):
        def close(self) -> None:
            raise OSError("broken")

    one, two = JsonLines(tmp_path / "one"), JsonLines(tmp_path / "two")
    log = Several([one, Breaks(), two])
    written(log, range(5))
    log.go_on_from(2)
    written(log, range(2, 4), value=1.0)
    with pytest.raises(OSError, match="broken"):
        log.close()
    assert one._file is None
    assert two._file is None
    assert one.path.read_bytes() == two.path.read_bytes()
    assert [line["step"] for line in lines(one.path)] == [0, 1, 2, 3]


def test_tensorboard_sees_each_step_once(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def seen(name):
        events = EventAccumulator(str(tmp_path))
        events.Reload()
        return [(event.step, event.value) for event in events.Scalars(name)]

    log = TensorBoard(tmp_path)
    written(log, range(6))
    assert seen("task_loss") == [(step, 0.5) for step in range(6)]  # before it is closed
    log.close()
    again = TensorBoard(tmp_path)
    again.go_on_from(3)
    written(again, range(3, 5), value=2.0)
    again.close()
    assert seen("task_loss") == [(0, 0.5), (1, 0.5), (2, 0.5), (3, 2.0), (4, 2.0)]
    assert seen("gamma/layer1")[-1] == (4, 1.0)


def test_tensorboard_missing_says_how_to_get_it(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("torch.utils.tensorboard"):
            raise ModuleNotFoundError("No module named 'tensorboard'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install 'neuroprior\[tensorboard\]'"):
        TensorBoard(tmp_path)
