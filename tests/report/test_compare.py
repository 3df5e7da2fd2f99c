"""Runs beside each other: paired differences over common seeds, settings that differ, folders that are no runs."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neuroprior.cli import main
from neuroprior.experiment import measured_in, packaged_recipe
from neuroprior.experiment.results import METRICS_SCHEMA
from neuroprior.report.compare import compare_runs, compare_table, recipe_differences, run_names, write_comparison
from neuroprior.types import InputError


def folder(where: Path, *overrides: str, shift: float = 0.0, seeds=(0, 1, 2), conditions=("none", "blur")) -> Path:
    """A published folder whose accuracies are known: .5 + .01 seed + shift, less .3 at noise."""
    where.mkdir(parents=True)
    recipe = packaged_recipe("demo", [f"conditions=[{','.join(conditions)}]", f"seeds={list(seeds)}", *overrides])
    (where / "recipe.yaml").write_text(recipe.to_yaml())
    (where / "provenance.json").write_text(json.dumps({"commit": "abc123" * 5, "command": "neuroprior demo"}))
    rows = [
        dict(condition=c, seed=s, metric="noise_accuracy", tap=None, x=x, value=0.5 + 0.01 * s + shift - 3 * x, n=100)
        for c in conditions
        for s in seeds
        for x in (0.0, 0.1)
    ]
    rows += [
        dict(condition=c, seed=s, metric="median_l2", tap=None, x=None, value=0.1 + shift + s * s / 100, n=100)
        for c in conditions
        for s in seeds
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=METRICS_SCHEMA), where / "metrics.parquet")
    return where


def test_differences_are_over_the_seeds_that_both_have(tmp_path):
    a = measured_in(folder(tmp_path / "a"))
    b = measured_in(folder(tmp_path / "b", shift=0.02, seeds=(1, 2, 3)))
    found = compare_runs([a, b])
    assert [(one.condition.name, one.metric, one.x) for one in found] == [
        *(("none", m, x) for m, x in (("noise_accuracy", 0.0), ("noise_accuracy", 0.1), ("median_l2", None))),
        *(("blur", m, x) for m, x in (("noise_accuracy", 0.0), ("noise_accuracy", 0.1), ("median_l2", None))),
    ]
    (gap,) = found[0].differences
    assert gap is not None
    assert gap.n == 2
    assert gap.mean == pytest.approx(0.02)
    assert gap.low == pytest.approx(0.02)
    assert found[0].estimates[1].mean == pytest.approx(0.54)
    table = compare_table([a, b], found)
    assert table.header == ("Condition and number", "a", "b", "b minus a")
    assert table.rows[0] == (
        "None: clean, %", "51.0 ± 0.6 (3)", "54.0 ± 0.6 (3)", "+2.0 [+2.0,\N{NO-BREAK SPACE}+2.0] (2)",
    )  # fmt: skip


def test_settings_that_differ_and_no_others(tmp_path):
    a = measured_in(folder(tmp_path / "a"))
    b = measured_in(
        folder(tmp_path / "b", "network.width=3", "compute.workers=7", "masking={radius: 0.1}", conditions=("none",))
    )
    assert dict(recipe_differences([a, b])) == {
        "conditions": ("none, blur", "none"),
        "network.width": (str(a.recipe.network.width), "3"),
        "masking": ("None", "has one"),
    }
    assert recipe_differences([a, a]) == []


def test_the_page_and_the_csv(tmp_path):
    runs = [measured_in(folder(tmp_path / where / "run", shift=k / 10)) for k, where in enumerate("xyz")]
    assert run_names(runs) == ["x/run", "y/run", "z/run"]
    page = write_comparison(runs, tmp_path / "out")
    text = page.read_text()
    assert "<script" not in text
    assert text.count("y/run minus x/run") == 1
    assert "abc123abc123" in text
    assert write_comparison(runs, tmp_path / "out").read_text() == text
    rows = list(csv.DictReader((tmp_path / "out" / "compare.csv").read_text().splitlines()))
    assert len(rows) == 3 * 6
    assert float(rows[1]["mean"]) == pytest.approx(0.61)


def test_what_cannot_be_compared_is_one_line(tmp_path, capsys):
    a = folder(tmp_path / "a")
    other = folder(tmp_path / "other", conditions=("shuffle",))
    with pytest.raises(InputError, match="name two runs or more"):
        compare_runs([measured_in(a)])
    with pytest.raises(InputError, match="have no number in common"):
        compare_runs([measured_in(a), measured_in(other)])
    with pytest.raises(InputError, match=r"no run in it \(recipe\.yaml is missing\)"):
        measured_in(tmp_path)
    (other / "metrics.parquet").write_bytes(b"x")
    with pytest.raises(InputError, match="damaged"):
        measured_in(other)
    (other / "metrics.parquet").unlink()
    with pytest.raises(InputError, match=r"metrics\.parquet is missing"):
        measured_in(other)
    b = folder(tmp_path / "b", shift=0.1)
    with pytest.raises(SystemExit) as left:
        main(["report", "compare", str(a), str(b), "--out", str(tmp_path / "out")])
    assert left.value.code == 0
    assert "b minus a" in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        main(["report", "compare", str(a), str(tmp_path / "none")])
    assert left.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", ["compare", "run"])
def test_a_folder_named_like_a_command_is_said_as_a_path(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def say(*arguments: str) -> tuple[object, str]:
        with pytest.raises(SystemExit) as left:
            main(["report", *arguments])
        return left.value.code, capsys.readouterr().err

    assert "./" not in say(name)[1]  # no folder, no riddle
    folder(tmp_path / name)
    for given in ([name], [name, "--no-such-option"]):
        status, said = say(*given)
        assert status == 2
        assert said.count("\n") == 1
        assert said.endswith(
            f"{name} is a command here: for the folder of that name give `neuroprior report ./{name}`\n"
        )
    assert say(f"./{name}", "--out", "page")[0] == 0
    assert say("run", name, "--out", "page")[0] == 0
    assert say("compare", name, name)[0] == 0
    assert say(name, "--help")[0] == 0


def test_a_published_folder_has_a_report_from_its_numbers_alone(tmp_path, capsys):
    a = folder(tmp_path / "a")
    before = sorted(path.name for path in a.iterdir())
    for arguments, status in (
        (["--out", str(tmp_path / "page")], 0),
        (["--publish", str(tmp_path / "x")], 2),
    ):
        with pytest.raises(SystemExit) as left:
            main(["report", str(a), *arguments])
        assert left.value.code == status
    assert "this folder is a published one already" in capsys.readouterr().err
    page = (tmp_path / "page" / "report" / "index.html").read_text()
    assert "Beside the published numbers" in page
    assert "51.0 ± 0.6" in page
    assert sorted(path.name for path in a.iterdir()) == before
