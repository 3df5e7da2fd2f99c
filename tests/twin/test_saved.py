"""Twins to a file and back: the same numbers to the last bit, and no file that is wrong passes for a right one."""

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_pretrained import checkpoint
from torch import nn

from neuroprior.checkpoint import Checkpoint
from neuroprior.twin import (
    EncodingModel,
    Twin,
    TwinArchitecture,
    load_twin,
    load_twins,
    predict_population,
    save_twins,
    untrained_twin,
)
from neuroprior.twin.core import Core
from neuroprior.twin.described import TwinRecord
from neuroprior.twin.model import Standardise
from neuroprior.twin.saved import _sha256
from neuroprior.types import InputError

SIZE, NEURONS = (16, 20), 7


def made_twin(
    name="mouse", *, shares: Core | None = None, seed=0, settled=True, weights=True, n_layers=3, padded=False, **options
) -> Twin:
    """A twin whose every number is random, as `fit_twin` would leave one."""
    architecture = TwinArchitecture(channels=3, n_layers=n_layers, first_kernel=5, kernel=3, padded=padded, **options)
    draw = torch.Generator().manual_seed(seed)
    n_behavior = 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        where, cortex = torch.rand(NEURONS, 2) * 1.6 - 0.8, torch.randn(NEURONS, 2)
        core = architecture.new_core(n_behavior) if shares is None else shares
        readout = architecture.new_readout(architecture.map_size(SIZE), where, torch.randn(NEURONS), cortex)
        model = EncodingModel(
            core,
            readout,
            architecture.new_shifter(),
            architecture.new_modulator(n_behavior, NEURONS),
            channels=options.get("behavior") == "channels",
            behavior_scale=Standardise(torch.tensor([0.3, 5.0]), torch.tensor([0.2, 3.0])),
            pupil_scale=Standardise(torch.tensor([1.0, -2.0]), torch.tensor([4.0, 2.0])),
            unit=torch.rand(NEURONS) + 0.5,
        )
    for value in model.parameters():
        value.data.add_(torch.randn(value.shape, generator=draw) * 0.2)
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean.copy_(torch.randn(3, generator=draw) * 0.1)
        norm.running_var.copy_(torch.rand(3, generator=draw) + 0.5)
    if settled:
        model.readout = model.readout.settled()
    rng = np.random.default_rng(seed)
    snr, accuracy = rng.random((2, NEURONS)).astype(np.float32)
    return Twin(
        name=name,
        model=model.eval().requires_grad_(False).to(memory_format=torch.channels_last),
        input_size=SIZE,
        n_neurons=NEURONS,
        pixel_mean=111.1 / 3,
        pixel_std=60.3 / 7,
        neutral_behavior=(0.1 + 0.2, 4.9),
        neutral_is_assumed=False,
        digest=f"{seed:064x}",
        snr=snr if weights else None,
        accuracy=accuracy if weights else None,
        neutral_pupil=(1 / 3, -1.9),
        behavior_names=("pupil size", "speed"),
    )


def rates(twin: Twin, seed=3) -> torch.Tensor:
    """Of trials that differ in image, behaviour and gaze."""
    draw = torch.Generator().manual_seed(seed)
    images = torch.randn(5, 1, *twin.input_size, generator=draw).contiguous(memory_format=torch.channels_last)
    behavior = torch.randn(5, len(twin.neutral_behavior), generator=draw)
    return twin.model(images, behavior, torch.randn(5, 2, generator=draw))


