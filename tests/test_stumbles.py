"""What a newcomer gets wrong first is one line that says how to mend it, or simply works (docs/stumbles.md)."""

import inspect
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import neuroprior as npr
from neuroprior.cli import main
from neuroprior.types import InputError

STIMULI = npr.packaged_photographs(n_train=6, n_oracle=2)
ORACLE = STIMULI.ids[6:]
IMAGES, LABELS = torch.rand(4, 1, 8, 8), torch.arange(4)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 4))


def target() -> npr.SimilarityTarget:
    return npr.SimilarityTarget(np.eye(8, dtype=np.float32), STIMULI.ids, STIMULI.digest, "user")


@cache
def scan() -> npr.Scan:
    return npr.simulate_scan(STIMULI, ORACLE, n_neurons=12, n_repeats=4).scan


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (lambda: npr.SimilarityRegularizer(network(), target().matrix, STIMULI), "pass a SimilarityTarget"),
        (
            lambda: npr.SimilarityRegularizer(network(), target(), STIMULI.pixels),
            "pass the Stimuli that the target is of",
        ),
        (lambda: npr.Stimuli(["a", "b"], np.zeros((2, 4, 4), np.uint8)), r"got a list; np\.array\(ids\)"),
        (lambda: npr.masking_report(network(), IMAGES, LABELS, radius=0.1), "give the networks by name"),
        (
            lambda: npr.minimal_perturbations(network(), IMAGES, LABELS, attacks=["ddn"], norm="L2"),
            "norm 'L2' is not one of l0, l1, l2, linf",
        ),
        (lambda: npr.fit_twin("mouse.npz"), r"got a str 'mouse.npz', not a Scan; pass a Scan: load_scan\(path\)"),
        (lambda: npr.save_scan("mouse.npz", "other.npz"), "got a str 'mouse.npz', not a Scan"),
        (
            lambda: npr.target_from_twin("twins", STIMULI),
            r"got a str 'twins', not a Twin; pass a Twin: load_twin\(path\)",
        ),
        (lambda: npr.score_twin("twins", scan()), "got a str 'twins', not a Twin"),
        (lambda: npr.shuffle_target("a.safetensors"), r"not a SimilarityTarget; pass a SimilarityTarget: load_target"),
        (lambda: npr.compare_targets(target(), "a.safetensors"), "got a str 'a.safetensors', not a SimilarityTarget"),
        (lambda: npr.pixel_target("stimuli.npz"), r"not a Stimuli; pass a Stimuli: load_stimuli\(path\)"),
    ],
)
def test_one_line_that_says_what_to_pass(shapes_unchecked, what, says):
    with pytest.raises(InputError, match=says):
        what()


def test_one_attack_and_one_radius_need_no_list(shapes_unchecked):
    net = network()
    one = npr.minimal_perturbations(net, IMAGES, LABELS, attacks="ddn", norm="l2")
    several = npr.minimal_perturbations(net, IMAGES, LABELS, attacks=["ddn"], norm="l2")
    assert np.array_equal(one.distances(), several.distances())
    left = npr.accuracy_under_attack(net, IMAGES, LABELS, 0.01, strength="quick")
    assert left.radii == (0.01,)


def test_a_group_without_a_command_prints_its_help_and_an_unquoted_list_is_told(capsys):
    with pytest.raises(SystemExit) as left:
        main(["target"])
    assert left.value.code == 2
    assert "\n  build " in capsys.readouterr().err
    with pytest.raises(SystemExit) as left:
        main(["run", "recipes/quick.yaml", "--set", "conditions=[none,", "blur]"])
    assert left.value.code == 2
    assert "in quotes, where it has blanks" in capsys.readouterr().err


def test_one_scan_is_a_list_of_one():
    one, several = npr.target_from_scans(scan()), npr.target_from_scans([scan()])
    assert np.array_equal(one.matrix, several.matrix)
    assert one.details == several.details
    assert np.array_equal(npr.scan_stability(scan()).oracle, npr.scan_stability([scan()]).oracle)


def test_one_level_one_kind_one_unit_need_no_list(shapes_unchecked):
    net = network()
    assert npr.noise_accuracy(net, IMAGES, LABELS, 0.1).sigmas == (0.1,)
    assert npr.linf_accuracy(net, IMAGES, LABELS, 0.1, steps=2).radii == (0.1,)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(256, 4))
    found = npr.corruption_accuracy(plain, torch.rand(4, 1, 16, 16), LABELS, kinds="fog", severities=1)
    assert (found.kinds, found.severities) == (("fog",), (1,))
    exciting = npr.exciting_images_of_units(net, "0", 1, (1, 8, 8), steps=1)
    assert len(exciting.images) == 1
    assert STIMULI.select("astronaut-000").ids.tolist() == ["astronaut-000"]


