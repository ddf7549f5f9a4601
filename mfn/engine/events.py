"""Event files of a training, for TensorBoard."""

from __future__ import annotations

from typing import Any

from mfn.engine.stats import EpochStats

EVERY = 10
"""Steps between two points of a curve; each is the mean of these."""


class Events:
    """Curves of loss, speed and waiting over the steps of all epochs."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.writer: Any = None
        self.last: EpochStats | None = None

    def close(self) -> None:
        """Write what is not written yet."""
        if self.writer is not None:
            self.writer.close()

    def step(self, number: int, epoch: EpochStats) -> None:
        """The step of this number, over all epochs, is done; the epoch is that of its epoch."""
        if epoch.steps % EVERY:
            return
        since = EpochStats() if epoch.steps == EVERY else self.last
        self.last = epoch
        if since is None:  # the run goes on from a checkpoint between two points
            return
        if self.writer is None:
            # Here, since it takes seconds to import and few trainings ask for it.
            from torch.utils.tensorboard import SummaryWriter

            # What a run that was killed told of the same steps is void.
            self.writer = SummaryWriter(self.folder, purge_step=number)
        seconds = epoch.seconds - since.seconds
        candidates = epoch.candidates - since.candidates
        told = {
            "loss": (epoch.loss - since.loss) / max(candidates, 1),
            "candidates_per_second": candidates / seconds,
            "wait_share": (epoch.wait_seconds - since.wait_seconds) / seconds,
            "communication_share": (epoch.communication_seconds - since.communication_seconds)
            / seconds,
        }
        for name, value in told.items():
            self.writer.add_scalar(name, value, number)
