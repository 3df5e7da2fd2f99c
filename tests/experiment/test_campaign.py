"""Campaigns: the next cells, packets of small files, and results in which each cell stands once."""

import json
from importlib import resources
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from command_line import call
from neuroprior.experiment import (
    Cell,
    done_cells,
    load_campaign,
    load_run,
    measured_so_far,
    merge_packet,
    open_cells,
    run_packet,
)
from neuroprior.files import write_json
from neuroprior.types import InputError
from small_demo import SMALL as TINY

CAMPAIGNS = Path(__file__).parents[2] / "recipes" / "campaigns"
GROUPS = [
    {
        "name": "main",
        "conditions": ["none", "neural_model@alpha=2"],
        "seeds": [0, 1],
        "set": {"perturbations": {"linf": ["pgd"]}},
    },
    {"name": "vgg", "conditions": ["vgg"], "seeds": [0], "set": {"controls": {"vgg": "nowhere.pth"}}},
    {"name": "lineage", "conditions": ["neural_model"], "seeds": [0], "set": {"regularizer": {"scale": "lineage"}}},
]


def written(folder: Path, **changes) -> Path:
    """A campaign of the packaged demo."""
    demo = resources.files("neuroprior.experiment").joinpath("demo.yaml").read_text()
    (folder / "demo.yaml").write_text(demo)
    said = {"name": "small", "recipe": "demo.yaml", "groups": GROUPS, "tiny": {"perturbations": {"n_images": 2}}}
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({**said, **changes}))
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("campaign")
    written(folder)
    return folder


def packet(place: Path, out: Path, results: Path, minutes: float = 9.0):
    campaign = load_campaign(place / "small.yaml", TINY)
    return run_packet(
        campaign, results, out, place / "work", minutes=minutes, at_once=2, command=["test"], watch=lambda *_: None
    )


def test_the_next_cells_are_done_in_order_merged_once_and_then_no_longer_open(place, tmp_path):
    campaign, results = load_campaign(place / "small.yaml", TINY), tmp_path / "results"
    assert open_cells(campaign, results) == campaign.cells
    first = packet(place, tmp_path / "a", results, minutes=0.0)  # one batch is always done
    assert first.done == (Cell("main", "none", 0), Cell("main", "neural_model@alpha=2", 0))
    assert not first.failed
    assert {file.name for file in first.folder.iterdir()} == {"packet.json", "metrics.parquet", "perturbations.parquet"}
    assert merge_packet(campaign, first.folder, results) == first.done
    assert open_cells(campaign, results) == campaign.cells[2:]
    second = packet(place, tmp_path / "b", results)
    assert second.done == (
        Cell("main", "none", 1),
        Cell("main", "neural_model@alpha=2", 1),
        Cell("lineage", "neural_model", 0),
    )
    assert list(second.failed) == [Cell("vgg", "vgg", 0)]  # its weights are missing, which stops no other
    assert "nowhere.pth" in second.failed[Cell("vgg", "vgg", 0)]
    merge_packet(campaign, second.folder, results)
    assert open_cells(campaign, results) == (Cell("vgg", "vgg", 0),)
    assert done_cells(results) == first.done + second.done

    rows = pq.read_table(results / "metrics.parquet")
    accuracy = rows.filter(pc.and_(pc.equal(rows["metric"], "noise_accuracy"), pc.equal(rows["x"], 0.0)))
    found = {(r["group"], r["condition"], r["seed"]) for r in accuracy.to_pylist()}
    assert found == {(c.group, c.condition, c.seed) for c in done_cells(results)}
    assert accuracy.num_rows == 5
    distances = pq.read_table(results / "perturbations.parquet").to_pylist()
    assert len(distances) == 4 * 2  # of the group that is attacked: two images
    said = json.loads((results / "packets.json").read_text())
    assert [len(one["cells"]) for one in said["packets"]] == [2, 3]
    assert all(one["provenance"]["commit"] for one in said["packets"])

    main, lineage = measured_so_far(campaign, results)
    assert (main.groups, lineage.groups) == (("main",), ("lineage",))  # measured otherwise
    assert [card.name for card in main.measurements.conditions] == ["none", "neural_model@alpha=2"]
    assert not main.measurements.missing
    metrics = main.measurements.metrics
    unfooled = metrics.filter(pc.equal(metrics["metric"], "unfooled_linf")).to_pylist()
    for condition, seed in ((cell.condition, cell.seed) for cell in done_cells(results) if cell.group == "main"):
        by_size = [row for row in unfooled if (row["condition"], row["seed"]) == (condition, seed)]
        own = [row["distance"] for row in distances if (row["condition"], row["seed"]) == (condition, seed)]
        assert [row["value"] for row in by_size] == [
            sum(distance > row["x"] for distance in own) / len(own) for row in by_size
        ]


