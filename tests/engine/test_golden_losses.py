"""A fixed training gives the losses that it gave before, to the last bit."""

from __future__ import annotations

import copy
import json

import pytest

from tests.engine.golden_losses import EPOCHS, GOLDEN, MODELS, computed, difference

STEPS = 15
"""Of an epoch of 240 requests, 16 a step."""


@pytest.mark.process
def test_a_fixed_training_gives_the_losses_of_the_file() -> None:
    golden = json.loads(GOLDEN.read_text())
    assert sorted(golden["losses"]) == sorted(MODELS)
    for losses in golden["losses"].values():
        assert len(losses) == EPOCHS * STEPS + 1  # the last is that of the test rows
    told = difference(golden, computed())
    assert not told, told


def test_the_first_step_that_differs_is_named_with_both_losses_and_what_to_do() -> None:
    golden = json.loads(GOLDEN.read_text())
    found = copy.deepcopy(golden)
    assert difference(golden, found) == ""
    found["losses"]["din"] |= {"din epoch 2, step 3": "1.5", "din epoch 2, step 4": "1.5"}
    found["torch"] = "0.1"
    told = difference(golden, found)
    expected = golden["losses"]["din"]["din epoch 2, step 3"]
    assert f"\ndin epoch 2, step 3: expected {expected}, got 1.5\n" in told
    assert "din epoch 2, step 4" not in told
    assert "mfn" not in told.replace("golden_losses --write", "")
    assert f"torch: the file was written with {golden['torch']}, this is 0.1" in told
    assert "golden_losses --write" in told
    del found["losses"]["mfn"]
    assert "mfn epoch 1, step 0: expected" in difference(golden, found)
