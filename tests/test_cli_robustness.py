"""`neuroprior robustness`: any form of a network gives the same distances, and nothing is done twice or unasked."""

import io
import json
import warnings
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from command_line import call as call_command
from neuroprior import Ledger, cli, noise_accuracy
from neuroprior.cli.searches import USUAL_ATTACKS
from neuroprior.networks.prepared import Prepared
from neuroprior.robustness import ATTACKS, DDN, Norm

CODE = """
import torch
from torch import nn

def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(25, 3))

def other():
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(25, 3))

def colour():
    return nn.Sequential(nn.Flatten(), nn.Linear(75, 3))

class Pair(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :3], x

class Fails(nn.Module):
    def forward(self, x):
        raise KeyError("inside")

def probabilities():
    return nn.Sequential(*linear(), nn.Softmax(1))
"""
N = 10


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a linear network, as weights and scripted, and images with known exact smallest perturbations."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets_of_mine.py").write_text(CODE)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(25, 3))
    torch.manual_seed(5)
    network[1].weight.data = torch.randn(3, 25)
    network.eval()
    images = (0.5 + 0.1 * (torch.rand(N, 1, 5, 5) - 0.5)).float()
    logits = network(images).detach().double()
    labels = logits.argmax(1)
    labels[0] = (labels[0] + 1) % 3
    np.savez("test.npz", images=images.numpy(), labels=labels.numpy())
    save_file(network.state_dict(), "weights.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(network, images).save("scripted.pt")
    weight = network[1].weight.detach().double()
    exact = {}
    for norm, order in (("l2", 2), ("linf", 1)):
        steep = torch.linalg.vector_norm(weight[labels][:, None] - weight, ord=order, dim=2)
        gap = (logits.gather(1, labels[:, None]) - logits).clamp_min(0) / steep
        gap[torch.arange(N), labels] = torch.inf
        exact[norm] = dict(enumerate(gap.amin(1).tolist()))
        exact[norm][0] = 0.0
    return network, images, labels, exact


MODEL = ["nets_of_mine:linear", "--weights", "weights.safetensors"]
QUICK = ["--data", "test.npz", "--attacks", "ddn", "--batch-size", "8"]


def call(capsys, *arguments) -> tuple[int, str, str]:
    return call_command(capsys, "robustness", *arguments)


def distances(path) -> dict[int, float]:
    ledger = Ledger.load(path)
    return {int(name): distance for name, distance in zip(ledger.samples, ledger.distances(), strict=True)}


@pytest.mark.parametrize("form", ["import", "script", "program"])
def test_every_form_of_a_network_gives_the_exact_distances(capsys, here, form):
    network, images, _, every = here
    exact = every["l2"]
    if form == "program":
        shapes = ({0: torch.export.Dim("image")},)
        torch.export.save(torch.export.export(network, (images[:2],), dynamic_shapes=shapes), "program.pt2")
    model = {"import": MODEL, "script": ["scripted.pt"], "program": ["program.pt2"]}[form]
    status, out, err = call(capsys, *model, *QUICK, "--ledger", "kept")
    assert status == 0, err
    found = distances("kept/l2.parquet")
    assert found == pytest.approx({k: exact[k] for k in found}, rel=0.02)
    assert all(found[k] >= exact[k] * (1 - 1e-5) for k in range(N))
    lines = out.splitlines()
    assert lines[0].startswith("audit of 10 images: 3 classes, 1 channel, 90.0 % right;")
    assert lines[1].startswith("l2 by ddn: at most 10 attempts, 1,010 gradients, about ")
    assert lines[-3].split()[:5] == ["l2", "10", "1", "0", "0"]
    assert float(lines[-3].split()[5]) == pytest.approx(np.median(list(exact.values())), rel=0.02)
    assert lines[-1] == "Every attempt in l2: kept/l2.parquet"


def test_what_stands_before_the_network_changes_no_distance(capsys, here):
    """A network of (255 x - m) / s, told so, is the network of x."""
    low, m, s = -1.0, 1.5, 4.0
    network, _, _, exact = here
    linear = network[1]
    # W x + b with x = (u s + m - low) / (255 - low), u being what the network is given
    scale = 255.0 - low
    linear.bias.data += linear.weight.data.sum(1) * (m - low) / scale
    linear.weight.data *= s / scale
    prepared = Prepared(network, bounds=(low, 255.0), mean=[m], std=[s])
    save_file(network.state_dict(), "scaled.safetensors")
    model = ["nets_of_mine:linear", "--weights", "scaled.safetensors"]
    told = ["--bounds", "-1,255", "--mean", "1.5", "--std", "4"]
    status, _, err = call(capsys, *model, *QUICK, *told, "--ledger", "kept.parquet")
    assert status == 0, err
    assert distances("kept.parquet") == pytest.approx(exact["l2"], rel=0.02)
    assert set(prepared.state_dict()) > {"bounds", "mean", "std"}  # all of it in the fingerprint
    status, _, err = call(capsys, *model, *QUICK, *told[:-1], "4.5", "--ledger", "kept.parquet")
    assert (status, "was made with network" in err) == (2, True)


def test_two_norms_noise_and_json(capsys, here):
    network, images, labels, exact = here
    both = ["--data", "test.npz", "--norm", "linf", "--norm", "l2", "--attacks", "ddn,adam_pgd", "--batch-size", "8"]
    more = ["--ledger", "kept", "--sigmas", "0,0.2,0.4", "--noise", "uniform", "--seed", "3", "--json"]
    status, out, err = call(capsys, *MODEL, *both, *more)
    assert status == 0, err
    said = json.loads(out)
    assert said["model"] == MODEL[0]
    assert (said["audit"]["classes"], said["audit"]["accuracy"]) == (3, pytest.approx(0.9))
    assert [(cost["norm"], cost["attempts"]) for cost in said["cost"]] == [("l2", N), ("linf", N)]
    curve = noise_accuracy(network, images, labels, [0.0, 0.2, 0.4], kind="uniform", seed=3)
    measured = {"sigmas": [0, 0.2, 0.4], "accuracy": curve.accuracy.tolist(), "n": N}
    assert said["noise"] == {"kind": "uniform", "clip": "none", **measured}
    for row, norm, attack in zip(said["withstood"], ("l2", "linf"), ("ddn", "adam_pgd"), strict=True):
        assert (row["norm"], row["attacks"], row["n"], row["asked"]) == (norm, [attack], N, N)
        assert row["median"] == pytest.approx(np.median(list(exact[norm].values())), rel=0.03)
        assert distances(row["ledger"]) == pytest.approx(exact[norm], rel=0.05)
    assert "audit of 10 images" in err  # what comes before the object


def test_a_ledger_is_gone_on_with_and_nothing_is_done_twice(capsys, here, monkeypatch):
    call(capsys, *MODEL, *QUICK, "--n", "4", "--ledger", "kept")
    first = Ledger.load("kept/l2.parquet").table
    attacked = []
    original = DDN.__call__
    monkeypatch.setattr(DDN, "__call__", lambda self, a: (attacked.append(len(a.images)), original(self, a))[1])
    call(capsys, *MODEL, *QUICK, "--ledger", "kept")
    whole = Ledger.load("kept/l2.parquet").table
    assert whole.slice(0, len(first)).equals(first)
    assert Ledger(whole).samples == tuple(str(k) for k in range(N))
    assert sum(attacked) == N - 4 - (first["status"].to_pylist().count("already_wrong") == 0)
    status, out, _ = call(capsys, *MODEL, *QUICK, "--n", "4", "--ledger", "kept", "--json")
    (row,) = json.loads(out)["withstood"]
    assert (status, row["n"], len(attacked)) == (0, 4, 1)  # of those asked for, though the ledger holds more


def test_exhaustive_says_its_cost_and_asks(capsys, here, monkeypatch):
    arguments = [*MODEL, *QUICK, "--exhaustive", "--n", "2", "--ledger", "kept", "--max-gradients", "5"]
    status, out, err = call(capsys, *arguments)
    assert status == 2
    assert "l2 by ddn: at most 12 attempts, 10 gradients" in out
    assert "nothing was attacked yet; add --yes to go on" in err.splitlines()[-1]
    for answer, wanted in (("n\n", 2), ("y\n", 0)):
        assert not Path("kept").exists()
        terminal = io.StringIO(answer)
        terminal.isatty = lambda: True
        monkeypatch.setattr("sys.stdin", terminal)
        status, _, err = call(capsys, *arguments)
        assert status == wanted, err
    ledger = Ledger.load("kept/l2.parquet")
    assert ledger.table["setting"].to_pylist().count("steps=1000,gamma=0.05") == 0  # the budget was spent before
    assert call(capsys, *arguments, "--yes")[0] == 0


@pytest.mark.parametrize("ledger", [[], ["--ledger", "kept"]])
def test_interrupted(capsys, here, monkeypatch, ledger):
    def stop(self, attempt):
        raise KeyboardInterrupt

    monkeypatch.setattr(DDN, "__call__", stop)
    status, _, err = call(capsys, *MODEL, *QUICK, *ledger)
    assert status == 130
    goes_on = "the same command goes on from here" in err.splitlines()[-1]
    assert goes_on == bool(ledger)
    assert ("starts anew" in err) != bool(ledger)


def test_a_time_limit_says_how_far_it_came(capsys, here):
    arguments = [*MODEL, "--data", "test.npz", "--attacks", "ddn", "--batch-size", "2", "--ledger", "kept"]
    status, out, err = call(capsys, *arguments, "--max-seconds", "0")
    assert (status, err.splitlines()[-1]) == (
        0,
        "l2: 1 of 10 images in --max-seconds 0; the same command goes on from here",
    )
    assert out.splitlines()[-3].split()[:2] == ["l2", "1"]
    call(capsys, *arguments)
    assert len(distances("kept/l2.parquet")) == N


def test_a_colour_network_is_shown_gray_three_times(capsys, here):
    images = np.load("test.npz")["images"]
    prepared = Prepared(nn.Sequential(nn.Flatten(), nn.Linear(75, 3)))
    save_file(prepared.network.state_dict(), "colour.safetensors")
    shown = torch.from_numpy(images).expand(-1, 3, -1, -1)
    np.savez("test.npz", images=images, labels=prepared(shown).argmax(1).numpy())
    arguments = ["nets_of_mine:colour", "--weights", "colour.safetensors", *QUICK, "--sigmas", "0", "--json"]
    status, out, err = call(capsys, *arguments, "--mean", "0,0,0", "--std", "1,1,1")
    assert status == 0, err
    said = json.loads(out)
    assert said["audit"]["channels"] == 3
    assert said["noise"]["accuracy"] == [1.0]
    assert "shown each gray image three times" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere.pt", *QUICK], "network 'nowhere.pt': no such file"),
        ([*MODEL, "--data", "none.npz"], "none.npz: no such file"),
        ([*MODEL, *QUICK, "--labels", "out.npy"], "audit: labels span 0 to 7, the network has 3 classes"),
        (["nets_of_mine:Fails", *QUICK], "network: cannot take images of (1, 5, 5), 8 at a time (KeyError: 'inside')"),
        (["nets_of_mine:colour", "--data", "rgb.npz"], "network: cannot take images of (3, 4, 4)"),
        (["nets_of_mine:probabilities", *QUICK], "audit: the network gives probabilities"),
        ([*MODEL, "--data", "wide.npz"], "wide.npz: images span [0, 255]"),
        ([*MODEL, *QUICK, "--norm", "linf"], "attack ddn: minimises l2, not linf"),
        ([*MODEL, *QUICK, "--norm", "l2", "--norm", "linf"], "attack ddn: minimises l2, not linf"),
        ([*MODEL, *QUICK, "--norm", "l3"], "--norm l3: choose l0, l1, l2 or linf"),
        ([*MODEL, "--data", "test.npz", "--attacks", "magic"], "attack 'magic' is not one of pgd"),
        ([*MODEL, "--data", "test.npz", "--attacks", ","], "attacks: none given"),
        ([*MODEL, *QUICK, "--mean", "0.5,0.5", "--std", "1"], "mean 0.5,0.5, std 1: give both, of one length"),
        ([*MODEL, *QUICK, "--mean", "0.5"], "mean 0.5, std not given"),
        ([*MODEL, *QUICK, "--mean", "0,0", "--std", "1,1"], "mean and std have 2 values for images of 1 channels"),
        ([*MODEL, *QUICK, "--mean", "0", "--std", "0"], "std above 0"),
        ([*MODEL, *QUICK, "--bounds", "1,0"], "bounds 1,0: give the lower one first"),
        ([*MODEL, *QUICK, "--bounds", "0"], "--bounds 0: give 2 numbers"),
        ([*MODEL, *QUICK, "--sigmas", "much"], "--sigmas much: give some numbers"),
        ([*MODEL, *QUICK, "--sigmas=-1"], "noise: sigmas are [-1.0]"),
        ([*MODEL, *QUICK, "--size", "4,4"], "size has no use with it"),
        ([*MODEL, *QUICK, "--n", "0"], "n is 0"),
        ([*MODEL, *QUICK, "--repetitions", "0"], "repetitions 0"),
        ([*MODEL, *QUICK, "--device", "nonsense"], "--device nonsense: "),
        ([*MODEL, *QUICK, "--ledger", "test.npz"], "--ledger test.npz: is a file"),
        (
            [*MODEL, "--data", "test.npz", "--norm", "l2", "--norm", "linf", "--ledger", "a.parquet"],
            "--ledger a.parquet: one file for l2 and linf; name a folder",
        ),
    ],
)
def test_faults_are_one_line(capsys, here, arguments, says):
    np.save("out.npy", np.arange(N) % 8)
    np.savez("rgb.npz", images=np.zeros((2, 3, 4, 4), dtype=np.uint8), labels=np.arange(2))
    np.savez("wide.npz", images=np.full((2, 5, 5), 255.0) * np.eye(5), labels=np.arange(2))
    status, _, err = call(capsys, *arguments)
    lines = [line for line in err.splitlines() if line.startswith("neuroprior: ")]
    assert (status, len(lines)) == (2, 1), err
    assert says in lines[0]


