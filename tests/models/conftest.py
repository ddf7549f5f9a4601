"""What is drawn for a test is the same in each run."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Else a parameter that is drawn once in a thousand runs fails a test of something else."""
    torch.manual_seed(0)
