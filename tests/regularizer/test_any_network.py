"""The regulariser on networks that are not ours: colour, transformers, compiled, checkpointed; large targets."""

import copy
import gc
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from neuroprior import SimilarityRegularizer
from neuroprior.classifier import ResNet
from neuroprior.modes import unwrapped
from neuroprior.regularizer import sampler
from neuroprior.types import FactoredTarget, InputError, SimilarityTarget, Stimuli, load_target


class Transformer(nn.Module):
    """A small ViT for 32x32 colour images and no other size."""

    def __init__(self, depth: int = 4) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 8, 8)
        self.position = nn.Parameter(torch.randn(1, 16, 16) / 4)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.blocks = nn.ModuleList([copy.deepcopy(layer) for _ in range(depth)])
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        tokens = self.patch(x).flatten(2).transpose(1, 2) + self.position
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens.mean(1))


def test_a_transformer_teaches_its_blocks(target, stimuli):
    model = Transformer()
    with pytest.raises(InputError, match=r"cannot take stimuli of \(1, 36, 64\).*size=\(224, 224\)"):
        SimilarityRegularizer(model, target, stimuli, taps=3, stimuli_per_step=8)
    for mean in ("lineage", "batch", "dataset"):
        reg = SimilarityRegularizer(model, target, stimuli, taps=3, stimuli_per_step=8, size=(32, 32), mean=mean)
        assert reg.taps.names == ("blocks.0", "blocks.2", "blocks.3")
        reg().backward()
        assert model.blocks[3].linear1.weight.grad is not None
        assert model.head.weight.grad is None
    one = SimilarityRegularizer(model, target, stimuli, taps=1, stimuli_per_step=8, size=(32, 32))
    assert one.taps.names == ("blocks.3",)
    with pytest.raises(InputError, match="9 layers asked of a network with 1 convolutions and 4 blocks"):
        SimilarityRegularizer(model, target, stimuli, taps=9, stimuli_per_step=8, size=(32, 32))


def test_a_timm_model_by_its_own_names(target, stimuli):
    timm = pytest.importorskip("timm", reason="timm does not import here", exc_type=Exception)
    model = timm.create_model("vit_tiny_patch16_224", pretrained=False)
    reg = SimilarityRegularizer(model, target, stimuli, taps=3, stimuli_per_step=4, size=(224, 224))
    reg().backward()


_COMPILED = """
import torch
from torch import nn
from neuroprior import SimilarityRegularizer, SimilarityTarget, Stimuli
import numpy as np

stimuli = Stimuli(np.array(list("abcdefgh")), np.random.default_rng(0).integers(0, 255, (8, 12, 12), dtype=np.uint8))
target = SimilarityTarget(np.eye(8, dtype=np.float32), stimuli.ids, stimuli.digest, "user")
images = torch.rand(2, 1, 12, 12)

def new_model():
    torch.manual_seed(0)
    first, second = (nn.Sequential(nn.Conv2d(n, 4, 3), nn.Tanh()) for n in (1, 4))
    return nn.Sequential(first, second, nn.Conv2d(4, 2, 3))

def gradient(model, running, compiled_step):
    reg = SimilarityRegularizer(running, target, stimuli, taps=["0", "1"], stimuli_per_step=4)
    def step(batch):
        return running(batch).sum() + reg()
    (torch.compile(step, backend="aot_eager") if compiled_step else step)(images).backward()
    return model[0][0].weight.grad

plain = new_model()
wanted = gradient(plain, plain, False)
for way in ("function", "in place", "regional"):
    for compiled_step in (False, True):
        torch.compiler.reset()
        model = running = new_model()
        if way == "function":
            running = torch.compile(model, backend="aot_eager")
        else:
            (model if way == "in place" else model[1]).compile(backend="aot_eager")
        running(images)  # compiled before the hooks come
        got = gradient(model, running, compiled_step)
        assert torch.allclose(got, wanted, rtol=1e-4, atol=1e-6), (way, compiled_step, got, wanted)
print("equal")
"""


@pytest.mark.slow
def test_compiled_models_give_the_same_loss_and_gradient():
    """In a process of its own: the shape checks of the tests are not made to be compiled."""
    done = subprocess.run([sys.executable, "-c", _COMPILED], capture_output=True, text=True, check=False)
    assert done.stdout == "equal\n", done.stderr


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh())
        self.second = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Tanh())
        self.reentrant: bool | None = reentrant

    def forward(self, x):
        def body(x):
            return self.second(self.first(x))

        if self.reentrant is None:
            return body(x)
        return checkpoint(body, x, use_reentrant=self.reentrant)


