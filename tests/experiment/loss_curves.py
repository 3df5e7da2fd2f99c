"""A short training under each condition, and the losses it had when they were frozen.

python tests/experiment/loss_curves.py    freezes them anew: only after a change that is meant to change numbers
"""

import json
import sys
import tempfile
from pathlib import Path

import torch

from neuroprior.experiment import packaged_recipe
from neuroprior.experiment.plan import plan
from neuroprior.experiment.steps import do_work

FROZEN = Path(__file__).parents[1] / "reference" / "loss_curves.json"
CONDITIONS = (
    "none",
    "neural_model",
    "neural_data",
    "shuffle",
    "spectrum",
    "pixel",
    "pixel_raw",
    "lowpass",
    "blur",
    "exposure",
    "regression",
    "adversarial",
    "adversarial+neural_model@alpha=5",
    "neural_model@alpha=2,mean=batch,scale=lineage",
    "neural_model@every=2",
)
SETTINGS = (
    "scale=tiny",
    f"conditions={json.dumps(CONDITIONS)}",
    "seeds=[0]",
    "task.n_train=150",
    "task.n_test=20",
    "network.width=2",
    "training.epochs=2",
    "training.learning_rate=0.003",  # at 0.1 a rounding grows a millionfold in these few steps
    "regularizer.batch_norm=shared",
    "controls.lowpass_sigma=2",
    "adversarial={epsilon: 0.05, steps: 2}",
    "regression={stimuli_per_step: 8}",
    "compute={device: cpu, precision: float32, threads: 1, workers: 1}",
)


def loss_curves(folder: Path) -> dict[str, dict[str, list[float]]]:
    """Return task and similarity losses by condition and epoch: the training steps of the demo, made very small."""
    torch.set_num_threads(1)
    steps = plan(packaged_recipe("demo", SETTINGS), {})
    folders = {step.key: folder / step.label for step in steps}
    curves: dict[str, dict[str, list[float]]] = {}
    for step in steps:
        if step.kind == "measure":
            continue
        folders[step.key].mkdir()
        do_work(step.work, {name: folders[key] for name, key in step.inputs}, folders[step.key], lambda *_: None)
        if step.kind == "train":
            rows = json.loads((folders[step.key] / "metrics.json").read_text())
            curves[step.work.condition] = {
                metric: [row["value"] for row in rows if row["metric"] == metric]
                for metric in ("task_loss", "similarity_loss", "validation_loss")
            }
    return curves


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        text = json.dumps(loss_curves(Path(place)), indent=1)
    FROZEN.write_text(text + "\n")
    print(f"wrote {FROZEN}", file=sys.stderr)
