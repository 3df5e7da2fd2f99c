"""The parts of a recipe, each checked by itself."""

from typing import Annotated, Literal, TypeVar

from pydantic import Field, model_validator

from neuroprior.classifier import Architecture, Color
from neuroprior.experiment.section import Section
from neuroprior.experiment.simulated_twins import SimulatedTwinsTarget
from neuroprior.regularizer.loss import Mean, Pairs, Scale
from neuroprior.regularizer.schedule import Shape
from neuroprior.regularizer.taps import BatchNorm
from neuroprior.robustness import (
    ATTACKS,
    SEVERITIES,
    USUAL_CORRUPTIONS,
    AttackName,
    Clip,
    CorruptionKind,
    NoiseKind,
    Norm,
    Strength,
    chosen,
)
from neuroprior.types import Precision, Weighting


class StimuliSection(Section):
    """Gray stimuli: an `.npz` with `images`, `names`, `tier`; those that scans show; or photographs of scikit-image."""

    source: Literal["npz", "scans", "photographs"]
    path: str | None = None
    n_train: int | None = Field(default=None, ge=2, description="use only the first so many training stimuli")

    @model_validator(mode="after")
    def _path_where_needed(self) -> "StimuliSection":
        if (self.source == "npz") != (self.path is not None):
            if self.path is None:
                raise ValueError("source npz needs a path: the .npz of images, names and tier")
            raise ValueError(
                f"source {self.source} takes no path; for a file of your own give "
                f'--set "stimuli={{source: npz, path: {self.path}}}"'
            )
        return self


class TwinTarget(Section):
    """S_neural from a digital twin: `path`, a file of twins or a Sensorium checkpoint; `scan`, which of several."""

    kind: Literal["twin"]
    path: str
    scan: str | None = None
    neutral_behavior: tuple[float, ...] | None = None
    neurons: str | None = Field(default=None, description="top-v:0.5, random:0.5[:SEED], or a file of indices")


class SimulatedMouseTarget(Section):
    """S_neural from a simulated mouse: noise-free rates for `neural_model`, single trials for `neural_data`."""

    kind: Literal["simulated_mouse"]
    n_neurons: int = Field(default=500, ge=2)
    n_repeats: int = Field(default=10, ge=2)
    seed: int = 0


class ScansTarget(Section):
    """S_neural from recordings: Eq. 2 of each image's mean response, neurons weighted by Eq. 1, averaged over scans."""

    kind: Literal["scans"]
    paths: tuple[str, ...] = Field(min_length=1)
    neurons: str | None = Field(default=None, description="top-v:0.5, random:0.5[:SEED], or a file of indices")

    @model_validator(mode="after")
    def _each_once(self) -> "ScansTarget":
        return _once_each(self)


class FittedTwinsTarget(Section):
    """S_neural from recordings and the twins fitted to them: Eq. 2 of predictions, and of the same scans' responses.

    `twins`: the folder of `neuroprior twin fit`, crossfit or not. `neural_model` is taught the mean over scans for the
    twins' predictions at neutral behaviour, neurons weighted by w v (Eq. 1, 6); `neural_data` what `scans` would be.
    """

    kind: Literal["fitted_twins"]
    paths: tuple[str, ...] = Field(min_length=1)
    twins: str
    weighting: Weighting | None = Field(
        default=None, description="of predicted neurons: snr-v (unless given), snr, v or none"
    )
    v_power: float = Field(default=1.0, ge=0, description="n of w v^n")

    @model_validator(mode="after")
    def _each_once(self) -> "FittedTwinsTarget":
        return _once_each(self)


class MatrixTarget(Section):
    """A matrix of your own: `path` an `.npy` (n, n), `ids` a text file with the id of a stimulus a line.

    Rows of training stimuli are trained on; rows of oracle stimuli, if there are any, are held out.
    """

    kind: Literal["matrix"]
    path: str
    ids: str


_Recorded = TypeVar("_Recorded", ScansTarget, FittedTwinsTarget)


