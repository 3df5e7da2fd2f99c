"""What a recipe asks of trained networks beside noise: rows equal what the functions themselves give, and no more."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from neuroprior.experiment import load_run, packaged_recipe, run_recipe
from neuroprior.experiment.inputs import task_images
from neuroprior.experiment.plan import plan
from neuroprior.experiment.steps.measuring import first_images
from neuroprior.experiment.steps.training import new_network
from neuroprior.report import write_report
from neuroprior.robustness import corruption_accuracy, filter_accuracy
from neuroprior.types import InputError
from small_demo import SMALL as DEMO

SMALL = [*DEMO, "conditions=[none, blur]"]
ASKED = [
    "perturbations={l0: [brendel_bethge], l1: [fmn], n_images: 6, max_gradients: 40}",
    "ensemble={linf: [0.05], l2: [0.5], n_images: 6, strength: quick}",
    "corruptions={kinds: [brightness, contrast], severities: [1, 5], n_images: 20}",
    "frequencies={cutoffs: [2, 6], n_images: 20, hybrids_of: all}",
    "tuning={units: 2, orientations: 3, phases: 3, exciting: 1, exciting_steps: 2}",
    "masking={radius: 0.1, queries: 20, n_images: 4}",
]


def small(*more: str):
    return packaged_recipe("demo", [*SMALL, *more])


@pytest.fixture(scope="module")
def probed(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("probes") / "run"
    assert run_recipe(small(*ASKED), out, command=["test"], watch=lambda *a: None) == []
    return out


def rows_of(run: Path, condition: str, metric: str) -> dict:
    found = [row for row in pq.read_table(run / "metrics.parquet").to_pylist() if row["condition"] == condition]
    return {(row["x"], row["tap"]): (row["value"], row["n"]) for row in found if row["metric"] == metric}


def test_the_rows_are_what_the_functions_give_of_the_trained_network(probed):
    (trained,) = [f for f in (probed / "steps").iterdir() if f.name.startswith("train-none")]
    step = next(s for s in plan(small(*ASKED), {}) if s.label == "train-none-seed0")
    # The packaged digits lie class by class; the run tests on 60 of them.
    test_images = first_images(task_images(step.work.task.model_copy(update={"n_test": 60}), "test"), 20)
    assert len(set(test_images.labels.tolist())) > 1
    network = new_network(step.work, test_images)
    network.load_state_dict(load_file(trained / "weights.safetensors"))
    images, labels = torch.from_numpy(test_images.pixels).float() / 255, torch.from_numpy(test_images.labels)
    curve = corruption_accuracy(network, images, labels, kinds=["brightness", "contrast"], severities=[1, 5])
    for kind, accuracy in zip(curve.kinds, curve.accuracy, strict=True):
        found = rows_of(probed, "none", f"corruption.{kind}")
        assert {x: value for (x, _), (value, _) in found.items()} == dict(zip((1.0, 5.0), accuracy, strict=True))
    low = filter_accuracy(network, images, labels, [2, 6], keep="low")
    found = rows_of(probed, "none", "low_pass_accuracy")
    assert {x: value for (x, _), (value, _) in found.items()} == dict(zip(low.cutoffs, low.accuracy, strict=True))


def test_shares_are_shares_and_counts_are_told(probed):
    for condition in ("none", "blur"):
        assert not rows_of(probed, condition, "mean_corruption_error")  # two kinds are not the usual fifteen
        for norm in ("l0", "l1"):
            spectrum = rows_of(probed, condition, f"perturbation_spectrum_{norm}")
            if spectrum:
                assert sum(value for value, _ in spectrum.values()) == pytest.approx(1)
        for norm, radius in (("linf", 0.05), ("l2", 0.5)):
            ((value, n),) = rows_of(probed, condition, f"attacked_accuracy_{norm}").values()
            wrong = rows_of(probed, condition, f"attacked_already_wrong_{norm}")[radius, None][0]
            assert 0 <= value <= 1 - wrong / n
            assert n == 6
        taps = [tap for _, tap in rows_of(probed, condition, "responsive_units")]
        assert taps == ["stem", "stage1", "stage2", "stage3", "stage4"]


def test_a_run_holds_its_units_and_verdicts_and_the_report_says_them(probed):
    results = load_run(probed)
    assert set(results.units) == {"none", "blur"}
    for units in results.units.values():
        assert len(units.images) == len(units.layers) == len(units.channels)
        assert ((units.images >= 0) & (units.images <= 1)).all()
    (found,) = results.masking.values()
    assert [one["model"] for one in found] == ["none", "blur"]
    assert all(one["verdict"].startswith(("masking: ", "no sign of masking")) for one in found)
    page = write_report(results).read_text()
    assert found[0]["verdict"].split(":")[0] in page
    for name in ("masking", "tuning", "frequencies", "corruptions", "smallest"):
        assert (probed / "report" / f"{name}.csv").is_file()
    for condition in ("none", "blur"):
        low, high = (rows_of(probed, condition, f"hybrid_{part}") for part in ("low", "high"))
        assert [x for x, _ in low] == [2.0, 6.0]
        assert all(0 <= low[at][0] + high[at][0] <= 1 + 1e-9 for at in low)


def test_what_is_not_asked_makes_no_step():
    kinds = {step.kind for step in plan(small(), {})}
    assert kinds == {"target", "train", "measure", "stability"}
    asked = {step.kind for step in plan(small(*ASKED), {})}
    assert asked == {*kinds, "attack", "ensemble", "corruptions", "frequencies", "tuning", "masking"}


def test_a_probe_changes_no_other_steps_key():
    before = {step.label: step.key for step in plan(small(), {})}
    after = {step.label: step.key for step in plan(small(*ASKED), {})}
    assert before.items() <= after.items()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("ensemble={n_images: 3}", "names no radius; give ensemble.linf, ensemble.l2"),
        ("corruptions={kinds: [rain]}", "corruptions.kinds.0: Input should be"),
        ("corruptions={severities: [1, 1]}", r"corruptions.severities: \[1, 1\] names one twice"),
        ("frequencies={cutoffs: [-1, 2]}", "frequencies.cutoffs.0"),
        ("frequencies={cutoffs: [4]}", "frequencies.cutoffs: .*at least 2"),
        ("frequencies={cutoffs: [8, 2]}", r"frequencies.cutoffs: \[8.0, 2.0\] do not rise; sort them"),
        ("ensemble={linf: [2.0]}", "ensemble.linf.0"),
        ("masking={n_images: 3}", "'masking.radius' is missing"),
        ("tuning={orientation: 4}", "unknown key 'tuning.orientation'; did you mean 'orientations'"),
        ("perturbations={l0: [ddn]}", "ddn: minimises l2, not l0"),
    ],
)
def test_bad_input_in_one_line(asked, says):
    with pytest.raises(InputError, match=says) as refused:
        small(asked)
    assert "\n" not in str(refused.value)
