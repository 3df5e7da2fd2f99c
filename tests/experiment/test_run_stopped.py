"""Runs that fail or are stopped: what is finished is kept, what failed is told, nothing is half-written."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from neuroprior.experiment import load_run, measured_in, run_recipe
from neuroprior.experiment.plan import plan
from neuroprior.experiment.run import store_of
from neuroprior.experiment.store import Step
from neuroprior.types import InputError
from small_demo import SMALL, go, small


def test_lost_steps_are_done_again_to_the_byte(finished, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    for folder in (out / "steps").glob("*neural_model*"):
        shutil.rmtree(folder)
    (out / "metrics.parquet").unlink()
    said: list = []
    assert go(out, said=said) == []
    assert (out / "metrics.parquet").read_bytes() == (finished / "metrics.parquet").read_bytes()
    assert {label for label, what, _ in said if what == "done"} == {
        "train-neural_model-seed0",
        "measure-neural_model-seed0",
    }


def test_a_run_whose_code_or_data_changed_is_not_mixed_with_the_old_one(finished, monkeypatch):
    monkeypatch.setattr("neuroprior.experiment.store.code_version", lambda: {"source": "edited"})
    before = (finished / "metrics.parquet").read_bytes()
    with pytest.raises(InputError, match="changed since that run was made"):
        go(finished)
    assert (finished / "metrics.parquet").read_bytes() == before


@pytest.mark.parametrize("kept", [["recipe.yaml"], ["recipe.yaml", "provenance.json"]])
def test_a_run_killed_while_it_was_created_goes_on(finished, tmp_path, kept):
    out = tmp_path / "run"
    out.mkdir()
    (out / ".plan.json.123").write_text("half")
    for name in kept:
        shutil.copy(finished / name, out)
    shutil.copytree(finished / "steps", out / "steps")
    assert go(out) == []
    assert (out / "metrics.parquet").read_bytes() == (finished / "metrics.parquet").read_bytes()


@pytest.mark.slow
def killed_in_training(out, *more: str) -> tuple[list, list]:
    """Kill the first worker that trains, once; return what failed and what was said."""
    recipe = small("conditions=[none, blur]", "compute.workers=2", "training.epochs=25", *more)
    said: list = []

    def watch(label: str, what: str, part: float) -> None:
        if label.startswith("train") and "epoch" in what and not any("epoch" in before for _, before, _ in said):
            os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
        said.append((label, what, part))

    return run_recipe(recipe, out, command=["test"], watch=watch), said


def test_a_worker_that_dies_is_replaced(tmp_path):
    failures, said = killed_in_training(tmp_path / "run")
    assert failures == []
    assert any(what == "its process died, trying again (1 of 2)" for _, what, _ in said)
    assert not list((tmp_path / "run" / "steps" / ".unfinished").iterdir())


def test_a_worker_that_dies_is_told_where_nothing_is_tried_again(tmp_path):
    failures, _ = killed_in_training(tmp_path / "run", "compute.retries=0")
    assert failures
    assert all("its process was killed" in failure.reason for failure in failures)
    assert not list((tmp_path / "run" / "steps" / ".unfinished").iterdir())
    assert (tmp_path / "run" / "metrics.parquet").exists()


def test_a_step_that_fails_is_told_and_the_rest_goes_on(tmp_path):
    said: list = []
    failures = go(tmp_path / "run", "training.learning_rate=1e30", "conditions=[none]", said=said)
    assert [f.step.label for f in failures] == ["train-none-seed0"]
    assert "no longer finite" in failures[0].reason
    steps = [p.name.rsplit("-", 1)[0] for p in (tmp_path / "run" / "steps").glob("[a-z]*-*")]
    assert sorted(steps) == ["stability", "target"]  # the failed step left nothing, its measurement was not tried
    assert load_run(tmp_path / "run").missing == ("train-none-seed0", "measure-none-seed0")


def test_one_folder_holds_one_recipe(finished):
    with pytest.raises(InputError, match="another recipe \\(training differs\\)"):
        go(finished, "training.epochs=2")
    with pytest.raises(InputError, match=r"compute\.threads=1, not 2"):
        go(finished, "compute.threads=2")


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="holds other files"):
        go(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_missing_data_file_stops_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match=r"none\.npz: no such file"):
        go(tmp_path / "run", "stimuli={source: npz, path: none.npz}")
    assert not (tmp_path / "run").exists()


def test_a_step_interrupted_leaves_no_folder(tmp_path):
    store = store_of(tmp_path)
    step: Step = plan(small(), {})[0]

    def interrupted() -> None:
        with store.writing(step) as folder:
            (folder / "half").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not store.has(step)
    assert list((store.root / ".unfinished").iterdir()) == []


def test_a_stopped_run_can_be_reported(finished, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    (out / "metrics.parquet").unlink()
    shutil.rmtree(next((out / "steps").glob("measure-blur*")))
    results = load_run(out)
    assert results.missing == ("measure-blur-seed0",)
    assert "shuffle" in results.metrics["condition"].to_pylist()


def test_load_run_of_nothing(tmp_path):
    with pytest.raises(InputError, match=r"no run in it \(recipe\.yaml is missing\)"):
        load_run(tmp_path)


@pytest.mark.parametrize("how", ["kill", pytest.param("interrupt", marks=pytest.mark.slow)])
def test_a_stopped_run_leaves_no_process_and_resumes(finished, tmp_path, how):
    """SIGKILL or Ctrl-C in the middle: the workers end too, what was half-written goes, and the bytes are the same."""
    out = tmp_path / "run"
    # Where tests run in the background, SIGINT comes ignored and stays so: a person's terminal has it.
    begin = "import signal as s; s.signal(s.SIGINT, s.default_int_handler); import neuroprior.cli as c; c.main()"
    command = [sys.executable, "-c", begin, "demo", "--out", str(out)]
    for setting in (*SMALL, "compute.workers=2"):
        command += ["--set", setting]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert run.stderr is not None
    for line in run.stderr:
        if line.startswith("train-") and "starting" in line:
            break
    if how == "kill":
        run.kill()
    else:
        os.killpg(run.pid, signal.SIGINT)
    said = run.stderr.read()
    run.stderr.close()
    run.wait()
    if how == "interrupt":
        assert run.returncode == 130
        assert said.splitlines()[-1] == "neuroprior: stopped; the same command goes on from here"
        assert "Traceback" not in said
    deadline = time.monotonic() + 20
    while (left := _processes_of_group(run.pid)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left
    assert go(out, "compute.workers=2") == []
    assert not list((out / "steps" / ".unfinished").iterdir())
    assert pq.read_table(out / "metrics.parquet") == pq.read_table(finished / "metrics.parquet")


def _processes_of_group(group: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(entry.parent.name))
    return found


def test_reading_a_run_whose_store_is_elsewhere_leaves_its_metrics(tmp_path, finished, monkeypatch):
    out = tmp_path / "run"
    shutil.copytree(finished, out, ignore=shutil.ignore_patterns("steps"))
    kept = (out / "metrics.parquet").read_bytes()
    monkeypatch.setenv("NEUROPRIOR_STORE", str(tmp_path / "another"))
    assert measured_in(out).measurements.metrics.num_rows == pq.read_metadata(out / "metrics.parquet").num_rows
    with pytest.raises(InputError, match="its target is not made yet"):
        load_run(out)
    assert (out / "metrics.parquet").read_bytes() == kept
