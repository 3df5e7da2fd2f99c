"""Engines other than `local`: the same graph, deaths and failures, through ray and through submitit."""

import os
from pathlib import Path

import pytest

from experiment.engine_work import Work, do
from neuroprior.experiment import engines
from neuroprior.experiment.engine import News, run_steps
from neuroprior.experiment.engines import check_engine, make_engine
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
    failure = work_far_away(one, tmp_path / "elsewhere", {}, do, {}, code_version())
    assert failure is not None
    assert failure.reason.startswith("node ")
    assert f"does not see {tmp_path / 'elsewhere'}; put the store on a disk that all nodes share" in failure.reason
    store = Store(tmp_path / "store")
    store.create()
    missing = work_far_away(one, store.root, {"in": tmp_path / "gone"}, do, {}, code_version())
    assert missing is not None
    assert "gone" in missing.reason
    other = work_far_away(one, store.root, {}, do, {}, {**code_version(), "torch": "1.0"})
    assert other is not None
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
