"""Statistics of an epoch while it runs, and of a whole training once it is done."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class EpochStats:
    """Sums of an epoch so far, over all workers; the seconds are of worker 0."""

    steps: int = 0
    requests: int = 0
    candidates: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    wait_seconds: float = 0.0
    communication_seconds: float = 0.0


@dataclass(frozen=True)
class TrainingStats:
    """Statistics of a training over all workers; seconds and shares of them are of worker 0."""

    steps: int
    requests: int
    candidates: int
    loss: float
    seconds: float
    candidates_per_second: float
    wait_share: float
    communication_share: float
    measures: Mapping[str, float] = field(default_factory=dict)
    """What the trained model measures of itself (`Ranker.measures`), on some of its rows."""


def training_stats(epoch: EpochStats) -> TrainingStats:
    """Statistics of a training of this one epoch."""
    return TrainingStats(
        steps=epoch.steps,
        requests=epoch.requests,
        candidates=epoch.candidates,
        loss=epoch.loss / max(epoch.candidates, 1),
        seconds=epoch.seconds,
        candidates_per_second=epoch.candidates / epoch.seconds,
        wait_share=epoch.wait_seconds / epoch.seconds,
        communication_share=epoch.communication_seconds / epoch.seconds,
    )


def total(epochs: Sequence[TrainingStats]) -> TrainingStats:
    """Statistics of several epochs together; the loss is that of the last epoch."""
    seconds = sum(one.seconds for one in epochs)
    candidates = sum(one.candidates for one in epochs)

    def share(name: str) -> float:
        return float(sum(getattr(one, name) * one.seconds for one in epochs) / seconds)

    return dataclasses.replace(
        epochs[-1],
        steps=sum(one.steps for one in epochs),
        requests=sum(one.requests for one in epochs),
        candidates=candidates,
        seconds=seconds,
        candidates_per_second=candidates / seconds,
        wait_share=share("wait_share"),
        communication_share=share("communication_share"),
    )
