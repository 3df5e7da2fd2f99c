"""Engines other than `local`: the same graph, deaths and failures, through ray and through submitit."""

import multiprocessing
import os
import threading
import time
from pathlib import Path

import pytest

from experiment.engine_work import Work, blind, blind_at_first, do
from neuroprior.experiment import engines
from neuroprior.experiment.engine import Failure, Held, News, run_steps
from neuroprior.experiment.engines import check_engine, make_engine, on_ray, on_slurm
from neuroprior.experiment.engines.far_away import at_work
from neuroprior.experiment.progress import Reporter, log_file
from neuroprior.experiment.sections import ClusterSection, ComputeSection
from neuroprior.experiment.store import Step, Store, code_version
from neuroprior.experiment.worker import work_far_away
from neuroprior.types import InputError

TESTS = Path(__file__).parents[1]


def step(name: str, *inputs: Step, what: str = "write") -> Step:
    return Step(
        "test", name, Work(name=name, what=what), inputs=tuple((f"in{k}", one.key) for k, one in enumerate(inputs))
    )


@pytest.fixture
def compute(monkeypatch):
    path = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]  # where workers find the work
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    return ComputeSection(
        device="cpu", precision="float32", threads=1, workers=2, retries=1, cluster=ClusterSection(debug=True)
    )


SBATCH = """#!/bin/bash
# Accepts at most so many jobs; one counts for a second after its end, and gets nothing of whoever submits it.
here=$(dirname "$0")
if [ $(ls "$here/jobs" | wc -l) -ge $(cat "$here/limit") ]; then
    echo x >> "$here/refused"
    echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2
    exit 1
fi
echo x >> "$here/accepted"
id=$(wc -l < "$here/accepted")
cp "$1" "$here/jobs/$id"
(
    env -i PATH="$PATH" PYTHONPATH="$PYTHONPATH" SLURM_JOB_ID=$id SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 \\
        SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_JOB_NODELIST=here bash "$here/jobs/$id"
    sleep 1
    rm "$here/jobs/$id"
) > "$here/printed" 2>&1 &
echo "Submitted batch job $id"
"""
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do [ $1 = --unbuffered ] || shift; shift; done
exec "$@"
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """The commands of a slurm that runs what it accepts on this machine; `limit` jobs at a time."""
    pytest.importorskip("submitit")
    folder = tmp_path / "slurm"
    (folder / "jobs").mkdir(parents=True)
    (folder / "limit").write_text("9")
    for name, script in {
        "sbatch": SBATCH,
        "srun": SRUN,
        "sacct": "#!/bin/bash\necho 'JobID|State|NodeList'\n",
        "scancel": "#!/bin/bash\n",
    }.items():
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.fixture
def of_slurm(compute):
    return compute.model_copy(update={"cluster": ClusterSection()})


def test_a_job_that_slurm_refuses_waits_and_is_tried_again(tmp_path, slurm, of_slurm, monkeypatch):
    """Of three jobs slurm takes one at a time, and counts each for a while after its end."""
    monkeypatch.setattr(on_slurm, "_AGAIN", 0.3)
    (slurm / "limit").write_text("1")
    store, steps = Store(tmp_path / "store"), [step(name) for name in "abc"]
    store.create()
    assert run_steps(steps, store, make_engine("slurm", store, do, of_slurm), watch=lambda *_: None) == []
    assert all(store.has(one) for one in steps)
    assert (slurm / "accepted").read_text().count("x") == 3
    assert (slurm / "refused").read_text().count("x") >= 2


def test_a_job_that_slurm_never_takes_ends_the_run_in_one_line(tmp_path, slurm, of_slurm):
    (slurm / "limit").write_text("0")
    store = Store(tmp_path / "store")
    with pytest.raises(
        InputError, match=r"the job was refused \(.*QOSMaxSubmitJobPerUserLimit.*; mend compute\.cluster"
    ):
        run_steps([step("a")], store, make_engine("slurm", store, do, of_slurm), watch=lambda *_: None)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="the system tells nothing of how processes began")
