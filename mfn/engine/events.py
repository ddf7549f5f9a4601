"""TensorBoard event files of a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mfn.engine.stats import EpochStats

EVERY = 10
"""Steps between two points of a curve; each point is the mean over these steps."""


class Events:
    """Curves of loss, speed, shares of waiting and communication, and what the model measures."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.writer: Any = None
        self.last: EpochStats | None = None

    def close(self) -> None:
        """Write what is still buffered, and close the file."""
        if self.writer is not None:
            self.writer.close()

    def step(
        self, number: int, epoch: EpochStats, measures: Callable[[], Mapping[str, float]]
    ) -> None:
        """Record a step, if a point is due.

        Args:
            number: of the step, over all epochs.
            epoch: the statistics of its epoch so far.
            measures: gives what the model measures on the batch of this step, by name; it is
                called only for a point.
        """
        if epoch.steps % EVERY:
            return
        since = EpochStats() if epoch.steps == EVERY else self.last
        self.last = epoch
        if since is None:  # resumed from a checkpoint between two points
            return
        if self.writer is None:
            # Imported here: the import takes seconds and few trainings need it.
            from torch.utils.tensorboard import SummaryWriter

            # Discards points that a killed run has written for the same steps.
            self.writer = SummaryWriter(self.folder, purge_step=number)
        seconds = epoch.seconds - since.seconds
        candidates = epoch.candidates - since.candidates
        values = {
            "loss": (epoch.loss - since.loss) / max(candidates, 1),
            "candidates_per_second": candidates / seconds,
            "wait_share": (epoch.wait_seconds - since.wait_seconds) / seconds,
            "communication_share": (epoch.communication_seconds - since.communication_seconds)
            / seconds,
            **measures(),
        }
        for name, value in values.items():
            self.writer.add_scalar(name, value, number)