def test_stimuli_become_a_tensor_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images = STIMULI.tensor()
        images += 1  # the caller's own: pixels stay as they are
    assert images.shape == (8, 1, 36, 64)
    assert torch.equal(STIMULI.tensor()[3, 0], torch.tensor(STIMULI.pixels[3]) / 255)


def test_a_networks_target_needs_no_name():
    assert npr.target_from_network(network()[:2], "1", STIMULI).details["network"] == "Sequential"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda file: np.savez(file.with_suffix(".npz"), images=np.ones(3)),
            r"an archive .*; `neuroprior target build` makes one",
        ),
        (lambda file: np.save(file.with_suffix(".npy"), np.eye(3)), r"an array, not a target; target_from_matrix\("),
        (lambda file: file.with_suffix(".txt").write_text("what is found alike"), "not a similarity target; "),
        (lambda file: file.with_suffix(".pt").touch(), "empty; make the target again"),
        (lambda file: file.with_suffix(".safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{"), "damaged, or a copy that"),
        (lambda file: file.with_suffix(".d").mkdir(), "a folder; make a target first"),
    ],
)
def test_what_is_no_target_says_what_it_is(make, says, tmp_path):
    make(tmp_path / "file")
    (file,) = tmp_path.iterdir()
    with pytest.raises(InputError, match=says) as raised:
        npr.load_target(file)
    assert str(raised.value).startswith(f"{file}: ")
    assert "deserializ" not in str(raised.value)


def test_a_twin_is_read_from_the_folder_of_its_fit(tmp_path, capsys):
    from neuroprior.twin import fit_in_folder

    small = npr.TwinArchitecture(channels=2, n_layers=1, first_kernel=5)
    shown = npr.packaged_photographs(n_train=30, n_oracle=2)
    mouse = npr.simulate_scan(shown, shown.ids[30:], n_neurons=6, n_repeats=4).scan
    fit_in_folder([mouse], tmp_path, small, npr.FitSettings(max_epochs=1))
    assert npr.load_twin(tmp_path).digest == npr.load_twin(tmp_path / "twin.safetensors").digest
    with pytest.raises(InputError, match="no scan 'mouse9'; it holds"):
        npr.load_twin(tmp_path, scan="mouse9")
    (tmp_path / "foreign").mkdir()
    with pytest.raises(InputError, match="no finished fit"):
        npr.load_twin(tmp_path / "foreign")
    (tmp_path / "notes.txt").write_text("twins of two mice")
    with pytest.raises(InputError, match=r"no file of weights, or damaged; give a \.safetensors file"):
        npr.load_twin(tmp_path / "notes.txt")


def test_a_matrix_in_memory_is_a_target_as_one_in_a_file_is(tmp_path):
    matrix = np.corrcoef(np.random.default_rng(0).standard_normal((8, 20)))
    np.save(tmp_path / "S.npy", matrix)
    (tmp_path / "ids.txt").write_text("\n".join(STIMULI.ids))
    made = npr.target_from_matrix(matrix, STIMULI)
    assert np.array_equal(made.matrix, npr.load_matrix(tmp_path / "S.npy", tmp_path / "ids.txt", STIMULI).matrix)
    part = npr.target_from_matrix(matrix[2:5, 2:5], STIMULI, STIMULI.ids[2:5].tolist())
    assert part.stimuli_digest == STIMULI.select(STIMULI.ids[2:5]).digest
    for given, ids, says in (
        (matrix[:5, :5], None, r"8 ids for 5 rows; pass ids="),
        (matrix[:2, :2], ["a", "b"], "2 of 2 images are not among these 8"),
        (1 - matrix, None, "pass 1 - distance"),
        (9 * matrix - 8 * np.eye(8), None, r"must lie in \[-1, 1\]"),
    ):
        with pytest.raises(InputError, match=says):
            npr.target_from_matrix(given, STIMULI, ids)