def test_a_group_is_its_recipe_with_what_it_sets(place):
    campaign = load_campaign(place / "small.yaml", TINY)
    (run,) = (place / "work").glob("main-seed0-*")
    assert load_run(run).missing == ()  # the work of a packet is a run like any other
    recipe = campaign.groups["lineage"]
    assert recipe.regularizer.scale == "lineage"
    assert recipe.conditions == ("neural_model",)
    assert campaign.groups["main"].perturbations.n_images == 2


def test_a_packet_is_refused_twice_from_elsewhere_or_of_other_settings(place, tmp_path):
    campaign, results = load_campaign(place / "small.yaml", TINY), tmp_path / "results"
    one = packet(place, tmp_path / "a", results, minutes=0.0)
    with pytest.raises(InputError, match="holds a packet that is not merged yet"):
        packet(place, tmp_path / "a", results)
    other = load_campaign(place / "small.yaml", [*TINY, "training.epochs=2"])
    with pytest.raises(InputError, match="group main was measured with other settings"):
        merge_packet(other, one.folder, results)
    assert not results.exists()
    merge_packet(campaign, one.folder, results)
    before = {file.name: file.read_bytes() for file in results.iterdir()}
    (results / "packets.json").unlink()  # as a merge leaves it that is stopped halfway
    merge_packet(campaign, one.folder, results)
    assert {file.name: file.read_bytes() for file in results.iterdir()} == before
    with pytest.raises(InputError, match=r" of group main, seed 0, is in .* already"):
        merge_packet(campaign, one.folder, results)
    said = json.loads((one.folder / "packet.json").read_text())
    said["cells"][0]["seed"] = 7
    said["cells"] = said["cells"][:1]
    write_json(one.folder / "packet.json", said)
    with pytest.raises(InputError, match="seed 7, is none of campaign small"):
        merge_packet(campaign, one.folder, results)
    with pytest.raises(InputError, match="no packet in it"):
        merge_packet(campaign, tmp_path / "nowhere", results)
    assert {file.name: file.read_bytes() for file in results.iterdir()} == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"groups": [GROUPS[0], GROUPS[0]]}, "two are called 'main'"),
        ({"recipe": "other.yaml"}, r"names the recipe .*other\.yaml, and there is none"),
        ({"groups": [{**GROUPS[0], "conditions": ["nothing"]}]}, r"group 'main', demo\.yaml: .*nothing"),
        ({"order": 3}, "small.yaml: order: Extra inputs are not permitted"),
    ],
)
def test_a_campaign_that_cannot_be_is_said(tmp_path, changes, said):
    with pytest.raises(InputError, match=said) as raised:
        load_campaign(written(tmp_path, **changes))
    assert "\n" not in str(raised.value)


def test_the_command_does_the_next_packet_and_merges_it(place, tmp_path, capsys):
    sets = [part for setting in TINY for part in ("--set", setting)]
    where = ["--results", tmp_path / "results", *sets]
    file = place / "small.yaml"
    status, out, _ = call(capsys, "campaign", "open", file, *where)
    assert "next: none (seed 0)" in out
    run = ["campaign", "run", file, "--out", tmp_path / "packet", "--work", place / "work", "--minutes", "0"]
    status, out, _ = call(capsys, *run, "--at-once", "2", *where)
    assert status == 0
    assert "2 networks done, 0 failed" in out
    status, out, _ = call(capsys, "campaign", "merge", file, tmp_path / "packet", *where)
    assert "2 networks added, 4 of 6 still open" in out
    report = ["campaign", "report", file, *where]
    status, out, err = call(capsys, *report)
    assert status == 0, err
    files = [Path(line) for line in out.split()]
    before = [path.read_bytes() for path in files]
    page = files[0].read_text()
    assert "Still open: none, seed 1; neural_model@alpha=2, seed 1" in page
    assert all(f"({path.name})" in page for path in files[1:])
    call(capsys, *report)
    assert before == [path.read_bytes() for path in files]
    status, _, err = call(capsys, "campaign", "report", file, "--results", tmp_path / "none", *sets)
    assert (status, "nothing is merged yet" in err) == (2, True)


def test_the_papers_campaign_holds_what_it_should():
    campaign = load_campaign(CAMPAIGNS / "paper.yaml")
    assert campaign.cells[:4] == tuple(Cell("main", name, 0) for name in ("none", "neural_model", "shuffle", "blur"))
    assert {recipe.network.width for recipe in campaign.groups.values()} == {64}
    assert {recipe.training.epochs for recipe in campaign.groups.values()} == {40}
    assert len(campaign.cells) == 77