def same(a: Twin, b: Twin) -> bool:
    for field in fields(Twin):
        one, other = getattr(a, field.name), getattr(b, field.name)
        if isinstance(one, np.ndarray):
            if not (np.array_equal(one, other) and one.dtype == other.dtype):
                return False
        elif field.name != "model" and not (one == other and type(one) is type(other)):
            return False
    states = a.model.state_dict(), b.model.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def rewritten(path: Path, change, *, signed: bool = False) -> None:
    """Change a file's JSON and tensors by hand, as one that another program wrote."""
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    said, tensors = json.loads(header["twins"]), load_file(path)
    change(said, tensors)
    sha = {"sha256": _sha256(json.dumps(said), tensors)} if signed else {}
    save_file(tensors, path, {**header, "twins": json.dumps(said), **sha})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"core": "stacked", "readout": "factorised"},
        {"core": "stacked", "behavior": "channels", "covariance": "isotropic", "settled": False},
        {"linear": True, "shifter": "none", "behavior": "none", "weights": False},
        {"behavior": "modulator", "padded": True},
        {"positions": "cortical", "settled": False},
        {"positions": "cortical", "behavior": "channels", "shifter": "none"},
    ],
)
def test_every_kind_comes_back_to_the_last_bit(tmp_path, options):
    twin = made_twin(**options)
    save_twins([twin], tmp_path / "twin.safetensors")
    (again,) = load_twins(tmp_path / "twin.safetensors")
    assert same(twin, again)
    assert torch.equal(rates(twin), rates(again))
    assert not again.model.training
    assert not any(value.requires_grad for value in again.model.parameters())
    assert type(again.model.readout) is type(twin.model.readout)


def test_the_same_twins_give_the_same_bytes(tmp_path):
    for k in range(8):  # the library's header is in the order of a hash map
        save_twins([made_twin("Maus, die größte")], tmp_path / f"{k}.safetensors")
    assert len({(tmp_path / f"{k}.safetensors").read_bytes() for k in range(8)}) == 1
    assert load_twin(tmp_path / "0.safetensors").name == "Maus, die größte"


def test_a_file_of_before_there_was_a_choice_has_a_modulator_of_the_drive(tmp_path):
    twin = made_twin(behavior="modulator")
    save_twins([twin], tmp_path / "twin.safetensors")
    rewritten(
        tmp_path / "twin.safetensors", lambda said, _: said["twins"][0]["model"]["modulator"].pop("of"), signed=True
    )
    (again,) = load_twins(tmp_path / "twin.safetensors")
    assert torch.equal(rates(twin), rates(again))


def test_ready_made_and_untrained_twins_come_back(tmp_path, stimuli):
    torch.save(checkpoint(behavior=2, shifter=True, separable=False, dense=True, stack=2), tmp_path / "a.pth")
    ready = load_twin(tmp_path / "a.pth")
    for twin in (ready, untrained_twin(ready, 4, stimuli)):
        save_twins([twin], tmp_path / "b.safetensors")
        again = load_twin(tmp_path / "b.safetensors")
        assert same(twin, again)
        assert np.array_equal(predict_population(twin, stimuli).mean, predict_population(again, stimuli).mean)


def test_a_core_that_is_shared_is_kept_once_and_shared_again(tmp_path):
    core = made_twin().model.core
    shared = [made_twin("a", shares=core, seed=1), made_twin("b", shares=core, seed=2), made_twin("c", seed=3)]
    save_twins(shared, tmp_path / "twins.safetensors")
    a, b, c = load_twins(tmp_path / "twins.safetensors")
    assert a.model.core is b.model.core
    assert c.model.core is not a.model.core
    assert all(same(one, again) for one, again in zip(shared, (a, b, c), strict=True))
    first_filters = [name for name in load_file(tmp_path / "twins.safetensors") if "layers.0.0.weight" in name]
    assert first_filters == ["cores.0.layers.0.0.weight", "cores.1.layers.0.0.weight"]


def test_one_twin_of_several_is_found_by_name(tmp_path):
    path = tmp_path / "twins.bin"  # what a file is, is found by looking
    save_twins([made_twin("a", seed=1), made_twin("b", seed=2)], path)
    assert same(load_twin(path, scan="b"), made_twin("b", seed=2))
    with pytest.raises(InputError, match=r"holds 2 scans \(a, b\); choose one"):
        load_twin(path)
    with pytest.raises(InputError, match="no scan 'c'; it holds a, b"):
        load_twin(path, scan="c")
    assert load_twin(path, scan="a", neutral_behavior=(1.0, 2.0)).neutral_behavior == (1.0, 2.0)
    with pytest.raises(InputError, match="takes images of 16x20; leave input_size out"):
        load_twin(path, scan="a", input_size=(36, 64))


