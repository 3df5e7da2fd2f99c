"""Networks from elsewhere: what is read, and that nothing is ever unpickled."""

import io
import pickle
import re
import warnings
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bombs import Bomb
from neuroprior.networks import load_network, population_from_network
from neuroprior.types import InputError

CODE = """
import torch
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        torch.manual_seed(3)
        super().__init__(nn.Conv2d(1, 4, 5, bias=False), nn.BatchNorm2d(4), nn.ReLU())

ready = Net()
number = 3

class Holder:
    net = Net

def needs(width):
    return Net()

def gives_nothing():
    pass

def fails():
    raise KeyError("inner")
"""


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 5)
        self.relu = nn.ReLU()
        self.pool = nn.AvgPool2d(4)

    def forward(self, images):
        return self.pool(self.relu(self.conv(images)))


@pytest.fixture
def module(tmp_path, monkeypatch, request):
    """A module of its own name in the current directory."""
    name = f"module_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return name


@pytest.fixture
def program(tmp_path):
    """A small network, and it as a torch.export program."""
    torch.manual_seed(5)
    network = Small().eval()
    shapes = ({0: torch.export.Dim("image")},)
    exported = torch.export.export(network, (torch.zeros(2, 1, 36, 64),), dynamic_shapes=shapes)
    torch.export.save(exported, tmp_path / "program.pt2")
    return network, tmp_path / "program.pt2"


@pytest.mark.parametrize("what", ["Net", "ready", "Holder.net"])
def test_an_import_path_gives_a_network_in_evaluation_mode(module, what):
    network = load_network(f"{module}:{what}")
    assert isinstance(network, nn.Sequential)
    assert not any(part.training for part in network.modules())


@pytest.mark.parametrize("kind", ["safetensors", "state dict"])
def test_weights_fill_the_network(module, tmp_path, kind):
    state = {k: v + 1 if v.is_floating_point() else v for k, v in load_network(f"{module}:Net").state_dict().items()}
    file = tmp_path / "weights.bin"  # its content says what it is, not its name
    (save_file if kind == "safetensors" else torch.save)(state, file)
    filled = load_network(f"{module}:Net", weights=file).state_dict()
    assert all(torch.equal(filled[name], state[name]) for name in state)
    assert not torch.equal(filled["0.weight"], load_network(f"{module}:Net").state_dict()["0.weight"])


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("Nett", "nothing of the name 'Nett' in it; there are: "),
        ("number", "a int; name a factory or an nn.Module"),
        ("needs", "calling it without arguments failed: TypeError: needs() missing 1 required"),
        ("gives_nothing", "gives a NoneType; it must give an nn.Module"),
        ("fails", "calling it without arguments failed: KeyError: 'inner'"),
    ],
)
def test_what_gives_no_network_is_said(module, what, says):
    with pytest.raises(InputError) as error:
        load_network(f"{module}:{what}")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_what_cannot_be_imported_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "module_broken.py").write_text("import module_that_is_not_installed")
    (tmp_path / "module_raises.py").write_text("1 / 0")
    for spec, says in (
        ("module_nowhere:net", "no module 'module_nowhere'"),
        ("torch.module_nowhere:net", "no module 'torch.module_nowhere'"),
        ("module_broken:net", "importing it failed: No module named 'module_that_is_not_installed'; install that"),
        ("module_raises:net", "importing it failed: ZeroDivisionError: division by zero"),
        ("nowhere.pt", "no such file, nor package.module:factory"),
        ("a/b.pt:c", "no such file, nor package.module:factory"),
    ):
        with pytest.raises(InputError) as error:
            load_network(spec)
        assert says in str(error.value)
        assert "\n" not in str(error.value)


def test_weights_that_do_not_fit_name_the_first_name(module, tmp_path):
    state = load_network(f"{module}:Net").state_dict()
    for weights, says in (
        ({k: v for k, v in state.items() if k != "1.bias"}, "1 of the names are missing (first: '1.bias')"),
        ({**state, "9.weight": torch.zeros(1)}, "1 of the names are not the network's (first: '9.weight')"),
        ({**state, "1.bias": torch.zeros(7)}, "size mismatch for 1.bias"),
        ({**state, "1.bias": torch.full((4,), torch.nan)}, "1.bias holds values that are not finite"),
        ({"state": 3}, "not a state dict"),
        (Small(), "nothing else is ever unpickled"),
    ):
        torch.save(weights, tmp_path / "weights.pt")
        with pytest.raises(InputError) as error:
            load_network(f"{module}:Net", weights=tmp_path / "weights.pt")
        assert says in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="no such file"):
        load_network(f"{module}:Net", weights=tmp_path / "nowhere.pt")


