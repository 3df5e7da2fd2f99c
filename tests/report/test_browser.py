"""Pages in a real browser: nothing in the console, nothing that sticks out, no image without words."""

import os
from pathlib import Path

import pytest

from neuroprior.experiment import load_recipe, load_run, measured_in, run_recipe
from neuroprior.report import write_report
from neuroprior.report.compare import write_comparison
from neuroprior.types import InputError

from .browser import CHROMIUM, look, needs_chromium, photograph

RECIPES = Path(__file__).parents[2] / "recipes"
PUBLISHED = Path(__file__).parents[2] / "docs" / "results"
NARROW, WIDE = 360, 1280


def assert_sound(page: Path) -> None:
    for width in (NARROW, WIDE):
        seen = look(page, width)
        assert seen.errors == []
        assert seen.width <= width, seen.wide
        assert seen.wide == []
        assert seen.unnamed_images == 0


@needs_chromium
@pytest.mark.slow
def test_the_browser_sees_what_is_wrong(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(
        "<!DOCTYPE html><body><div style='width:700px'>wide</div><svg><path/></svg>"
        "<script>console.error('broken')</script></body>"
    )
    seen = look(page, NARROW)
    assert len(seen.errors) == 1
    assert "broken" in seen.errors[0]
    assert seen.width >= 700
    assert seen.wide == ["DIV wide"]
    assert seen.unnamed_images == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_recipe_runs_at_tiny_scale_and_its_page_is_sound(path, tmp_path):
    compute = "compute={device: cpu, precision: float32, threads: 1, workers: 1}"
    recipe = load_recipe(path, ["scale=tiny", compute])
    try:
        failures = run_recipe(recipe, tmp_path / "run", command=["neuroprior", "run"], watch=lambda *_: None)
    except InputError as error:
        pytest.skip(f"its data is not here: {error}")
    assert failures == []
    page = write_report(load_run(tmp_path / "run"))
    if CHROMIUM is None:
        pytest.skip("it ran; chromium, to look at its page, is not installed (apt-get install chromium)")
    assert_sound(page)
    if (kept := os.environ.get("NEUROPRIOR_SCREENSHOTS")) is not None:  # for eyes
        Path(kept).mkdir(parents=True, exist_ok=True)
        for name, width, dark in (("wide", WIDE, False), ("narrow", 500, False), ("dark", WIDE, True)):
            photograph(page, Path(kept) / f"{path.stem}-{name}.png", width, dark=dark)


@needs_chromium
@pytest.mark.slow
def test_a_comparison_is_sound(tmp_path):
    runs = [measured_in(PUBLISHED / name) for name in ("quick", "controls")]
    assert_sound(write_comparison(runs, tmp_path))