def _once_each(target: _Recorded) -> _Recorded:
    if len(set(target.paths)) != len(target.paths):
        raise ValueError("paths names a scan twice; it would count twice in the mean")
    return target


Target = TwinTarget | SimulatedMouseTarget | ScansTarget | FittedTwinsTarget | SimulatedTwinsTarget | MatrixTarget
KINDS: dict[str, type[Section]] = {
    "twin": TwinTarget,
    "simulated_mouse": SimulatedMouseTarget,
    "scans": ScansTarget,
    "fitted_twins": FittedTwinsTarget,
    "simulated_twins": SimulatedTwinsTarget,
    "matrix": MatrixTarget,
}
MADE: dict[str, tuple[str, ...]] = {
    "twin": ("model",),
    "simulated_mouse": ("model", "data"),
    "scans": ("data",),
    "fitted_twins": ("model", "data"),
    "simulated_twins": ("model", "data"),
    "matrix": ("user",),
}
"""What each kind of target gives to train on; the first is the one that `shuffle` permutes."""


class TaskSection(Section):
    """What is classified, in gray or colour.

    `parquet`: two files of the Hugging Face layout; `cifar_binary`: the folder `cifar-10-batches-bin` or
    `cifar-100-binary`; `image_folder`: two folders `CLASS/*.png`, with `size` ([height, width] in pixels) if the
    images are not all of one; `digits`: packaged, no file.
    """

    source: Literal["parquet", "cifar_binary", "image_folder", "digits"]
    train: str | None = None
    test: str | None = None
    folder: str | None = None
    color: Color = "gray"
    size: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = None
    n_train: int | None = Field(default=None, ge=10)
    n_test: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _files_where_needed(self) -> "TaskSection":
        needed = {"cifar_binary": {"folder"}, "digits": set()}.get(self.source, {"train", "test"})
        given = {name for name in ("train", "test", "folder") if getattr(self, name) is not None}
        if given != needed:
            wants = " and ".join(sorted(needed, reverse=True)) or "no file"
            raise ValueError(f"source {self.source} needs {wants}, not {' and '.join(sorted(given)) or 'nothing'}")
        if self.size is not None and self.source != "image_folder":
            raise ValueError(f"size is for source image_folder; images of source {self.source} are of one size already")
        return self

    def path(self, part: Literal["train", "test"]) -> str | None:
        """The file or folder that the training or test images are read from."""
        return self.folder or (self.train if part == "train" else self.test)


class NetworkSection(Section):
    """Which network is trained."""

    architecture: Architecture = "resnet18"
    width: int = Field(default=64, ge=1, description="channels of the first stage")
    checkpointing: bool = Field(default=False, description="less memory, a third more time: blocks computed twice")


class RampSection(Section):
    """alpha from `start` to `end` over the first part `over` of all steps."""

    start: float = Field(ge=0)
    end: float = Field(ge=0)
    over: float = Field(default=1.0, gt=0, le=1)
    shape: Shape = "linear"


class RegularizerSection(Section):
    """The options of `SimilarityRegularizer`."""

    alpha: Annotated[float, Field(ge=0)] | RampSection = 20.0
    scale: Scale = "printed"
    mean: Mean = "lineage"
    pairs: Pairs = "disjoint"
    batch_norm: BatchNorm = "shared"
    stimuli_per_step: int = Field(default=64, ge=2)
    features_per_tap: int | None = Field(
        default=None, ge=1, description="so many features of a tap are compared, at places drawn anew each step; all"
    )
    every: int = Field(default=1, ge=1, description="computed every so many steps, and as many times heavier")
    threshold: float | None = Field(default=None, ge=0, lt=1, description="S_neural to -1, 0, 1")
    within: tuple[float, float] | None = Field(default=None, description="only pairs of such S_neural count")
    taps: int | tuple[str, ...] = 5

    @model_validator(mode="after")
    def _a_range(self) -> "RegularizerSection":
        if self.within is not None and not -1 <= self.within[0] < self.within[1] <= 1:
            raise ValueError(f"within is {list(self.within)}; give [lowest, highest] similarity in [-1, 1]")
        return self