def test_a_program_keeps_its_layers(program, stimuli):
    network, file = program
    loaded = load_network(file)
    for layer in ("conv", "relu", "pool"):
        ours, theirs = (population_from_network(n, layer, stimuli).mean for n in (loaded, network))
        assert np.allclose(ours, theirs, atol=1e-6)


def test_of_torchscript_the_output_alone_is_read(tmp_path, stimuli):
    network = Small().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # writing TorchScript is deprecated; reading what exists is not
        torch.jit.trace(network, torch.zeros(1, 1, 36, 64)).save(tmp_path / "network.anything")
    loaded = load_network(tmp_path / "network.anything")
    ours = population_from_network(loaded, "output", stimuli).mean
    assert np.allclose(ours, population_from_network(network, "pool", stimuli).mean, atol=1e-6)
    with pytest.raises(InputError, match="only 'output' can be read"):
        population_from_network(loaded, "scripted.relu", stimuli)


def test_nothing_is_unpickled(tmp_path, program):
    """A pickle in any place where torch itself would read one."""
    left = tmp_path / "left"
    bomb = Bomb(left)
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(bomb))
    torch.save(bomb, tmp_path / "zip.pth")
    torch.save({"a": bomb}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    inside = io.BytesIO()
    torch.save((bomb,), inside)
    whole = zipfile.ZipFile(program[1])
    top = whole.namelist()[0].partition("/")[0]
    config = f"{top}/data/weights/model_weights_config.json"
    for name, changed in (
        ("inputs.pt2", {f"{top}/data/sample_inputs/model.pt": inside.getvalue()}),
        ("weights.pt2", {
            config: whole.read(config).replace(b'"use_pickle": false', b'"use_pickle": true', 1),
            f"{top}/data/weights/weight_0": inside.getvalue(),
        }),
        ("legacy.pt2", {f"{top}/data/weights/model.pt": inside.getvalue()}),
        ("compiled.pt2", {f"{top}/data/aotinductor/model/a.so": b""}),
        ("older.pt2", {"version": b"1.1", "serialized_state_dict.pt": inside.getvalue()}),
    ):  # fmt: skip
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for entry in whole.namelist():
                if entry not in changed:
                    archive.writestr(entry, whole.read(entry))
            for entry, content in changed.items():
                archive.writestr(entry, content)
    files = [*tmp_path.glob("*.pth"), *(f for f in tmp_path.glob("*.pt2") if f != program[1])]
    assert len(files) == 8
    for file in files:
        with pytest.raises(InputError, match=r"nothing is unpickled; give package\.module:factory"):
            load_network(file)
        assert not left.exists(), file
    pickle.loads((tmp_path / "plain.pth").read_bytes()).close()  # noqa: S301 # the contrapositive: the bomb is one
    assert left.exists()


def test_a_damaged_file_is_one_line(tmp_path, program):
    file = tmp_path / "cut.pt2"
    file.write_bytes(program[1].read_bytes()[:2000])
    with pytest.raises(InputError, match="nothing is unpickled"):
        load_network(file)
    with zipfile.ZipFile(program[1]) as whole, zipfile.ZipFile(file, "w") as archive:
        for entry in whole.namelist():
            archive.writestr(entry, b"{}" if entry.endswith("model.json") else whole.read(entry))
    with pytest.raises(InputError, match="cannot be loaded"):
        load_network(file)
    with pytest.raises(InputError, match="holds its own weights"):
        load_network(program[1], weights=file)


def test_a_size_that_is_code_is_refused_and_not_run(tmp_path):
    """`torch.export.load` evaluates sizes as Python: one that is no arithmetic never gets there."""
    left = tmp_path / "ran"
    image = torch.export.Dim("image", min=1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()
    torch.export.save(
        torch.export.export(net, (torch.zeros(2, 3, 2, 2),), dynamic_shapes=({0: image},), strict=False),
        tmp_path / "sound.pt2",
    )
    assert load_network(tmp_path / "sound.pt2")(torch.zeros(5, 3, 2, 2)).shape == (5, 3)
    bad = tmp_path / "bad.pt2"
    with zipfile.ZipFile(tmp_path / "sound.pt2") as whole, zipfile.ZipFile(bad, "w") as archive:
        for entry in whole.namelist():
            content = whole.read(entry)
            if entry.endswith("models/model.json"):
                code = f"\"expr_str\": \"__import__('os').system('touch {left}')\"".encode()
                content, changed = re.subn(rb'"expr_str": ?"[^"]*"', code, content)
                assert changed
            archive.writestr(entry, content)
    with pytest.raises(InputError, match="holds code in place of a size"):
        load_network(bad)
    assert not left.exists()
