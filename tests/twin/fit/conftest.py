"""The small mouse and its fit, made once."""

import pytest
import torch
from small_fits import QUICK, SMALL
from small_mouse import small_mouse

from neuroprior.twin import FittedTwins, fit_twin
from neuroprior.types import Scan


@pytest.fixture(scope="session")
def mouse() -> Scan:
    return small_mouse()


@pytest.fixture(scope="session")
def fitted(mouse) -> FittedTwins:
    torch.set_num_threads(1)
    return fit_twin(mouse, SMALL, QUICK)
