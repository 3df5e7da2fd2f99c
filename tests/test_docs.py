"""Every Python listing of the README and the docs is run, and every command in them exists."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from neuroprior import Population, SimilarityTarget, cli, packaged_photographs
from neuroprior.similarity import target_from_population
from real_data import DATA

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# The listings speak of 5,000 stimuli; the test runs them on the 100 held-out ones.
QUICKER = {'tier="train"': 'tier="oracle"', '"../shared/data"': repr(str(DATA))}


def listings(language: str) -> list:
    found = []
    for page in PAGES:
        for number, text in enumerate(re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)):
            found.append(pytest.param(text, id=f"{page.relative_to(ROOT)}-{number}"))
    return found


@pytest.mark.parametrize("listing", listings("python"))
def test_python_listings_run(listing, monkeypatch, tmp_path, data):
    """`model`, `batches`, `images`, `labels`, `target` and `stimuli` are the reader's own."""
    if "load_twin" in listing:
        data("twins/sensorium2022_26872-17-20_sota.pth")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    for full, quick in QUICKER.items():
        assert full in listing or "load_stimuli" not in listing, "a listing that the test would run at full size"
        listing = listing.replace(full, quick)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 5), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10),
    )  # fmt: skip
    images, labels = torch.rand(8, 1, 32, 32), torch.from_numpy(np.arange(8) % 10)
    own = {"model": model, "batches": [(images, labels)] * 2, "images": images, "labels": labels}
    stimuli = packaged_photographs(n_train=40, n_oracle=2)
    exec(compile(listing, "listing", "exec"), {**own, "stimuli": stimuli, "target": made_up_target(stimuli)})


def made_up_target(stimuli) -> SimilarityTarget:
    responses = np.random.default_rng(0).standard_normal((len(stimuli), 30)).astype(np.float32)
    neurons = Population(stimuli.ids, responses, np.ones(30, dtype=np.float32), "recorded")
    return target_from_population(neurons, stimuli)


@pytest.mark.parametrize("listing", listings("sh"))
def test_commands_exist(listing, capsys):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for line in listing.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["make"]:
            assert set(words[1:]) <= set(targets)
        elif words[:1] == ["neuroprior"]:
            command = [word for word in words[1:3] if re.fullmatch(r"[a-z]+", word)]
            with pytest.raises(SystemExit) as ended:
                cli.main([*command, "--help"])
            assert not ended.value.code
            said = capsys.readouterr().out
            for option in [word for word in words if word.startswith("--")]:
                assert option in said, f"{line}: no option {option}"
            for file in [word for word in words if word.startswith("recipes/")]:
                assert (ROOT / file).is_file()
        else:
            assert not words or words[0] in ("git", "cd", "export", "."), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / link).exists(), f"{page.name}: {link}"