def test_no_flipped_bit_and_no_cut_goes_unseen(tmp_path):
    path = tmp_path / "twin.safetensors"
    save_twins([made_twin()], path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    head = 8 + int.from_bytes(whole[:8], "little")
    for at in [*rng.integers(8, head, 80), *rng.integers(head, len(whole), 20)]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << int(rng.integers(7))]) + whole[at + 1 :])
        with pytest.raises(InputError) as caught:
            load_twin(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
    for part in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:part])
        with pytest.raises(InputError, match="damaged"):
            load_twin(path)
    path.write_bytes(whole)
    assert same(load_twin(path), made_twin())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full, which takes no byte, is Linux's")
def test_a_disk_that_fills_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "twin.safetensors"
    save_twins([made_twin(seed=1)], path)

    def save(tensors, temporary, metadata) -> None:
        temporary.write_bytes(b"half a file")
        Path("/dev/full").write_bytes(b"the rest")

    with monkeypatch.context() as full:
        full.setattr("neuroprior.twin.saved.save_file", save)
        with pytest.raises(InputError, match="no space left on the disk") as caught:
            save_twins([made_twin(seed=2)], path)
    assert "\n" not in str(caught.value)
    assert same(load_twin(path), made_twin(seed=1))
    assert [file.name for file in tmp_path.iterdir()] == ["twin.safetensors"]


def test_what_cannot_be_saved_is_said_and_nothing_written(tmp_path):
    path = tmp_path / "twin.safetensors"
    strange = made_twin()
    strange.model.core.layers[1][2] = nn.GELU()
    with pytest.raises(InputError, match=r"twin mouse: core layer 1: a GELU.* has no place in the file"):
        save_twins([strange], path)
    lost = made_twin()
    lost.model.readout.bias[2] = torch.nan
    with pytest.raises(InputError, match=r"twins\.0\.readout\.bias would hold values that are not finite"):
        save_twins([lost], path)
    with pytest.raises(InputError, match="pixel_mean is nan, not a finite number"):
        save_twins([replace(made_twin(), pixel_mean=float("nan"))], path)
    with pytest.raises(InputError, match="two twins are called 'mouse'"):
        save_twins([made_twin(), made_twin(seed=1)], path)
    with pytest.raises(InputError, match="no twins to save"):
        save_twins([], path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="cannot be written"):
        save_twins([made_twin()], tmp_path)


def test_other_files_are_named_for_what_they_are(tmp_path, target):
    target.save(tmp_path / "target")
    Checkpoint(tmp_path / "state").save({"models": torch.zeros(2)})
    torch.save(checkpoint(), tmp_path / "sensorium")
    save_file({"readout.x": torch.zeros(1)}, tmp_path / "plain")
    save_file({"x": torch.zeros(1)}, tmp_path / "newer", {"format": "neuroprior.Twins/2"})
    for name, said in {
        "target": "holds a SimilarityTarget, not twins",
        "state": "the state of a training that is not over",
        "sensorium": "a Sensorium checkpoint is read with load_twin",
        "newer": "Twins/2 is newer than this version; upgrade neuroprior",
        "missing": "no such file",
    }.items():
        with pytest.raises(InputError, match=said):
            load_twins(tmp_path / name)
    with pytest.raises(InputError, match=r"no neuron readout in it, but readout\.x"):
        load_twin(tmp_path / "plain")
    with pytest.raises(InputError, match="is newer than this version"):
        load_twin(tmp_path / "newer")


def test_a_record_has_every_field_of_a_twin_but_its_arrays():
    assert {field.name for field in fields(TwinRecord)} == {field.name for field in fields(Twin)} - {"snr", "accuracy"}