def test_a_tuple_in_place_of_logits(capsys, here, shapes_unchecked):
    status, _, err = call(capsys, "nets_of_mine:Pair", *QUICK)
    assert (status, "gives a tuple, not a tensor of logits" in err.splitlines()[-1]) == (2, True), err


def test_a_ledger_of_other_settings_is_refused(capsys, here):
    call(capsys, *MODEL, *QUICK, "--n", "3", "--ledger", "kept")
    for changed, says in (
        (["--seed", "1"], "was made with seed 0, now it is 1"),
        (["--attacks", "ddn,cw"], "was made with attacks"),
        (["--repetitions", "2"], "was made with repetitions 1, now it is 2"),
    ):
        status, _, err = call(capsys, *MODEL, *QUICK, "--n", "3", "--ledger", "kept", *changed)
        assert (status, says in err.splitlines()[-1]) == (2, True), err
    status, _, err = call(capsys, "nets_of_mine:other", *QUICK, "--n", "3", "--ledger", "kept")
    assert (status, "was made with model" in err.splitlines()[-1]) == (2, True), err


def test_usual_attacks_fit_their_norms(capsys):
    for norm, names in USUAL_ATTACKS.items():
        assert norm in get_args(Norm)
        for name in names:
            assert norm in ATTACKS[name].quick[0].norms
    assert "Example: neuroprior robustness net.pt2 --data test.npz" in call(capsys, "--help")[1]


