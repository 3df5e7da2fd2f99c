"""Two processes under torchrun train the network that one would, second loss and all."""

import json
import subprocess
import sys

import pytest

_SCRIPT = """
import json, os, sys
import numpy as np, torch
from torch import distributed, nn
import neuroprior as npr
from neuroprior.classifier import JsonLines, LabelledImages, TrainingSettings, train
from pathlib import Path

torch.set_num_threads(1)
if "RANK" in os.environ:
    distributed.init_process_group("gloo")
rng = np.random.default_rng(0)
pixels = rng.integers(0, 255, (24, 12, 16), dtype=np.uint8)
stimuli = npr.Stimuli(np.array([f"{k}" for k in range(24)]), pixels)
e = rng.standard_normal((24, 5)); e /= np.linalg.norm(e, axis=1, keepdims=True)
target = npr.SimilarityTarget((e @ e.T).clip(-1, 1).astype(np.float32), stimuli.ids, stimuli.digest, "user")
images = LabelledImages(rng.integers(0, 255, (80, 1, 12, 12), dtype=np.uint8), rng.integers(0, 3, 80), ("a", "b", "c"))
torch.manual_seed(0)
network = nn.Sequential(
    nn.Conv2d(1, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
)
options = json.loads(sys.argv[1])
def move(network, images, labels, noise):
    return (images + 0.1 * noise).clamp(0, 1)
perturb = move if options.pop("perturb", False) else None
settings = TrainingSettings(epochs=2, batch_size=options.pop("batch_size"), validation_fraction=0.2)
reg = npr.SimilarityRegularizer(network, target, stimuli, taps=["2", "5"], **options)
history = train(network, images, settings, seed=0, regularizer=reg, perturb=perturb, log=JsonLines(Path(sys.argv[2])))
if int(os.environ.get("RANK", 0)) == 0:
    numbers = [x for log in history for x in (log.task_loss, log.similarity_loss, log.validation_loss, *log.gamma)]
    print(json.dumps([*numbers, *network[0].weight.flatten().tolist()[:10]]))
if distributed.is_initialized():
    distributed.barrier()  # no process leaves while another still talks to it
    distributed.destroy_process_group()
"""


def run(tmp_path, options, processes):
    script = tmp_path / "training.py"
    script.write_text(_SCRIPT)
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [sys.executable, *launch, str(script), json.dumps(options), str(tmp_path / f"log-{processes}.jsonl")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 16, "stimuli_per_step": 8, "pairs": "all", "mean": "lineage"},
        pytest.param(
            {"batch_size": 16, "stimuli_per_step": 8, "pairs": "disjoint", "mean": "batch", "perturb": True},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_two_processes_train_as_one(tmp_path, options):
    one, two = (run(tmp_path, options, n) for n in (1, 2))
    assert one.returncode == two.returncode == 0, two.stderr
    assert json.loads(two.stdout) == pytest.approx(json.loads(one.stdout), rel=2e-3, abs=2e-4)
    lines = [len((tmp_path / f"log-{n}.jsonl").read_text().splitlines()) for n in (1, 2)]
    assert lines[0] == lines[1]  # only the first process writes


@pytest.mark.slow
def test_shares_must_be_even(tmp_path):
    for options, says in (
        ({"batch_size": 15, "stimuli_per_step": 8}, "2 processes cannot share a batch of 15 images evenly"),
        ({"batch_size": 16, "stimuli_per_step": 7}, "2 processes cannot share 7 stimuli a step evenly"),
    ):
        assert says in run(tmp_path, options, 2).stderr