@pytest.mark.parametrize("name", ["local", "slurm", "debug", pytest.param("ray", marks=pytest.mark.slow)])
def test_every_engine_starts_its_workers_with_the_same_settings(name, tmp_path, slurm, compute, of_slurm, monkeypatch):
    """libgomp reads them when it is loaded: they must be there when the process begins."""
    pytest.importorskip({"slurm": "submitit", "debug": "submitit"}.get(name, name) if name != "local" else "pytest")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("NEUROPRIOR_DATA", str(tmp_path / "data"))
    store, one = Store(tmp_path / "store"), step("a", what="tell its environment")
    store.create()
    engine = make_engine("slurm" if name == "debug" else name, store, do, of_slurm if name == "slurm" else compute)
    assert run_steps([one], store, engine, watch=lambda *_: None) == []
    said = {"OMP_WAIT_POLICY=PASSIVE", "OMP_NUM_THREADS=1", f"NEUROPRIOR_DATA={tmp_path / 'data'}"}
    assert said <= set((store.folder(one) / "now").read_text().splitlines())
    if name != "local":  # its server begins once, and may have begun with another test
        assert said <= set((store.folder(one) / "began").read_text().splitlines())
    assert "OMP_WAIT_POLICY" not in os.environ


@pytest.mark.parametrize("name", ["slurm", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_step_that_could_not_begin_on_a_node_is_submitted_again(name, tmp_path, compute, monkeypatch):
    pytest.importorskip({"slurm": "submitit"}.get(name, name))
    store, one, said = Store(tmp_path / "store"), step("a"), list[tuple[str, str, float]]()
    store.create()

    def failures(work) -> list[Failure]:
        monkeypatch.setattr(on_slurm if name == "slurm" else on_ray, "work_far_away", work)
        if name == "slurm":
            monkeypatch.setattr(on_slurm, "_Job", lambda: work)
        return run_steps([one], store, make_engine(name, store, do, compute), watch=lambda *news: said.append(news))

    (failure,) = failures(blind)
    assert failure.reason == "node a does not see the store"
    again = "node a does not see the store; submitting it again (1 of 1)"
    assert sum(what.endswith(again) for _, what, _ in said) == 1
    assert failures(blind_at_first) == []
    assert sum(what.endswith(again) for _, what, _ in said) == 2
    assert store.has(one)


def hold(store: Store, one: Step, seconds: float) -> None:
    with store.writing(one) as out:
        assert out is not None
        time.sleep(seconds)
        (out / "said").write_text("by the first")


def test_a_place_on_a_cluster_is_not_held_for_long(tmp_path):
    """Neither while another process is at work on the step, nor for what a node does not see."""
    store, one = Store(tmp_path / "store"), step("a")
    store.create()
    first = multiprocessing.get_context("forkserver").Process(target=hold, args=(store, one, 60.0))
    first.start()
    try:
        while not store.is_taken(one.name):
            time.sleep(0.05)
        began = time.monotonic()
        assert work_far_away(one, store.root, {}, do, {}, code_version(), patience=0.5) == Held(one)
        missing = work_far_away(one, store.root, {"in": tmp_path / "gone"}, do, {}, code_version(), patience=0.5)
        assert isinstance(missing, Failure)
        assert missing.elsewhere
        assert 1.0 < time.monotonic() - began < 10.0
    finally:
        first.kill()
        first.join()
    assert work_far_away(one, store.root, {}, do, {}, code_version(), patience=0.5) is None


def test_a_job_waits_for_a_folder_that_is_seen_late(tmp_path):
    store, one = Store(tmp_path / "store"), step("a")
    store.create()
    late = tmp_path / "late"
    (tmp_path / "early").mkdir()
    (tmp_path / "early" / "said").write_text("late")
    threading.Timer(0.5, (tmp_path / "early").rename, [late]).start()
    assert work_far_away(one, store.root, {"in": late}, do, {}, code_version(), patience=30.0) is None
    assert (store.folder(one) / "said").read_text() == "late a"


def test_jobs_run_after_what_they_need_and_leave_no_pickle(tmp_path, compute):
    pytest.importorskip("submitit")
    store = Store(tmp_path / "store")
    store.create()
    first = step("first")
    second = step("second", first)
    assert run_steps([first, second], store, make_engine("slurm", store, do, compute), watch=lambda *_: None) == []
    assert (store.folder(second) / "said").read_text() == "first second"
    assert not list((store.root / ".jobs").glob("*.pkl"))
    assert (store.root / ".jobs").stat().st_mode & 0o077 == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["slurm", "ray"])
def test_the_graph_goes_on_whatever_dies_or_fails(name, tmp_path, compute):
    """Inputs before what needs them; one that died goes on from its checkpoint; what fails, or dies twice, is told."""
    pytest.importorskip({"slurm": "submitit"}.get(name, name))
    store = Store(tmp_path / "store")
    store.create()
    first, second = step("first", what="sleep"), step("second", what="die once")
    third = step("third", first, second)
    bad, dead = step("bad", what="fail"), step("dead", what="die")
    after = step("after", bad)
    said = list[tuple[str, str, float]]()
    engine = make_engine(name, store, do, compute)
    failures = run_steps([first, second, third, bad, dead, after], store, engine, watch=lambda *news: said.append(news))
    assert (store.folder(third) / "said").read_text() == "first second third"
    told = {failure.step.label: failure for failure in failures}
    assert sorted(told) == ["bad", "dead"]
    assert told["bad"].reason == "RuntimeError: asked to fail"
    assert told["bad"].log[-1] == "RuntimeError: asked to fail"
    assert log_file(store, bad.name).read_text().startswith("it was going so well\nTraceback")
    assert "lost 2 times" in told["dead"].reason
    assert "the same command resumes" in told["dead"].reason
    assert not store.has(after)
    assert {label for label, what, _ in said if what == "done"} == {"first", "second", "third"}
    assert run_steps([first, second, third], store, make_engine(name, store, do, compute), watch=lambda *_: None) == []


def test_what_steps_say_far_away_is_heard_through_the_store(tmp_path):
    store, one, silent = Store(tmp_path), step("one"), step("silent")
    with Reporter(store, one.name) as reporter:
        reporter.say("half way", 0.5)
        assert list(at_work(store, {one.key: one, silent.key: silent})) == [News(one, "half way", 0.5)]
    assert list(at_work(store, {one.key: one})) == []


def test_what_is_not_there_is_told_before_anything_is_done(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"no slurm on this machine \(sbatch is not found\)"):
        check_engine("slurm")
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"ray is not installed; pip install 'neuroprior\[cluster\]'"):
        check_engine("ray")
    with pytest.raises(InputError, match="submitit is not installed"):
        check_engine("slurm")
    check_engine("local")


