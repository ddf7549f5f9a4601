"""Event files of a training, for TensorBoard."""

from __future__ import annotations

from typing import Any

from mfn.training.checkpoint import Tally

EVERY = 10
"""Steps between two points of a curve; each is the mean of these."""


class Events:
    """Curves of loss, speed and waiting over the steps of all epochs."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.writer: Any = None
        self.last: Tally | None = None

    def close(self) -> None:
        """Write what is not written yet."""
        if self.writer is not None:
            self.writer.close()

    def step(self, number: int, tally: Tally) -> None:
        """The step of this number, over all epochs, is done; the tally is that of its epoch."""
        if tally.steps % EVERY:
            return
        since = Tally() if tally.steps == EVERY else self.last
        self.last = tally
        if since is None:  # the run goes on from a checkpoint between two points
            return
        if self.writer is None:
            # Here, since it takes seconds to import and few trainings ask for it.
            from torch.utils.tensorboard import SummaryWriter

            # What a run that was killed told of the same steps is void.
            self.writer = SummaryWriter(self.folder, purge_step=number)
        seconds = tally.seconds - since.seconds
        candidates = tally.candidates - since.candidates
        told = {
            "loss": (tally.loss - since.loss) / max(candidates, 1),
            "candidates_per_second": candidates / seconds,
            "wait_share": (tally.waited - since.waited) / seconds,
            "communication_share": (tally.talked - since.talked) / seconds,
        }
        for name, value in told.items():
            self.writer.add_scalar(name, value, number)
