"""The page stands alone, says its n, escapes what it is given, and is the same bytes for the same run."""

import dataclasses
import hashlib
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from neuroprior.experiment.results import METRICS_SCHEMA
from neuroprior.report import publish, write_figures, write_report
from neuroprior.report.page import render_page
from neuroprior.report.plate import rows_digest

from .conftest import CARDS, MakeRun, card_of


class _Page(HTMLParser):
    """Every element's attributes, and the text of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


TABLES = {*("summary.csv", "noise.csv", "paired.csv", "tradeoff.csv"), *("effects.csv", "matched.csv", "ledger.csv")}
_FIGURE = re.compile(r"figures/[\w-]+\.(svg|pdf)")

RUNS = {
    "three seeds": dict(seeds=(0, 1, 2)),
    "one seed": dict(seeds=(0,)),
    "no truth": dict(seeds=(0, 1), with_truth=False),
    "unfinished": dict(seeds=(0, 1), unfinished=("shuffle", "blur")),
    "nothing finished": dict(seeds=(0,), unfinished=tuple(CARDS)),
    "no examples, no target": dict(seeds=(0,), conditions=("none", "blur"), examples=0),
}


_RENDERED: dict[str, str] = {}  # the page is a pure function of the run, and several tests read each


def rendered(make_run: MakeRun, **asked: object) -> str:
    """The page of a run that was asked for like this, made once."""
    key = repr(sorted(asked.items()))
    if key not in _RENDERED:
        _RENDERED[key] = render_page(make_run(**asked))
    return _RENDERED[key]


@pytest.fixture(params=RUNS, ids=[name.replace(" ", "-") for name in RUNS])
def page(request: pytest.FixtureRequest, make_run: MakeRun) -> _Page:
    return _Page(rendered(make_run, **RUNS[request.param]))


def test_ids_are_unique_and_every_reference_has_its_id(page: _Page) -> None:
    ids = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    assert [name for name, count in ids.items() if count > 1] == []
    for _, attributes in page.elements:
        for key, value in attributes.items():
            for name in re.findall(r"url\(#([^)]+)\)", value or ""):
                assert name in ids
            if key in ("href", "xlink:href") and (value or "").startswith("#"):
                assert (value or "")[1:] in ids
            if key == "aria-describedby":
                assert value in ids


def test_nothing_is_loaded_and_nothing_runs(page: _Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base")
        for key, value in attributes.items():
            assert not key.startswith("on")
            if key in ("src", "href", "xlink:href", "action", "srcset", "poster", "data"):
                assert value is not None
                assert value.startswith(("data:image/png;base64,", "#")) or value in TABLES or _FIGURE.fullmatch(value)
            if key == "style":
                assert not re.search(r"url\((?!#)", value or "")


def test_every_figure_has_a_caption_and_a_drawing_with_words(page: _Page) -> None:
    drawings = page.all("svg")
    assert all(one["role"] == "img" and len(one["aria-label"] or "") > 20 for one in drawings)
    assert len(page.all("figure")) == len(page.all("figcaption")) <= len(drawings)


_MANY: list[str] = []


def _many_page(make_many: MakeRun) -> str:
    if not _MANY:
        _MANY.append(render_page(make_many()))
    return _MANY[0]


def test_every_caption_says_n_or_that_none_is_needed(make_many: MakeRun) -> None:
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", _many_page(make_many), flags=re.DOTALL)
    assert len(captions) == 13
    assert all(re.search(r"n = \d|4 test images", caption) for caption in captions)


def test_target_and_weights_are_said_once_at_the_top(make_run: MakeRun) -> None:
    text = _Page(rendered(make_run)).text
    for card in CARDS.values():
        if card.target != "no target":
            words = f"target: {card.target}; weights: "
            assert text.count(words) == 1
            assert text.index(words) < text.index("What came out")


def test_the_page_is_small_and_says_what_it_has(make_many: MakeRun) -> None:
    text = _many_page(make_many)
    assert len(text.encode()) < 2_000_000
    for heading in (
        "Robustness at matched clean accuracy",
        "Gain at matched clean accuracy, seed by seed",
        "Paired differences",
        "Effect sizes against each control",
        "Beside the published numbers",
        "accuracy against α",
        "Final γ by α",
        "Accuracy under attack as a table",
        "Few-shot accuracy",
        "Linear probe",
    ):
        assert heading in text
    assert "a check that everything runs" not in text
    assert "Neural (simulated data)" in text
    assert "Neural (data)" not in text  # simulated trials are never passed off as data


def test_a_tiny_run_is_no_result_and_absent_measures_have_no_heading(make_many: MakeRun, make_run: MakeRun) -> None:
    text = render_page(dataclasses.replace(make_many(seeds=(0,), scale="tiny"), figures=()))
    assert text.index("scale=tiny:</strong> a check that everything runs, not a result") < text.index("<table")
    other = rendered(make_run)
    for heading in ("accuracy against α", "Final γ by α", "Accuracy under attack", "Few-shot", "Linear probe"):
        assert heading not in other


def test_a_recipe_chooses_its_figures(make_many: MakeRun) -> None:
    text = render_page(dataclasses.replace(make_many(seeds=(0,)), figures=("tradeoff", "sweep")))
    assert set(re.findall(r'<g id="([\w-]+?)-figure_1"', text)) == {"tradeoff", "sweep"}


PROBED = {
    *("smallest.csv", "corruptions.csv", "corruption_errors.csv", "frequencies.csv", "tuning.csv"),
    *("attacked_accuracy_linf.csv", "attacked_accuracy_l2.csv"),
}
PROBED_HEADINGS = (
    "Mean smallest perturbation, norm by norm",
    "The attacks and their settings",
    "Accuracy under common corruptions, by severity",
    "Mean corruption error",
    "Spatial frequencies: what networks go by, and what fools them",
    "Crossover and half power frequency",
    "What units are tuned to, tap by tap",
    "Accuracy under an ensemble of attacks (L∞)",
    "Accuracy under an ensemble of attacks (L2)",
)


def test_all_that_was_asked_stands_on_the_page_and_what_was_not_does_not(
    make_probed: MakeRun, make_run: MakeRun
) -> None:
    figures = ("supplement", "corruption", "frequency", "tuning")
    probed = make_probed(seeds=(0, 1), conditions=("none", "neural_model"))
    assert probed.attacks is not None
    others = pc.and_(
        pc.starts_with(probed.metrics["metric"], "perturbation_"),
        pc.invert(pc.ends_with(probed.metrics["metric"], "_l2")),
    )
    results = dataclasses.replace(  # one norm: fewer panels to draw twice
        probed, figures=figures, metrics=probed.metrics.filter(pc.invert(others)), attacks=probed.attacks.of(norm="l2")
    )
    path = write_report(results)
    first = _files(path.parent)
    write_report(results)
    assert _files(path.parent) == first
    assert set(first) >= PROBED
    text = first["index.html"].decode()
    assert results.attacks is not None
    assert f"attacks <code>{rows_digest(results.attacks.table)}</code>, recipe" in text
    page = _Page(text)
    ids = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    assert max(ids.values()) == 1
    assert {attributes["aria-describedby"] for attributes in page.all("table")} <= set(ids)
    assert all(len(one["aria-label"] or "") > 20 for one in page.all("svg"))
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", text, flags=re.DOTALL)
    assert len(captions) == len(figures)
    assert all(re.search(r"n = \d", caption) for caption in captions)
    other = render_page(dataclasses.replace(make_run(seeds=(0,)), figures=figures))
    assert "<svg" not in other
    assert "Left out:" not in other
    for heading in PROBED_HEADINGS:
        assert heading in page.text
        assert heading not in _Page(other).text
    assert PROBED.isdisjoint(_Page(other).text.split())


def test_a_recipe_chooses_among_the_further_figures(make_probed: MakeRun) -> None:
    results = make_probed(seeds=(0,), conditions=("none", "blur"))
    text = render_page(dataclasses.replace(results, figures=("tuning", "corruption")))
    drawn = set(re.findall(r'<g id="([\w-]+?)-figure_1"', text))
    assert {name.split("-")[0] for name in drawn} == {"tuning", "corruption"}


@pytest.mark.parametrize("missing", [False, True])
def test_one_seed_never_shows_a_spread(make_run: MakeRun, missing: bool) -> None:
    text = rendered(make_run, seeds=(3,), unfinished=("shuffle",) if missing else ())
    assert "±" not in text
    assert "SEM" not in _Page(text).text
    assert "n = 1 seed, no spread" in text
    assert "±" in rendered(make_run, seeds=(3, 4))


def _files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_two_writes_are_the_same_bytes_and_leave_no_other_file(make_run: MakeRun) -> None:
    results = make_run(seeds=(0, 1), conditions=("none", "neural_model", "blur"))
    page = write_report(results)
    assert page == results.folder / "report" / "index.html"
    first = _files(page.parent)
    assert write_report(results) == page
    assert _files(page.parent) == first
    linked = {href for one in _Page(page.read_text()).all("a") if (href := one["href"]) is not None}
    assert set(first) == {"index.html", *linked}  # every link leads to a file, and every file is linked
    assert linked >= {*TABLES, "figures/noise.svg", "figures/noise.pdf"}
    assert {name for name in linked if not _FIGURE.fullmatch(name)} == TABLES
    drawn = set(re.findall(r'<g id="([\w-]+?)-figure_1"', page.read_text()))
    assert linked - TABLES == {f"figures/{name}.{kind}" for name in drawn for kind in ("svg", "pdf")}


def test_a_report_that_fails_leaves_the_old_one_whole(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    page = write_report(dataclasses.replace(make_run(), figures=("noise",)))
    before = _files(page.parent)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(dataclasses.replace(make_run(seeds=(0,)), figures=("noise",)))
    assert _files(page.parent) == before


def test_what_a_person_wrote_is_text_not_markup(make_run: MakeRun) -> None:
    evil = "<script>alert('$x$')</script>"
    cards = [card_of(name, f"{evil}{name}", evil, evil) for name in CARDS]
    text = render_page(make_run(cards=cards, name=evil))
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    page = _Page(text)
    assert evil in page.text
    assert "see http://example.org/<recipe>" in page.text  # the recipe, as it was written


def test_the_numbers_of_the_table_stand_on_the_page(make_run: MakeRun) -> None:
    text = rendered(make_run)
    assert re.search(r"Neural \(model\).{0,200}<td>59\.3 ± 0\.9</td>", text, flags=re.DOTALL)
    assert re.search(r"Neural \(model\).{0,300}<td>30\.8 ± 0\.9</td>", text, flags=re.DOTALL)


def test_an_unfinished_run_says_so_at_the_top_and_a_finished_one_does_not(make_run: MakeRun) -> None:
    text = rendered(make_run, unfinished=("shuffle",))
    assert text.index("unfinished:") < text.index("<table")
    assert "train shuffle" in text
    assert "unfinished:" not in rendered(make_run)


def test_a_figure_without_data_is_one_line(make_run: MakeRun) -> None:
    text = rendered(make_run, with_truth=False)
    assert "Left out: The noise-free similarity is not known here" in text
    assert text.count("Left out:") == 1
    nothing = render_page(make_run(unfinished=tuple(CARDS), with_truth=False, examples=0))
    assert "<svg" not in nothing
    assert nothing.count("Left out:") == 11


def test_provenance_and_recipe_stand_at_the_foot(make_run: MakeRun) -> None:
    results = make_run()
    foot = render_page(results).split("<footer>")[1]
    for value in ("neuroprior run recipes/synthetic.yaml", "0123456789abcdef", "2.13.0", results.stimuli.digest):
        assert value in foot
    assert "alpha: 20" in foot


def test_the_folders_path_is_not_on_the_page(make_run: MakeRun) -> None:
    results = make_run()
    assert str(results.folder) not in render_page(results)


def test_figures_are_written_in_three_formats_reproducibly(make_run: MakeRun, tmp_path: Path) -> None:
    results = make_run(seeds=(0, 1))
    written = write_figures(results, tmp_path / "a")
    again = write_figures(results, tmp_path / "b")
    assert {path.suffix for path in written} == {".svg", ".png", ".pdf"}
    names = {path.stem for path in written}
    assert {"noise", "similarity-matrix-0", "training-task-loss", "gamma-0", "similarity-taps"} <= names
    assert [path.read_bytes() for path in written] == [path.read_bytes() for path in again]
    assert all(path.stat().st_size < 200_000 for path in written)


def test_publishing_copies_what_a_number_needs_to_be_checked(make_run: MakeRun, tmp_path: Path) -> None:
    results = make_run()
    results.folder.mkdir(parents=True)
    for name in ("metrics.parquet", "recipe.yaml", "provenance.json"):
        (results.folder / name).write_bytes(name.encode())
    written = {path.name: path for path in publish(results, tmp_path / "docs")}
    assert {"noise.svg", "noise.csv", "summary.csv", "ledger.csv"} <= set(written)
    assert not [name for name in written if name.endswith((".pdf", ".png"))]  # small enough to commit
    assert written["metrics.parquet"].read_bytes() == b"metrics.parquet"
    assert set(written) == {path.name for path in (tmp_path / "docs").iterdir()}


def test_every_figure_and_table_names_the_command_and_the_digests_behind_it(make_run: MakeRun) -> None:
    results = make_run()
    text = rendered(make_run)
    page = _Page(text)
    recipe = hashlib.sha256(results.recipe_yaml.encode()).hexdigest()[:12]
    named = (
        f"From metrics <code>{rows_digest(results.metrics)}</code>, recipe <code>{recipe}</code>; "
        f"<code>neuroprior run recipes/synthetic.yaml</code>"
    )
    assert text.count(named) == len(page.all("figure")) + len(page.all("table")) > 10
    assert "command not recorded" in render_page(dataclasses.replace(results, figures=(), provenance={}))


def test_a_digest_is_of_the_rows_and_not_of_how_they_are_stored(make_run: MakeRun, tmp_path: Path) -> None:
    metrics = make_run(seeds=(0,)).metrics
    digest = rows_digest(metrics)
    for compression in ("none", "zstd"):
        pq.write_table(metrics, tmp_path / "metrics.parquet", compression=compression, row_group_size=7)
        assert rows_digest(pq.read_table(tmp_path / "metrics.parquet")) == digest
    rows = metrics.to_pylist()
    by_hand = "".join(json.dumps([*row.values()]) + "\n" for row in rows)
    assert hashlib.sha256(by_hand.encode()).hexdigest()[:12] == digest
    rows[0]["value"] += 1e-12
    assert rows_digest(pa.Table.from_pylist(rows, schema=METRICS_SCHEMA)) != digest


def test_a_half_done_run_says_what_is_missing_and_keeps_a_line_for_each_figure_to_come(make_run: MakeRun) -> None:
    few = make_run(seeds=(0,), unfinished=("shuffle",))
    assert "1 step of this run is not done" in render_page(few)
    many = dataclasses.replace(
        few,
        missing=tuple(f"train none seed {k}" for k in range(30)),
        recipe_yaml="corruptions: {severities: [1]}\nperturbations: {l2: [ddn]}\n",
        figures=("corruption", "perturbation", "supplement", "frequency"),
    )
    text = render_page(many)
    assert "30 steps of this run are not done" in text
    assert text.index("train none seed 29") < text.index("<table")
    assert text.count("Left out:") == 3  # frequencies are not in this recipe
    done = dataclasses.replace(many, missing=())
    assert "Left out:" not in render_page(done)


def test_a_run_without_one_number_still_has_its_page(make_run: MakeRun) -> None:
    nothing = make_run(unfinished=tuple(CARDS))
    assert not len(nothing.metrics)
    text = _Page(render_page(nothing)).text
    assert "No result is finished yet." in text
    assert "Beside the published numbers" in text
    for heading in ("Paired differences", "Effect sizes", "Gain at matched clean accuracy"):
        assert heading not in text