@pytest.mark.slow
def test_no_cluster_at_the_address_is_one_line(tmp_path, compute):
    pytest.importorskip("ray")
    wrong = compute.model_copy(update={"cluster": ClusterSection(address="127.0.0.1:1")})
    engine = make_engine("ray", Store(tmp_path), do, wrong)
    with pytest.raises(InputError, match=r"no ray cluster at 127\.0\.0\.1:1"):
        run_steps([step("a")], Store(tmp_path), engine, watch=lambda *_: None)


def test_a_node_without_the_store_or_with_other_software_says_so(tmp_path):
    one = step("a")
    failure = work_far_away(one, tmp_path / "elsewhere", {}, do, {}, code_version(), patience=0.0)
    assert isinstance(failure, Failure)
    assert failure.reason.startswith("node ")
    assert f"does not see {tmp_path / 'elsewhere'}; put the store on a disk that all nodes share" in failure.reason
    store = Store(tmp_path / "store")
    store.create()
    missing = work_far_away(one, store.root, {"in": tmp_path / "gone"}, do, {}, code_version(), patience=0.0)
    assert isinstance(missing, Failure)
    assert "gone" in missing.reason
    other = work_far_away(one, store.root, {}, do, {}, {**code_version(), "torch": "1.0"})
    assert isinstance(other, Failure)
    assert "other software than the driver (torch" in other.reason
    before = dict(os.environ)
    try:
        assert work_far_away(one, store.root, {}, do, {"NEUROPRIOR_DATA": "there"}, code_version()) is None
        assert os.environ["NEUROPRIOR_DATA"] == "there"
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.mark.slow
def test_a_cluster_of_two_nodes_works_at_two_steps_at_once(tmp_path, compute, monkeypatch):
    """Each node has one CPU, and a step asks for one: side by side they must be on both."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        there = compute.model_copy(update={"cluster": ClusterSection(address=cluster.address)})
        store, said = Store(tmp_path / "store"), list[tuple[str, str, float]]()
        store.create()
        both = [step("one", what="sleep"), step("two", what="sleep")]
        assert run_steps(both, store, make_engine("ray", store, do, there), watch=lambda *n: said.append(n)) == []
        first_end = next(k for k, (_, what, _) in enumerate(said) if what == "done")
        assert {label for label, what, _ in said[:first_end] if what == "sleeping"} == {"one", "two"}
        greedy = there.model_copy(update={"threads": 2})
        with pytest.raises(InputError, match=r"none of the cluster's 2 nodes has what a step asks for \(2 CPU\)"):
            run_steps([step("three")], store, make_engine("ray", store, do, greedy), watch=lambda *_: None)
    finally:
        cluster.shutdown()
