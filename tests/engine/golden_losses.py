"""A small training whose losses are known to the last bit: compares them, or writes them again.

    .venv/bin/python -m tests.engine.golden_losses             compare with the file
    .venv/bin/python -m tests.engine.golden_losses --write     write the file again

Write the file again when a change should change the numbers, and say in the commit why it does.

The losses are the same on every x86-64 machine that has AVX2 and FMA, whatever else its CPU has.
Libraries choose their code by the CPU, and so the last bits of a result. They read their settings
when they start, so this program trains in a process that has these:

- ATEN_CPU_CAPABILITY: torch uses AVX2, also where there is AVX-512. With AVX2 it has its own exp
  and log and does not call the C library's, which change with its version.
- MKL_CBWR: MKL multiplies matrices with the code that it has for CPUs of all makers.
- one thread, since the order of a sum depends on their number.

MKL's square roots depend on the CPU even so: there, numpy's take their place, which are exact.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).with_suffix(".json")
REPOSITORY = Path(__file__).parent.parent.parent
MODELS = ("base", "din", "mfn")
EPOCHS = 2
SAME_KERNELS = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_CBWR": "COMPATIBLE",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
COMMAND = [sys.executable, "-m", "tests.engine.golden_losses"]


Losses = Mapping[str, Mapping[str, str]]
"""By model and step, the loss summed over the step's candidates, with all of its digits."""


def losses_of_steps() -> Losses:
    """The loss of every step, and last that of the test rows, computed in this process."""
    import numpy as np
    import torch
    from torch import Tensor

    from mfn.engine.trainer import Schedule, Trainer
    from mfn.engine.workers import SingleWorker
    from mfn.models.embedding import FrozenEmbedding, TableStart
    from mfn.models.ranker import Ranker
    from mfn.models.settings import NAMED_MODELS
    from mfn.settings import Settings
    from mfn.splits.published import Splits
    from tests.synthetic import publish_splits

    dimension = 8

    class Listening(SingleWorker):
        """A worker that keeps the loss of each step, which is averaged with the gradients."""

        def __init__(self) -> None:
            self.losses: dict[str, str] = {}
            self.step = ""

        def heartbeat(self, at: str) -> None:
            self.step = at

        def average_gradients(
            self, parameters: Any, weight: float, told: Sequence[float] = (), summed: Any = ()
        ) -> list[float]:
            self.losses[self.step] = repr(told[0])
            return super().average_gradients(parameters, weight, told, summed)

    def made(name: str, splits: Splits) -> Ranker:
        """As training begins: with an E, and centers of it."""
        features, items = splits.features, splits.item_indices()
        model = Ranker(NAMED_MODELS[name], features, items, dimension, 0.2, seed=1)
        random = torch.Generator().manual_seed(2)
        vectors = {
            field: torch.randn(size, dimension, generator=random)
            for field, size in features.sizes.items()
        }
        E = FrozenEmbedding(
            vectors,
            {field: torch.arange(size) >= 3 for field, size in features.sizes.items()},
            {field: vectors[field].mean(dim=0) for field in features.item_fields},
            {field: vectors[field].std() for field in features.item_fields},
        )
        centers = {
            level.name: torch.randn(32, dimension * len(level.fields), generator=random)
            for level in features.levels
        }
        model.load_frozen(E, centers)
        model.start_at(TableStart(vectors, E.learnt))
        return model

    def sqrt_(values: Tensor) -> Tensor:
        own = values.detach().numpy()
        np.sqrt(own, out=own)
        return values

    exact = torch.library.Library("aten", "IMPL")  # until the end of this function
    exact.impl("sqrt_", sqrt_, "CPU")
    exact.impl("sqrt", lambda values: sqrt_(values.detach().clone()), "CPU")
    torch.set_num_threads(1)
    found = {}
    with tempfile.TemporaryDirectory() as root:
        settings = Settings(root=root, date=datetime.date(2026, 3, 8))
        publish_splits(settings, {"train": [150, 90], "test": [80]})
        splits = Splits.published(settings)
        for name in MODELS:
            schedule = Schedule(learning_rate=0.02, batch_requests=16, seed=3, date="2026-03-08")
            worker = Listening()
            trainer = Trainer(made(name, splits), schedule, worker)
            trainer.train(splits.files("train"), EPOCHS, name)
            of_test = repr(trainer.log_loss(splits.files("test")))
            found[name] = {**worker.losses, f"{name}, mean of the test rows": of_test}
    return found


def computed() -> dict[str, Any]:
    """The losses of a process of its own, and by what they were computed."""
    environment = {**os.environ, **SAME_KERNELS}
    ended = subprocess.run(
        [*COMMAND, "--here"],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def difference(golden: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Where the losses of each model differ first, and what to do; empty where none does."""
    told = []
    for name in sorted({*golden["losses"], *found["losses"]}):
        expected, got = (one["losses"].get(name, {}) for one in (golden, found))
        for step in [*expected, *(step for step in got if step not in expected)]:
            if expected.get(step) != got.get(step):
                told.append(f"{step}: expected {expected.get(step)}, got {got.get(step)}")
                break
    if not told:
        return ""
    about = (
        f"{key}: the file was written with {golden[key]}, this is {found[key]}"
        for key in ("machine", "torch")
        if golden[key] != found[key]
    )
    return "\n".join(
        [
            "the losses of a fixed training have changed; the first of each model that differs:",
            *told,
            *about,
            "If the numbers should change, write the file again and say why in the commit: "
            ".venv/bin/python -m tests.engine.golden_losses --write",
        ]
    )


def _main(arguments: Sequence[str]) -> int:
    if list(arguments) == ["--here"]:
        import torch

        about = {"machine": platform.machine(), "torch": torch.__version__}
        print(json.dumps({**about, "losses": losses_of_steps()}))
        return 0
    found = computed()
    if list(arguments) == ["--write"]:
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
        return 0
    told = difference(json.loads(GOLDEN.read_text()), found)
    print(told or "all losses are those of the file")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
