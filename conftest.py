"""Shared test settings."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
SHARED = Path(__file__).parent.parent / "shared"


@pytest.fixture
def shared() -> Path:
    """The folder of reference tensors and real media, or a skip that says it is absent."""
    if not SHARED.is_dir():
        pytest.skip("../shared (reference tensors and real media) is not there")
    return SHARED