def _record(change):
    return lambda said, tensors: change(said["twins"][0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_record(lambda t: t.update(n_neurons=8)), r"twins\[0\]\.n_neurons 8, and the rest of the model gives 7"),
        (_record(lambda t: t.pop("digest")), r"twins\[0\]\.digest is missing"),
        (_record(lambda t: t.update(colour="red")), r"twins\[0\]\.colour is not known to this version; upgrade"),
        (_record(lambda t: t.update(pixel_std="much")), r"twins\[0\]\.pixel_std is 'much', not a finite number"),
        (_record(lambda t: t.update(input_size=[16])), r"twins\[0\]\.input_size is \[16\]"),
        (_record(lambda t: t.update(input_size=[3, 3])), r"twins\[0\]\.input_size: 3x3 is too small"),
        (_record(lambda t: t["model"]["readout"].update(kind="other")), r"readout\.kind is 'other', not gaussian"),
        (_record(lambda t: t["model"]["readout"].update(neurons=8)), r"n_neurons 7, and the rest of the model gives 8"),
        (_record(lambda t: t["model"].update(core=1)), r"model\.core is 1, of 1 cores"),
        (lambda s, t: s["cores"][0].update(stack=4), r"cores\[0\]: 3 layers, .* stack 4"),
        (lambda s, t: s["cores"][0]["layers"][0].update(channels=-3), r"layers\[0\]\.channels is -3"),
        (lambda s, t: s["cores"][0]["layers"][0].update(kernel=[3, 3]), r"layers\.0\.0\.weight is .*5, 5.* 3, 3"),
        (
            lambda s, t: s["cores"][0]["layers"][0].update(channels=10**15),
            "layer 1 of its core takes 3, and .* 10000000",
        ),
        (lambda s, t: s["cores"][0]["layers"][0].update(padding=[1, 2]), "weight|SHA-256"),
        (_record(lambda t: t["model"].update(channels=True)), "layer 0 of its core takes 1, and .* gives 3"),
        (_record(lambda t: t["model"]["readout"].update(features=9)), r"readout\.features 9, and .* gives 3"),
        (_record(lambda t: t["model"]["modulator"].update(channels=3)), r"modulator\.channels 3, .* gives 2"),
        (_record(lambda t: t["model"]["shifter"].pop()), r"model\.shifter \[2, 5, 2\], .* \[2, 5, 5\]"),
        (_record(lambda t: t["model"].update(behavior_scale=[2, 5])), r"behavior_scale \(2, 5\), .* \(2, 2\)"),
        (_record(lambda t: t.update(n_neurons=True)), r"twins\[0\]\.n_neurons is True, not a valid integer"),
        (_record(lambda t: t.update({"a\nb": 1})), r"twins\[0\]\.a b is not known to this version"),
        (_record(lambda t: t["model"]["readout"].update(bias=1)), r"\.model\.readout\.bias is not known"),
        (_record(lambda t: t["model"]["readout"].pop("kind")), r"\.model\.readout\.kind is None, not gaussian or fact"),
        (_record(lambda t: t["model"].update(readout=3)), r"\.model\.readout is 3, not an object"),
        (_record(lambda t: t.update(neutral_behavior=[0.1, 1e999])), r"neutral_behavior\[1\] is inf, not a finite"),
        (_record(lambda t: t.update(input_size=[16, 20, 3])), r"input_size is \[16, 20, 3\], not a list of the right"),
        (lambda s, t: s.update(twins=[]), "names no twins"),
        (lambda s, t: t.pop("twins.0.readout.bias"), r"twins\.0\.readout\.bias is missing"),
        (lambda s, t: t.update({"twins.0.snr": torch.ones(6)}), r"snr is \(6,\) float32, not \(7,\)"),
        (lambda s, t: t.update({"twins.0.unit": torch.ones(7).double()}), r"unit is \(7,\) float64, .* float32"),
        (lambda s, t: t.update({"twins.1.unit": torch.ones(7)}), r"twins\.1\.unit belongs to no twin"),
        (lambda s, t: t["cores.0.layers.0.0.weight"].add_(1), "damaged .its SHA-256"),
        (_record(lambda t: t.update(pixel_std=9.0)), "damaged .its SHA-256"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, shapes_unchecked, change, message):
    path = tmp_path / "twin.safetensors"
    save_twins([made_twin()], path)
    rewritten(path, change)
    with pytest.raises(InputError, match=message) as caught:
        load_twins(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