@pytest.mark.parametrize("taps", [["first"], ["first", "second"]])
def test_gradient_checkpointing_changes_nothing(target, stimuli, taps):
    torch.manual_seed(0)
    model = Checkpointed(reentrant=False)
    gradients = []
    for reentrant in (None, False):
        model.reentrant = reentrant
        model.zero_grad()
        SimilarityRegularizer(model, target, stimuli, taps=taps, stimuli_per_step=4)().backward()
        gradients.append(model.first[0].weight.grad.clone())
    assert torch.equal(*gradients)


@pytest.mark.parametrize("tap", ["first", "first.1"])  # with parameters of its own, and without
def test_a_tap_without_gradient_is_refused(target, stimuli, tap):
    model = Checkpointed(reentrant=None)
    reg = SimilarityRegularizer(model, target, stimuli, taps=[tap], stimuli_per_step=4)
    model.reentrant = True
    with (
        pytest.warns(UserWarning, match="requires_grad"),
        pytest.raises(InputError, match=f"'{tap}': its features carry no gradient"),
    ):
        reg()


def test_a_wrapped_model_is_looked_at_inside():
    model = nn.Sequential(nn.Conv2d(1, 2, 3))
    assert unwrapped(nn.DataParallel(model)) is model
    assert unwrapped(model) is model


def test_where_a_target_is_kept_changes_no_value(target, stimuli, tmp_path, monkeypatch):
    """On the device, in memory, memory-mapped; as a matrix or as coordinates."""
    torch.manual_seed(0)
    model = ResNet(width=2).eval()
    values, vectors = np.linalg.eigh(target.matrix.astype(np.float64))
    coordinates = (vectors * np.sqrt(values.clip(0))).astype(np.float32)
    factored = FactoredTarget(coordinates, target.image_ids, target.stimuli_digest, target.source, tolerance=1e-6)

    def loss(some) -> float:
        return float(SimilarityRegularizer(model, some, stimuli, stimuli_per_step=8, pairs="all")().detach())

    wanted = loss(target)
    target.save(tmp_path / "matrix")
    factored.save(tmp_path / "factors")
    assert loss(factored) == pytest.approx(wanted, rel=1e-4)
    monkeypatch.setattr("neuroprior.regularizer.neural.HELD_BYTES", 0)
    monkeypatch.setattr("neuroprior.regularizer.sampler.HELD_BYTES", 0)
    assert loss(load_target(tmp_path / "matrix")) == wanted
    assert loss(load_target(tmp_path / "factors")) == pytest.approx(wanted, rel=1e-4)


def test_a_million_stimuli_draw_without_replacement(monkeypatch):
    many = Stimuli(np.array([f"{k}" for k in range(3000)]), np.zeros((3000, 1, 1), dtype=np.uint8))
    monkeypatch.setattr(sampler, "_PERMUTED", 100)
    drawing = sampler.StimulusSampler(many, 64, seed=1)
    drawn = torch.stack([drawing.draw() for _ in range(200)])
    assert all(len(set(row.tolist())) == 64 for row in drawn)
    assert abs(float(drawn.double().mean()) - 1499.5) < 4 * 866 / np.sqrt(drawn.numel())  # uniform: mean and its error
    assert not torch.equal(drawn, torch.stack([drawing.draw() for _ in range(200)]))


@pytest.mark.slow
def test_a_million_images_in_under_two_gigabytes(tmp_path):
    """N = 1,000,000 at rank 256: what the regulariser holds, the memory-mapped files left out."""
    n, rank = 1_000_000, 256
    ids = np.char.mod("%07d", np.arange(n))
    pixels = np.lib.format.open_memmap(tmp_path / "pixels.npy", "w+", np.uint8, (n, 8, 8))
    pixels[:] = np.arange(n, dtype=np.int64)[:, None, None] * np.arange(1, 65).reshape(8, 8) % 251
    stimuli = Stimuli(ids, np.load(tmp_path / "pixels.npy", mmap_mode="r"))
    e = np.zeros((n, rank), dtype=np.float32)
    e[np.arange(n), np.arange(n) % rank] = 1
    FactoredTarget(e, ids, stimuli.digest, "user", tolerance=0.0).save(tmp_path / "target")
    del e
    gc.collect()
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    tracemalloc.start()
    reg = SimilarityRegularizer(model, load_target(tmp_path / "target"), stimuli, taps=["1"])
    reg().backward()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2e9
    assert isinstance(load_target(tmp_path / "target"), FactoredTarget)


def test_a_large_matrix_is_not_read_whole(tmp_path, monkeypatch):
    n = 300
    monkeypatch.setattr("neuroprior.types.targets._CHECKED_WHOLE", 100)
    stimuli = Stimuli(np.char.mod("%d", np.arange(n)), np.zeros((n, 2, 2), dtype=np.uint8))
    SimilarityTarget(np.eye(n, dtype=np.float32), stimuli.ids, stimuli.digest, "user").save(tmp_path / "t")
    target = SimilarityTarget.load(tmp_path / "t")
    assert np.array_equal(target.block(np.array([3, 200])), np.eye(2))
    assert not target.matrix.flags.writeable