class RegressionSection(Section):
    """The options of `ResponseRegression`, for the condition `regression`."""

    alpha: float = Field(default=1.0, ge=0)
    tap: int | str = Field(default=5, description="the layer, or the deepest of so many stages")
    grid: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = Field(
        default=(4, 4), description="the most places, down and across, that the layer's map is pooled to"
    )
    stimuli_per_step: int = Field(default=64, ge=2)
    neurons_per_step: int | None = Field(default=1024, ge=1)


class ControlsSection(Section):
    """What the controls are made with."""

    pixel_threshold: float = Field(default=0.8, ge=0, lt=1)
    lowpass_sigma: float = Field(default=4.0, gt=0, description="pixels of a stimulus")
    vgg: str | None = Field(default=None, description="torchvision's VGG-19 weights, or normalised ones")
    seed: int = Field(default=0, ge=0, description="of simulated single trials")


class AdversarialSection(Section):
    """Adversarial training: projected gradient ascent in an Linf ball of radius `epsilon` (pixels in [0, 1])."""

    epsilon: float = Field(default=8 / 255, gt=0)
    steps: int = Field(default=7, ge=1)


class ObjectiveSection(Section):
    """The first loss: classification, or few-shot episodes (the head is then set to the classes' mean features)."""

    kind: Literal["classification", "few_shot"] = "classification"
    ways: int = Field(default=5, ge=2)
    shots: int = Field(default=5, ge=1)
    queries: int = Field(default=5, ge=1)


class NoiseSection(Section):
    """Noise levels, in units of the pixel range (of salt and pepper: the share of values), the same for each kind."""

    sigmas: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        default=tuple(round(0.01 * k, 2) for k in range(16)), min_length=1
    )
    kinds: tuple[NoiseKind, ...] = Field(default=("gaussian",), min_length=1)
    clip: Clip = "none"
    seed: int = 0


class TransferSection(Section):
    """What the trained core is worth on another data set: few-shot accuracy, and a linear probe."""

    task: TaskSection
    ways: int = Field(default=5, ge=2)
    shots: tuple[Annotated[int, Field(ge=1)], ...] = (1, 5)
    episodes: int = Field(default=600, ge=2)
    linear_probe: bool = True
    seed: int = 0


class RobustnessSection(Section):
    """Accuracy under an Linf attack of fixed radius, in pixels in [0, 1] (PGD on the margin); none without a radius."""

    radii: tuple[Annotated[float, Field(ge=0)], ...] = ()
    n_images: int = Field(default=1000, ge=1, description="the first so many test images")
    steps: int = Field(default=50, ge=1)
    restarts: int = Field(default=1, ge=1)
    seed: int = 0


class CorruptionsSection(Section):
    """Accuracy on the corruptions of CIFAR-10-C, and the mean corruption error over the usual fifteen."""

    kinds: tuple[CorruptionKind, ...] = Field(default=USUAL_CORRUPTIONS, min_length=1)
    severities: tuple[Annotated[int, Field(ge=1, le=5)], ...] = Field(default=SEVERITIES, min_length=1)
    n_images: int = Field(default=1000, ge=1, description="the first so many test images")
    seed: int = 0


class FrequenciesSection(Section):
    """Accuracy on low- and high-passed images, and what hybrid images are taken for; cutoffs in cycles per image."""

    cutoffs: tuple[Annotated[float, Field(ge=0)], ...] = Field(default=(1, 2, 3, 4, 5, 6, 8, 10, 12, 14), min_length=2)
    n_images: int = Field(default=1000, ge=1, description="the first so many test images")
    hybrids_of: Literal["right", "all"] = Field(
        default="right", description="pairs that the network classifies rightly"
    )
    seed: int = 0


class TuningSection(Section):
    """Preferred spatial frequency and orientation of the units at each tap, and what excites some of them most."""

    units: Annotated[int, Field(ge=1)] | Literal["all"] = Field(default=64, description="of each tap")
    orientations: int = Field(default=12, ge=3)
    phases: int = Field(default=8, ge=3)
    contrast: float = Field(default=0.5, gt=0, le=1)
    exciting: int = Field(default=4, ge=0, description="units of each tap whose most exciting image is made")
    exciting_steps: int = Field(default=100, ge=1)


