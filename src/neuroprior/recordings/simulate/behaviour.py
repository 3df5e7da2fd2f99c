"""Running, pupil and gaze of every trial, and the gain with which they (and nobody knows what) scale the responses."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from neuroprior.recordings.simulate.animal import Animal
from neuroprior.recordings.simulate.checks import check
from neuroprior.types import Float32, Float64

__all__ = ["BEHAVIOR_NAMES", "STILL", "Behaviour"]

BEHAVIOR_NAMES = ("pupil_dilation", "d_pupil_dilation", "running_speed")

_SPEED_SPREAD = 0.5  # of the logarithm of the speed within a bout
_AROUSAL = 0.5  # correlation of pupil size with running
_MEMORY = (0.9, 0.9, 0.7, 0.7)  # from trial to trial: speed, pupil, gaze x, gaze y
_GAZE_ASPECT = (1.0, 0.5)  # mice look about horizontally more than vertically
_TRACKER_NOISE = 0.3  # tracker pixels
_SLOPE_SPREAD = 0.7  # of a neuron's slopes, in mean slopes: some cells are slowed by running
GAZES = 16
_PLASTIC = 1.32471795724474602596  # x^3 = x + 1

_NODES, _NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(40)
_NODE_WEIGHTS = _NODE_WEIGHTS / _NODE_WEIGHTS.sum()


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How much behaviour acts on the responses; 0 switches that part off, and it is recorded all the same.

    `running_gain`, `pupil_gain`: mean change of a neuron's log response for one standard deviation of
    `log(1 + speed / (1 cm/s))`, or of the pupil size. `gaze_spread`: standard deviation of the horizontal gaze shift
    in pixels of the images (about 2 degrees each); the vertical one is half of it.
    Raises `InputError` for a gain outside [-1, 1], a spread below 0, or what is no number.
    """

    running_gain: float = 0.15
    pupil_gain: float = 0.1
    gaze_spread: float = 1.0

    def __post_init__(self) -> None:
        check(
            "behaviour",
            ("running_gain", self.running_gain, abs(self.running_gain) <= 1, "between -1 and 1"),
            ("pupil_gain", self.pupil_gain, abs(self.pupil_gain) <= 1, "between -1 and 1"),
            ("gaze_spread", self.gaze_spread, 0 <= self.gaze_spread < np.inf, "0 or more, and finite"),
        )


