"""The program: what a process without this package predicts is what the twin predicts."""

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from test_saved import SIZE, made_twin

from neuroprior.twin import Twin, predict_population, twin_program
from neuroprior.types import InputError, Stimuli

# Run by a Python that does not find the package: torch alone.
_ALONE = """
import json, sys
sys.modules["neuroprior"] = None
import numpy as np, torch
torch.set_num_threads(1)
for program, given, out in json.loads(sys.argv[1]):
    run = torch.export.load(program).module()
    arrays = np.load(given)
    np.save(out, run(*(torch.from_numpy(arrays[name]) for name in arrays)).numpy())
try:
    import neuroprior
except ImportError:
    print("without neuroprior")
"""


@dataclass(frozen=True)
class Case:
    """A twin, its program, and what both are shown: behaviour and pupil too, where they are given."""

    twin: Twin
    program: Path
    stimuli: Stimuli
    trials: tuple[np.ndarray, ...]

    @property
    def shown(self) -> tuple[np.ndarray, ...]:
        return (self.stimuli.pixels[:, None].astype(np.float32), *self.trials)

    def expected(self) -> np.ndarray:
        if not self.trials:
            return predict_population(self.twin, self.stimuli).mean
        images, *trials = (torch.from_numpy(value) for value in self.shown)
        return self.twin.model((images - self.twin.pixel_mean) / self.twin.pixel_std, *trials).numpy()


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> dict[str, Case]:
    """A program at neutral, and one with conditions given and a factorised readout."""
    folder = tmp_path_factory.mktemp("programs")
    draw = np.random.default_rng(1)
    stimuli = Stimuli(np.array([f"image-{k}" for k in range(9)]), draw.integers(0, 256, (9, *SIZE), np.uint8))
    trials = (draw.random((9, 2), np.float32), draw.random((9, 2), np.float32) * 4)
    given = made_twin(core="stacked", readout="factorised", behavior="channels", seed=4, n_layers=2)
    made = {
        "neutral": Case(made_twin(n_layers=2), folder / "neutral.pt2", stimuli, ()),
        "given": Case(given, folder / "given.pt2", stimuli, trials),
    }
    jaxtyping.config.update("jaxtyping_disable", True)  # the export reads the code, and would read the checks too
    for conditions, case in made.items():
        twin_program(case.twin, case.program, conditions=conditions)
    jaxtyping.config.update("jaxtyping_disable", False)
    return made


@pytest.mark.parametrize("conditions", ["neutral", "given"])
def test_a_program_predicts_what_the_twin_predicts(cases, conditions):
    """For any number of images, one too."""
    case = cases[conditions]
    run = torch.export.load(case.program).module()
    shown, expected = [torch.from_numpy(value) for value in case.shown], case.expected()
    assert np.allclose(run(*shown).numpy(), expected, rtol=1e-5, atol=1e-5)
    assert np.allclose(run(*(value[:1] for value in shown)).numpy(), expected[:1], rtol=1e-5, atol=1e-5)


def test_the_conditions_of_each_trial_tell(cases):
    """What the program above was given is not what it would predict at neutral."""
    case = cases["given"]
    assert np.abs(case.expected() - predict_population(case.twin, case.stimuli).mean).max() > 1e-2


@pytest.mark.slow
def test_predictions_need_no_neuroprior(cases, tmp_path):
    """One process that cannot import the package runs both programs."""
    jobs = []
    for conditions, case in cases.items():
        np.savez(tmp_path / f"{conditions}.npz", *case.shown)
        jobs.append([str(case.program), str(tmp_path / f"{conditions}.npz"), str(tmp_path / f"{conditions}.npy")])
    command = [sys.executable, "-I", "-c", _ALONE, json.dumps(jobs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "without neuroprior"
    for conditions, case in cases.items():
        assert np.abs(np.load(tmp_path / f"{conditions}.npy") - case.expected()).max() < 1e-5


@pytest.mark.parametrize("conditions", ["neutral", "given"])
def test_a_program_says_what_it_is(cases, conditions):
    files = {"twin.json": ""}
    torch.export.load(cases[conditions].program, extra_files=files)
    said = json.loads(files["twin.json"])
    assert said["conditions"] == conditions
    assert (said["twin"], said["digest"]) == ("mouse", cases[conditions].twin.digest)
    assert (said["images"], said["responses"]) == (["image", 1, 16, 20], ["image", 7])
    assert said["behavior"] == ["pupil size", "speed"]


def test_what_a_program_lacks_is_said(tmp_path, shapes_unchecked):
    unscaled = replace(made_twin(), pixel_mean=None, pixel_std=None)
    with pytest.raises(InputError, match="does not say what pixels are z-scored with; give pixel_scale="):
        twin_program(unscaled, tmp_path / "twin.pt2")
    with pytest.raises(InputError, match="standard deviation is 0; it must be above 0"):
        twin_program(unscaled, tmp_path / "twin.pt2", pixel_scale=(3.0, 0.0))
    with pytest.raises(InputError, match="conditions is 'some'; choose neutral, given"):
        twin_program(made_twin(), tmp_path / "twin.pt2", conditions="some")
    assert not list(tmp_path.iterdir())