class EnsembleSection(Section):
    """Accuracy under attack by an ensemble of AutoAttack's strength, at radii of pixels in [0, 1]."""

    linf: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    l2: tuple[Annotated[float, Field(gt=0)], ...] = ()
    strength: Strength = "standard"
    n_images: int = Field(default=200, ge=1, description="the first so many test images")
    seed: int = 0

    @property
    def by_norm(self) -> dict[Norm, tuple[float, ...]]:
        """The norms that are asked for, with their radii."""
        named: dict[Norm, tuple[float, ...]] = {"linf": self.linf, "l2": self.l2}
        return {norm: radii for norm, radii in named.items() if radii}


class MaskingSection(Section):
    """Whether gradients are masked: all networks of a seed on the same images at one radius (pixels in [0, 1])."""

    norm: Literal["linf", "l2"] = "linf"
    radius: float = Field(gt=0)
    queries: int = Field(default=1000, ge=1, description="of the decision-based attack and of Square, an image")
    n_images: int = Field(default=50, ge=2, description="the first so many test images")
    seed: int = 0


_AnAttack = Annotated[AttackName, Field(json_schema_extra={"enum": list(ATTACKS)})]


class PerturbationsSection(Section):
    """Minimal perturbations: for each norm the attacks whose smallest result counts; none where none is named."""

    l0: tuple[_AnAttack, ...] = ()
    l1: tuple[_AnAttack, ...] = ()
    l2: tuple[_AnAttack, ...] = ()
    linf: tuple[_AnAttack, ...] = ()
    n_images: int = Field(default=200, ge=1, description="the first so many test images")
    repetitions: int = Field(default=1, ge=1)
    exhaustive: bool = Field(default=False, description="the paper's full grids, every attempt by itself")
    max_gradients: int | None = Field(default=None, ge=1, description="for each image and norm")
    seed: int = 0

    @model_validator(mode="after")
    def _attacks_that_fit(self) -> "PerturbationsSection":
        for norm, attacks in self.by_norm.items():
            chosen(attacks, norm, exhaustive=False)
        return self

    @property
    def by_norm(self) -> dict[Norm, tuple[AttackName, ...]]:
        """The norms that are asked for, with their attacks."""
        named: dict[Norm, tuple[AttackName, ...]] = {"l0": self.l0, "l1": self.l1, "l2": self.l2, "linf": self.linf}
        return {norm: attacks for norm, attacks in named.items() if attacks}


class ClusterSection(Section):
    """What `--engine ray` and `--engine slurm` ask a cluster for. No number depends on it."""

    address: str | None = Field(default=None, description="of a ray cluster; RAY_ADDRESS, else one on this machine")
    memory_gb: float | None = Field(default=None, gt=0, description="of a step; whatever the cluster gives")
    minutes: int = Field(default=240, ge=1, description="of a slurm job; what takes longer goes on in the next")
    jobs: int | None = Field(default=None, ge=1, description="of slurm at a time; as many as can start")
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    extra: dict[str, str | int] = Field(default={}, description="further parameters of sbatch, without dashes")
    debug: bool = Field(default=False, description="processes on this machine in place of slurm's jobs")


class ComputeSection(Section):
    """Where and how it runs; `auto` is resolved once, when the run is created, and kept in its `recipe.yaml`."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto"] | Precision = "auto"
    threads: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    workers: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    cuda_graphs: bool = Field(default=True, description="on a GPU, a training step is recorded once and replayed")
    checkpoint_seconds: float = Field(default=30.0, ge=0, description="a killed training loses at most so much work")
    tensorboard: bool = Field(default=False, description="also log trainings for TensorBoard")
    retries: int = Field(default=2, ge=0, description="how often a step is tried again whose worker died")
    cluster: ClusterSection = ClusterSection()