def test_radii_corruptions_and_masking_beside_the_smallest_perturbations(here, capsys):
    exact = here[3]
    radius = sum(sorted(exact["linf"].values())[4:6]) / 2
    asked = [
        *MODEL,
        *QUICK[:2],
        "--attacks",
        "pgd",
        "--norm",
        "linf",
        "--radii",
        f"{radius:.6f}",
        "--strength",
        "quick",
    ]
    with pytest.raises(SystemExit, match="0"):
        cli.main(["robustness", *asked, "--masking", "0.05", "--json"])
    found = json.loads(capsys.readouterr().out)
    (left,) = found["under_attack"]
    (at,) = left["at"]
    standing = sum(far > at["radius"] for far in exact["linf"].values())  # a linear network's own optimum says
    assert (left["norm"], at["n"], at["already_wrong"]) == ("linf", N, 1)
    assert at["accuracy"] == pytest.approx(standing / N)
    assert found["corruptions"] is None
    assert found["masking"]["verdict"]
    with pytest.raises(SystemExit, match="0"):
        cli.main(["robustness", *asked, "--masking", "0.05"])
    said = capsys.readouterr().out
    assert "radius in linf" in said
    assert found["masking"]["verdict"] in said


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--norm", "l2", "--norm", "linf", "--radii", "0.1"], "--radii 0.1: give NORM:RADIUS, e.g. linf:0.0078"),
        (["--radii", "l0:3"], "--radii l0:3: give NORM:RADIUS"),
        (["--radii", "linf:-1"], "--radii linf:-1: give NORM:RADIUS"),
        (["--masking", "0"], "--masking 0: give a radius above 0"),
        (["--norm", "l1", "--attacks", "fmn", "--masking", "1"], "--masking: is asked in linf or l2"),
        (["--corruptions"], "corruptions: images are (1, 5, 5); give 1 or 3 channels and 16 pixels a side or more"),
    ],
)
def test_what_radii_corruptions_and_masking_refuse(here, capsys, options, says):
    with pytest.raises(SystemExit) as ended:
        cli.main(["robustness", *MODEL, "--data", "test.npz", *options])
    assert ended.value.code == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert says in err[-1]
