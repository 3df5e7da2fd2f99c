"""`neuroprior target`: every source, both kinds, and what is said when options do not fit together."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from command_line import call
from neuroprior.recordings import load_stimuli, save_scan, simulate_scan
from neuroprior.similarity import compare_targets, lowpass_target, pixel_target
from neuroprior.twin import load_twin, target_from_twin
from neuroprior.types import FactoredTarget, SimilarityTarget, load_target
from twin.test_pretrained import checkpoint


@pytest.fixture
def here(tmp_path, monkeypatch, stimuli):
    """A folder with stimuli, two twins, two scans, a network, a matrix and its ids."""
    monkeypatch.chdir(tmp_path)
    np.savez("stimuli.npz", images=stimuli.pixels, names=stimuli.ids, tier=np.array(["train"] * 30 + ["oracle"] * 10))
    for seed in (0, 1):
        torch.save(checkpoint(seed=seed), f"twin{seed}.pth")
        scan = simulate_scan(stimuli, stimuli.ids[30:], n_neurons=20, seed=seed).scan
        save_scan(scan, f"scan{seed}.npz")
    torch.save(nn.Conv2d(1, 3, 5).state_dict(), "weights.pt")
    (tmp_path / "networks_of_mine.py").write_text(
        "import torch\nfrom torch import nn\n\ndef conv():\n"
        "    torch.manual_seed(0)\n    return nn.Sequential(nn.Conv2d(1, 3, 5), nn.ReLU())\n"
    )
    train = load_stimuli("stimuli.npz", tier="train")
    np.save("s.npy", pixel_target(train, threshold=None).matrix)
    (tmp_path / "ids.txt").write_text("\n".join(train.ids) + "\n")
    return train


def build(capsys, *arguments, factored: bool = False) -> SimilarityTarget | FactoredTarget:
    more = ["--factored", "--tolerance", "0.05"] if factored else []
    status, _, err = call(capsys, "target", "build", *arguments, *more, "--out", "out.safetensors", "--force")
    assert status == 0, err
    return load_target("out.safetensors")


SOURCES = {
    "twin": ["--twin", "twin0.pth", "--stimuli", "stimuli.npz"],
    "twins": ["--twin", "twin0.pth", "--twin", "twin1.pth", "--stimuli", "stimuli.npz"],
    "scan": ["--scan", "scan0.npz"],
    "scans": ["--scan", "scan0.npz", "--scan", "scan1.npz"],
    "network": ["--network", "networks_of_mine:conv", "--layer", "1", "--stimuli", "stimuli.npz"],
    "matrix": ["--matrix", "s.npy", "--ids", "ids.txt", "--stimuli", "stimuli.npz"],
    "pixel": ["--pixel", "raw", "--stimuli", "stimuli.npz"],
    "lowpass": ["--lowpass", "2", "--stimuli", "stimuli.npz"],
}


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_as_a_matrix_and_factored(capsys, here, source):
    whole = build(capsys, *SOURCES[source])
    parts = build(capsys, *SOURCES[source], factored=True)
    assert isinstance(whole, SimilarityTarget)
    assert isinstance(parts, FactoredTarget)
    assert sorted(whole.image_ids.tolist()) == sorted(here.ids.tolist())
    every = np.arange(len(here))
    assert np.abs(whole.block(every) - parts.block(every)).max() <= parts.tolerance + 1e-5
    assert parts.tolerance <= (0.1 if source == "twins" else 0.05)  # errors of the scans and of their mean add up
    assert whole.details == parts.details
    assert whole.n_scans == (2 if source in ("twins", "scans") else 1)


def test_targets_are_those_of_the_functions(capsys, here):
    twin = target_from_twin(load_twin("twin0.pth"), here)
    built = build(capsys, *SOURCES["twin"])
    assert np.array_equal(built.matrix, twin.matrix)
    assert built.details == twin.details
    assert np.array_equal(build(capsys, *SOURCES["lowpass"]).matrix, lowpass_target(here, sigma=2.0).matrix)
    sharp = build(capsys, "--pixel", "0.5", "--stimuli", "stimuli.npz")
    assert np.array_equal(sharp.matrix, pixel_target(here, threshold=0.5).matrix)
    other = target_from_twin(load_twin("twin1.pth"), here)
    mean = build(capsys, *SOURCES["twins"])
    assert np.allclose(mean.matrix, (twin.matrix + other.matrix) / 2, atol=1e-6)
    assert mean.details["twins"] == "mouse, mouse"


@pytest.mark.parametrize("source", ["twin", "scan", "scans"])
def test_a_part_of_the_neurons(capsys, here, source):
    whole, half = build(capsys, *SOURCES[source]), build(capsys, *SOURCES[source], "--neurons", "random:0.5")
    if source == "scans":
        neurons = [target.details["neurons_of_each"] for target in (whole, half)]
        assert neurons == ["20, 20", "10, 10"]
    else:
        assert half.details["neurons"] * 2 == whole.details["neurons"]
    assert half.details["neurons_chosen"] == "random:0.5"
    assert not np.allclose(whole.matrix, half.matrix, atol=1e-3)
    again = build(capsys, *SOURCES[source], "--neurons", "random:1.0")
    assert np.allclose(whole.matrix, again.matrix, atol=1e-6)


def test_weights_of_a_network(capsys, here):
    torch.save({f"0.{k}": v for k, v in torch.load("weights.pt", weights_only=True).items()}, "fits.pt")
    drawn = build(capsys, *SOURCES["network"])
    made = [build(capsys, *SOURCES["network"], "--weights", "fits.pt") for _ in range(2)]
    assert np.array_equal(made[0].matrix, made[1].matrix)
    assert made[0].details["weights_digest"] == made[1].details["weights_digest"] != drawn.details["weights_digest"]
    assert made[0].details["weights_file"] == "fits.pt"
    assert (made[0].details["network"], made[0].details["layer"]) == ("networks_of_mine:conv", "1")


def test_tiers(capsys, here):
    assert len(build(capsys, *SOURCES["pixel"], "--tier", "all")) == 40
    assert len(build(capsys, *SOURCES["scan"], "--tier", "oracle")) == 10


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "no source given; choose exactly one of --twin, --scan, --network"),
        ([*SOURCES["twin"], "--pixel", "raw"], "--twin and --pixel given; choose exactly one"),
        (["--twin", "twin0.pth"], "--twin: needs --stimuli as well"),
        (["--network", "a:b", "--stimuli", "stimuli.npz"], "--network: needs --layer as well"),
        (["--matrix", "s.npy", "--stimuli", "stimuli.npz"], "--matrix: needs --ids as well"),
        ([*SOURCES["scan"], "--stimuli", "stimuli.npz"], "--stimuli: has no use with --scan"),
        ([*SOURCES["scan"], "--tier", "all"], "--tier all: a scan's target is of one tier; choose train, validation"),
        ([*SOURCES["pixel"], "--format", "plain"], "--format: has no use with --pixel"),
        ([*SOURCES["pixel"], "--module", "ophys"], "--module: has no use with --pixel"),
        ([*SOURCES["twin"], "--tier", "test"], "--tier test: choose train, validation, oracle"),
        ([*SOURCES["pixel"], "--neurons", "random:0.5"], "--neurons: has no use with --pixel"),
        (
            [*SOURCES["pixel"], "--tolerance", "0.1"],
            "--tolerance: has no use with --pixel; leave it out (it is for --f",
        ),
        ([*SOURCES["twin"], "--neurons", "half"], "neurons 'half'"),
        (["--pixel", "much", "--stimuli", "stimuli.npz"], "--pixel much: give a threshold"),
        (["--pixel", "2", "--stimuli", "stimuli.npz"], "threshold is 2.0"),
        (["--network", "nowhere:net", "--layer", "1", "--stimuli", "stimuli.npz"], "no module 'nowhere'"),
        ([*SOURCES["network"][:2], "--layer", "9", "--stimuli", "stimuli.npz"], "tap '9': no such module"),
        ([*SOURCES["network"], "--weights", "weights.pt"], "2 of the names are missing (first: '0.weight')"),
        (["--vgg", "weights.pt", "--stimuli", "stimuli.npz"], "weights.pt: no VGG-19"),
        (["--scan", "nowhere"], "nowhere"),
    ],
)
def test_faults_are_one_line(capsys, here, arguments, says):
    status, _, err = call(capsys, "target", "build", *arguments, "--out", "out.safetensors")
    lines = [line for line in err.splitlines() if line.startswith("neuroprior: ")]
    assert (status, len(lines)) == (2, 1), err
    assert says in lines[0]


def test_show_and_compare(capsys, here):
    for name in ("twin", "pixel"):
        build(capsys, *SOURCES[name], factored=name == "twin").save(f"{name}.safetensors")
    shown = json.loads(call(capsys, "target", "show", "twin.safetensors", "--json")[1])
    twin, pixel = load_target("twin.safetensors"), load_target("pixel.safetensors")
    assert (shown["images"], shown["rank"], shown["tolerance"]) == (30, twin.rank, twin.tolerance)
    pairs = twin.block(np.arange(30))[np.triu_indices(30, 1)]
    assert shown["standard deviation off the diagonal"] == pytest.approx(float(pairs.std()))
    assert "rank: " in call(capsys, "target", "show", "twin.safetensors")[1]
    assert "rank: " not in call(capsys, "target", "show", "pixel.safetensors")[1]
    compared = json.loads(call(capsys, "target", "compare", "twin.safetensors", "pixel.safetensors", "--json")[1])
    assert compared["images"] == 30
    assert compared["pearson"] == pytest.approx(compare_targets(twin, pixel).pearson)
    lines = call(capsys, "target", "compare", "twin.safetensors", "twin.safetensors")[1].splitlines()
    assert lines[:5] == ["images: 30", "pearson: 1.0000", "spearman: 1.0000", "cka: 1.0000", "procrustes: 1.0000"]
    assert [line.partition(":")[0] for line in lines[5:]] == ["cka, images permuted", "procrustes, images permuted"]
    assert "Example: neuroprior target compare" in call(capsys, "target", "compare", "--help")[1]


def test_statistics_of_a_large_factored_target_are_of_some_images(capsys, tmp_path):
    rows = np.random.default_rng(0).standard_normal((2500, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True) * 1.00001
    ids = np.array([f"i{k}" for k in range(2500)])
    FactoredTarget(rows, ids, "0", "user", tolerance=0.0).save(tmp_path / "large.safetensors")
    shown = json.loads(call(capsys, "target", "show", tmp_path / "large.safetensors", "--json")[1])
    assert shown["these four are of"] == "2000 images drawn at random"
    assert shown["standard deviation off the diagonal"] == pytest.approx(8**-0.5, rel=0.02)


def test_vgg(capsys, here, data):
    made = build(capsys, "--vgg", data("vgg19/vgg_normalised_conv3_1.pth"), "--stimuli", "stimuli.npz")
    assert "normalised weights" in made.details["network"]
    assert (made.source, made.details["neurons"]) == ("network", 36864)


def test_a_target_is_written_over_only_where_asked(capsys, here):
    made = build(capsys, *SOURCES["pixel"])
    arguments = [*SOURCES["lowpass"], "--out", "out.safetensors"]
    status, _, err = call(capsys, "target", "build", *arguments)
    assert status == 2
    assert "out.safetensors: is there already; name another place, or give --force to replace it" in err
    assert np.array_equal(load_target("out.safetensors").matrix, made.matrix)
    assert call(capsys, "target", "build", *arguments, "--force")[0] == 0
    assert not np.array_equal(load_target("out.safetensors").matrix, made.matrix)


def test_a_recording_in_the_place_of_a_target_is_said_to_be_one(capsys, here):
    for command in (["show", "scan0.npz"], ["compare", "scan0.npz", "scan0.npz"]):
        status, _, err = call(capsys, "target", *command)
        assert status == 2
        assert "scan0.npz: this is a recording: try `neuroprior scan check scan0.npz`" in err
    status, _, err = call(capsys, "target", "show", "stimuli.npz")
    assert status == 2
    assert "recording" not in err


def test_unrelated_targets_stand_where_permuted_images_do(capsys, tmp_path):
    ids = np.array([f"i{k}" for k in range(60)])
    for seed in (0, 1):
        rows = np.random.default_rng(seed).standard_normal((60, 40)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True) * 1.00001
        FactoredTarget(rows, ids, "0", "user", tolerance=0.0).save(tmp_path / f"{seed}.safetensors")

    def compared(a, b):
        files = (tmp_path / f"{name}.safetensors" for name in (a, b))
        return json.loads(call(capsys, "target", "compare", *files, "--json")[1])

    unrelated, same = compared(0, 1), compared(0, 0)
    for measure in ("cka", "procrustes"):
        chance = unrelated[f"{measure}, images permuted"]
        assert chance > 0.3  # what a reader would take for agreement
        assert unrelated[measure] == pytest.approx(chance, abs=0.05)
        assert same[measure] > same[f"{measure}, images permuted"] + 0.2
