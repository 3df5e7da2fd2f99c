"""Fixtures that several rooms share."""

from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch

from neuroprior.types import SimilarityTarget, Stimuli
from real_data import DATA


@pytest.fixture(autouse=True)
def _one_thread():
    """Numbers that depend on the thread count must not depend on how many tests run at once."""
    torch.set_num_threads(1)


@pytest.fixture
def shapes_unchecked():
    """Switch jaxtyping's checks off, so that a wrong shape meets the message that a user would get."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def data():
    """Return the path of a real data file, or skip, saying what is missing."""

    def path(name: str) -> Path:
        file = DATA / name
        if not file.is_file():
            pytest.skip(f"real data missing: {file} (set NEUROPRIOR_DATA)")
        return file

    return path


@pytest.fixture
def stimuli() -> Stimuli:
    """Forty smooth random images of 36x64."""
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 256, size=(40, 9, 16))
    pixels = np.kron(coarse, np.ones((1, 4, 4))).astype(np.uint8)
    return Stimuli(np.array([f"image-{k:02d}" for k in range(40)]), pixels)


@pytest.fixture
def target(stimuli: Stimuli) -> SimilarityTarget:
    """A similarity that no network has: that of random responses."""
    from neuroprior.similarity import target_from_population
    from neuroprior.types import Population

    responses = np.random.default_rng(11).standard_normal((len(stimuli), 30)).astype(np.float32)
    population = Population(stimuli.ids, responses, np.ones(30, dtype=np.float32), "recorded")
    return target_from_population(population, stimuli)