def test_stimuli_where_a_recording_is_meant_are_told(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("stimuli.npz", images=STIMULI.pixels, names=STIMULI.ids, tier=np.full(8, "train"))
    with pytest.raises(SystemExit) as left:
        main(["scan", "check", "stimuli.npz"])
    assert left.value.code == 1
    assert "stimuli, not a recording (no responses); use it as --stimuli" in capsys.readouterr().out


def test_data_in_another_layout_are_there(tmp_path, capsys):
    (tmp_path / "cifar10").mkdir()
    for part in ("train", "test"):
        (tmp_path / "cifar10" / f"{part}-00000-of-00001.parquet").touch()
    with pytest.raises(SystemExit):
        main(["data", "list", "--to", str(tmp_path)])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("cifar10 ")]
    assert line.split()[1] == "there"
    assert "cifar10/train-00000-of-00001.parquet" in line


QUICK = (Path(__file__).parents[1] / "recipes" / "quick.yaml").read_text()


def test_a_source_that_is_replaced_takes_its_files_along():
    from neuroprior.experiment.recipe import parse_recipe

    binary = "task={source: cifar_binary, folder: cifar-10-batches-bin}"
    photographs = parse_recipe(QUICK, "r", ["stimuli={source: photographs}", "stimuli.n_train=30"])
    assert (photographs.stimuli.path, photographs.stimuli.n_train) == (None, 30)
    task = parse_recipe(QUICK, "r", [binary]).task
    assert (task.train, task.folder, task.n_train) == (None, "cifar-10-batches-bin", 20_000)
    for order in (1, -1):
        apart = ["task.source=cifar_binary", "task.folder=cifar-10-batches-bin"][::order]
        assert parse_recipe(QUICK, "r", apart).task == task
    mouse = ["target={kind: simulated_mouse, n_neurons: 20}", "conditions=[none]"]
    assert parse_recipe(QUICK, "r", mouse).target.kind == "simulated_mouse"
    own = ["stimuli={source: photographs, path: mine.npz}"]
    with pytest.raises(InputError, match=r'takes no path; .* --set "stimuli=\{source: npz, path: mine\.npz\}"'):
        parse_recipe(QUICK, "r", own)


def test_what_a_recipe_names_from_the_current_folder_is_told_its_whole_path(tmp_path, monkeypatch):
    from neuroprior.experiment.inputs import require

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEUROPRIOR_DATA", str(tmp_path / "data"))
    Path("S.npy").touch()
    with pytest.raises(InputError, match=rf"the current folder has one; name it as {tmp_path / 'S.npy'}"):
        require("S.npy")


def test_the_hint_for_data_reads_as_a_sentence(tmp_path, monkeypatch):
    from neuroprior.experiment.inputs import require

    monkeypatch.setenv("NEUROPRIOR_DATA", str(tmp_path))
    with pytest.raises(
        InputError, match=r"no such file; make one like it with `.*` and `.*`, .*, put it there, or name"
    ):
        require("stimuli/tiny_imagenet_36x64.npz")


def test_an_exported_network_of_another_size_is_told_in_words_and_fitted_with_size(tmp_path):
    torch.export.save(
        torch.export.export(network().eval(), (torch.rand(2, 1, 8, 8),), dynamic_shapes=({0: torch.export.Dim("n")},)),
        tmp_path / "net.pt2",
    )
    program = npr.load_network(str(tmp_path / "net.pt2"))
    with pytest.raises(InputError, match=r"it takes 8 rows of pixels, and got 36; give the size .* size=\(32, 32\)"):
        npr.target_from_network(program, "1", STIMULI)
    made = npr.target_from_network(program, "1", STIMULI, size=(8, 8))
    assert (made.stimuli_digest, made.details["size"]) == (STIMULI.digest, "8x8")
    with pytest.raises(InputError, match=r"\(it takes 1 channels, and got 3\)"):
        npr.noise_accuracy(program, torch.rand(4, 3, 8, 8), LABELS, sigmas=[0])


def test_one_will_do_and_may_be_numpys():
    """What `argmax` gives is a number; a word of digits is none."""
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    images, labels = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
    noise, exciting = map(inspect.unwrap, (npr.noise_accuracy, npr.networks.exciting_images_of_units))
    assert noise(network, images, labels, np.float32(0.5)).accuracy == noise(network, images, labels, [0.5]).accuracy
    assert len(npr.linf_accuracy(network, images, labels, np.float64(0.1), steps=1).accuracy) == 1
    made = exciting(network, "0", np.int64(2), (1, 8, 8), steps=2)
    assert len(made.images) == 1
    with pytest.raises(InputError, match="channels='12'; give a whole number, or several"):
        exciting(network, "0", "12", (1, 8, 8), steps=2)