STILL = Behaviour(0.0, 0.0, 0.0)
"""Behaviour that acts on nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Behaved:
    """What the animal did on every trial."""

    speed: Float64[np.ndarray, " trial"]
    """cm/s, 0 where it stood."""
    pupil: Float64[np.ndarray, " trial"]
    """Tracker pixels."""
    gaze: Float64[np.ndarray, "trial 2"]
    """How far right and down of neutral it looked, in pixels of the images."""
    pupil_center: Float64[np.ndarray, "trial 2"]
    """Where the tracker saw the pupil: a linear map of the gaze, and noise."""

    @property
    def columns(self) -> Float32[np.ndarray, "trial 3"]:
        """Return pupil size, its change since the trial before, and speed: `BEHAVIOR_NAMES`."""
        change = np.diff(self.pupil, prepend=self.pupil[:1])
        return np.stack([self.pupil, change, self.speed], axis=1).astype(np.float32)


def _running_law(animal: Animal) -> tuple[Float64[np.ndarray, " value"], Float64[np.ndarray, " value"], float]:
    """Values of `log(1 + speed)` in standard deviations from its mean, their probabilities, and that of neutral."""
    speed = np.append(animal.speed * np.exp(_SPEED_SPREAD * _NODES), 0.0)
    probability = np.append(animal.running_fraction * _NODE_WEIGHTS, 1 - animal.running_fraction)
    mean, spread = _running_scale(animal)
    return (np.log1p(speed) - mean) / spread, probability, float((np.log1p(speed @ probability) - mean) / spread)


def _running_scale(animal: Animal) -> tuple[float, float]:
    """Mean and standard deviation of `log(1 + speed)` over all trials that could be."""
    logs = np.log1p(animal.speed * np.exp(_SPEED_SPREAD * _NODES))
    mean = animal.running_fraction * float(_NODE_WEIGHTS @ logs)
    square = animal.running_fraction * float(_NODE_WEIGHTS @ logs**2)
    return mean, float(np.sqrt(square - mean**2))


def mean_speed(animal: Animal) -> float:
    """Mean speed over all trials that could be, standing ones included: neutral running."""
    return animal.running_fraction * animal.speed * float(_NODE_WEIGHTS @ np.exp(_SPEED_SPREAD * _NODES))


def behave(animal: Animal, behaviour: Behaviour, n_trials: int, rng: np.random.Generator) -> Behaved:
    """Draw running in bouts, a pupil that follows running and itself, and a drifting gaze.

    Speed within a bout is log-normal, pupil size about normal, gaze normal; all are stationary from the first trial.
    """
    innovation = rng.standard_normal((n_trials, 4))
    tracker_noise = _TRACKER_NOISE * rng.standard_normal((n_trials, 2))
    runs = _bouts(animal, rng.random(n_trials))
    latent = _autoregressive(innovation, np.array(_MEMORY))
    speed = np.where(runs, animal.speed * np.exp(_SPEED_SPREAD * latent[:, 0]), 0.0)
    mean, spread = _running_scale(animal)
    arousal = _AROUSAL * (np.log1p(speed) - mean) / spread
    pupil = animal.pupil_mean + animal.pupil_spread * (arousal + np.sqrt(1 - _AROUSAL**2) * latent[:, 1])
    gaze = behaviour.gaze_spread * np.array(_GAZE_ASPECT) * latent[:, 2:]
    return Behaved(speed, pupil, gaze, animal.tracker_origin + gaze @ animal.tracker_map.T + tracker_noise)


def _autoregressive(
    innovation: Float64[np.ndarray, "trial process"], memory: Float64[np.ndarray, " process"]
) -> Float64[np.ndarray, "trial process"]:
    """`z_t = m z_(t-1) + sqrt(1 - m^2) n_t`, of variance 1 from the first trial on."""
    latent: Float64[np.ndarray, "trial process"] = innovation * np.sqrt(1 - memory**2)
    latent[:1] = innovation[:1]
    for trial in range(1, len(latent)):
        latent[trial] += memory * latent[trial - 1]
    return latent


def _bouts(animal: Animal, chance: Float64[np.ndarray, " trial"]) -> np.ndarray:
    """Whether it runs: a two-state chain that stays for `bout` trials and is in it `running_fraction` of them."""
    stop = 1 / animal.bout
    start = stop * animal.running_fraction / (1 - animal.running_fraction)
    runs = np.empty(len(chance), dtype=bool)
    running = False
    for trial, drawn in enumerate(chance):
        if trial == 0:
            running = bool(drawn < animal.running_fraction)
        else:
            running = bool(drawn >= stop if running else drawn < start)
        runs[trial] = running
    return runs


def gaze_nodes(gaze_spread: float) -> Float64[np.ndarray, "node 2"]:
    """Sixteen gaze shifts whose average stands for that over all gazes; one where it is still.

    The `R2` sequence of evenly spread points, made normal and then given exactly mean 0 and the gaze's variances.
    Gauss-Hermite nodes would fall on whole pixels too often, where bilinear interpolation does not blur.
    """
    if gaze_spread == 0:
        return np.zeros((1, 2))
    even = (0.5 + np.arange(1, GAZES + 1)[:, None] / np.array([_PLASTIC, _PLASTIC**2])) % 1
    normal = np.vectorize(NormalDist().inv_cdf)(even)
    normal -= normal.mean(axis=0)
    white = np.linalg.solve(np.linalg.cholesky(normal.T @ normal / GAZES), normal.T).T
    nodes: Float64[np.ndarray, "node 2"] = white * gaze_spread * np.array(_GAZE_ASPECT)
    return nodes


def shifted(
    pixels: Float32[np.ndarray, "image height width"], gaze: Float64[np.ndarray, "image 2"]
) -> Float32[np.ndarray, "image height width"]:
    """`out(y, x) = pixels(y + gaze_y, x + gaze_x)`, bilinear, edges repeated: what falls where the screen was."""
    for axis, shift in ((1, gaze[:, 1]), (2, gaze[:, 0])):
        size = pixels.shape[axis]
        whole = np.floor(shift)
        shape = (-1, 1, 1)
        along = (1, size, 1) if axis == 1 else (1, 1, size)
        index = np.arange(size).reshape(along) + whole.astype(np.int64).reshape(shape)
        part = (shift - whole).astype(np.float32).reshape(shape)
        low = np.take_along_axis(pixels, np.clip(index, 0, size - 1), axis=axis)
        high = np.take_along_axis(pixels, np.clip(index + 1, 0, size - 1), axis=axis)
        pixels = (1 - part) * low + part * high
    return pixels


@dataclass(frozen=True, slots=True, eq=False)
class Modulation:
    """`log g_ta = a_a (x_t - x_0) + b_a y_t + sum_k l_ak z_tk - |l_a|^2 / 2`: how trials scale each neuron's rate.

    `x`: `log(1 + speed / (1 cm/s))` in its standard deviations; `x_0`: that of the animal's mean speed. `y`: pupil
    size from its mean, in standard deviations. `z`: fluctuations that all neurons share, standard normal, new on every
    trial. At mean speed and mean pupil size g is 1 but for the shared fluctuations, whose mean is 1.
    """

    animal: Animal
    slopes: Float64[np.ndarray, "neuron 2"]
    loadings: Float64[np.ndarray, "neuron rank"]

    def gains(
        self, behaved: Behaved, shared: Float64[np.ndarray, "trial rank"]
    ) -> tuple[Float32[np.ndarray, "trial source"], Float32[np.ndarray, "source neuron"]]:
        """Return two factors of `log g`, whose product need not be held for all trials at once."""
        mean, spread = _running_scale(self.animal)
        x = (np.log1p(behaved.speed) - mean) / spread - _running_law(self.animal)[2]
        y = (behaved.pupil - self.animal.pupil_mean) / self.animal.pupil_spread
        state = np.column_stack([x, y, shared, np.ones(len(x))])
        offset = -0.5 * np.square(self.loadings).sum(axis=1, keepdims=True)
        return state.astype(np.float32), np.hstack([self.slopes, self.loadings, offset]).T.astype(np.float32)

    def moment(self, power: int) -> Float64[np.ndarray, " neuron"]:
        """`E_t g_ta^power` over all trials that could be: exact, but for 40 nodes that stand for the speeds."""
        x, probability, neutral = _running_law(self.animal)
        a, b = power * self.slopes.T
        through_running = np.exp(np.outer(a + _AROUSAL * b, x)) @ probability * np.exp(-a * neutral)
        normal = 0.5 * (1 - _AROUSAL**2) * b**2 + 0.5 * (power**2 - power) * np.square(self.loadings).sum(axis=1)
        moment: Float64[np.ndarray, " neuron"] = through_running * np.exp(normal)
        return moment


def draw_modulation(
    animal: Animal, behaviour: Behaviour, shared: float, rank: int, n_neurons: int, rng: np.random.Generator
) -> Modulation:
    """Draw slopes and loadings: the first fluctuation moves all neurons one way, further ones some up and some down."""
    mean = np.array([behaviour.running_gain, behaviour.pupil_gain])
    slopes = mean * (1 + _SLOPE_SPREAD * rng.standard_normal((n_neurons, 2)))
    loadings = rng.standard_normal((n_neurons, rank))
    loadings[:, 0] = np.abs(1 + 0.3 * loadings[:, 0])
    loadings[:, 1:] *= 0.5
    return Modulation(animal, slopes, shared * loadings)
