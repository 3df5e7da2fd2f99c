"""The page of a stability with few repeats: it says what is left out, and draws the rest."""

import re

import pytest

from neuroprior.recordings import growth_with_repeats, packaged_photographs, scan_stability, simulate_scan
from neuroprior.report.similarity_drawings import similarity_matrix
from neuroprior.report.stability_page import stability_json, write_stability
from neuroprior.report.svg import inline_svg


@pytest.mark.parametrize(("repeats", "drawn"), [(2, 5), (3, 6), (4, 6)])  # two matrices, fluctuations, pairs; scatter
def test_a_page_says_what_its_repeats_do_not(tmp_path, repeats, drawn):
    shown = packaged_photographs(n_train=2, n_oracle=12)
    mice = [
        simulate_scan(shown, shown.ids[2:], n_neurons=40, n_repeats=repeats, animal=k, name=f"mouse{k}").scan
        for k in range(2)
    ]
    found = scan_stability(mice)
    write_stability(found, tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert page.count("<svg") == drawn
    assert not re.search(r"\bnan\b", page)
    assert ("Left out: noise ceiling of mouse0, mouse1 (needs 3 images with 4 trials)" in page) == (repeats < 4)
    said = stability_json(found)
    assert said["not_computed"] == list(found.not_computed)
    assert len(said["noise_ceiling"]) == (2 if repeats == 4 else 0)
    assert ("over repeats (Eq. 5)" in said["sd"]) == (repeats > 2)
    assert "over scans (Eq. 4)" in said["sd"]
    assert ("<h2>Noise ceiling</h2>" in page) == (repeats == 4)  # no table without rows


def test_what_is_drawn_is_named_and_nothing_else_is_quoted(tmp_path, monkeypatch):
    import neuroprior.report.stability_page as stability_page
    import neuroprior.report.stability_plates as stability_plates

    shown = packaged_photographs(n_train=2, n_oracle=12)
    mice = [simulate_scan(shown, shown.ids[2:], n_neurons=40, n_repeats=4, animal=k, name=f"mouse{k}") for k in (0, 1)]
    scans, drawn, limits = [mouse.scan for mouse in mice], {}, []
    found = scan_stability(scans, truths=[mouse.truth for mouse in mice])
    grown = {
        scan.name: growth_with_repeats(scan, truth, found.stimuli.ids)
        for scan, truth in zip(scans, found.truths, strict=True)
    }

    def kept(figure, name, alt):
        drawn[name] = figure
        return inline_svg(figure, name, alt)

    def matrix(name, part, limit):
        limits.append(limit)
        return similarity_matrix(name, part, limit)

    monkeypatch.setattr(stability_page, "inline_svg", kept)
    monkeypatch.setattr(stability_plates, "similarity_matrix", matrix)
    write_stability(found, tmp_path, grown)
    page = (tmp_path / "index.html").read_text()
    # each kind alone on the same axes, so that none hides another
    axes = [drawn[f"scatter-{k}"].axes[0] for k in (0, 1)]
    assert [one.get_ylabel() for one in axes] == ["S, single trials", "S, truth of these neurons"]
    assert axes[0].get_xlim() == axes[1].get_xlim()
    assert axes[0].get_ylim() == axes[1].get_ylim()
    assert "mean of the other scans" not in page
    assert limits[0] == limits[1]
    (lines,) = (one.axes[0].get_lines() for name, one in drawn.items() if name == "growth")
    assert [line.get_label() for line in lines] == ["mouse0", "mouse1"]
    assert lines[0].get_color() != lines[1].get_color()
