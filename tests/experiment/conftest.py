"""The small demo, run once."""

from pathlib import Path

import pytest

from small_demo import go


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "demo"
    assert go(out) == []
    return out
