"""A worker among those that train together, and the case of a single one.

A training is written once, against `Workers`. Several workers are Horovod's processes
(`mfn.engine.horovod_workers`); one worker needs neither Horovod nor Spark.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from torch import Tensor, nn


class Workers(ABC):
    """This worker among all of them.

    Attributes:
        rank: its number, from 0; worker 0 shows progress and writes artifacts.
        size: how many there are.
        communication_seconds: time that this worker has spent in collectives.
        communication_bytes: what it has handed to the collectives of its steps.
    """

    rank: int
    size: int
    communication_seconds: float = 0.0
    communication_bytes: int = 0

    @abstractmethod
    def broadcast(self, tensors: Mapping[str, Tensor]) -> None:
        """Give every worker what these hold on worker 0."""

    @abstractmethod
    def average_gradients(
        self,
        parameters: Sequence[nn.Parameter],
        weight: float,
        told: Sequence[float] = (),
        summed: Sequence[nn.Parameter] = (),
    ) -> list[float]:
        """Make each gradient the sum over all workers divided by the sum of their weights.

        Gradients are of a summed loss, `weight` is how many candidates it summed over. Those of
        `summed` are sums over all workers already. Sparse gradients stay sparse. What each worker
        has to tell of the step travels with them.

        Returns:
            the sum of the weights, which may not be 0, then that of each number told.
        """

    @abstractmethod
    def all_to_all(self, rows: Tensor, counts: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Send the first rows to worker 0, the next to worker 1, and so on, as many as counted.

        Returns:
            what came, that of worker 0 first, and how many rows came from each.
        """

    @abstractmethod
    def heartbeat(self, at: str) -> None:
        """Say where this worker is: it has come on since the last time."""

    @abstractmethod
    def sum(self, values: Sequence[float]) -> list[float]:
        """Each value added up over all workers."""


class SingleWorker(Workers):
    """One worker, in this process."""

    rank, size = 0, 1

    def broadcast(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing to do."""

    def average_gradients(
        self,
        parameters: Sequence[nn.Parameter],
        weight: float,
        told: Sequence[float] = (),
        summed: Sequence[nn.Parameter] = (),
    ) -> list[float]:
        """Divide by the weight."""
        for parameter in [*parameters, *summed]:
            if parameter.grad is not None:
                parameter.grad = parameter.grad / weight
        return [float(weight), *map(float, told)]

    def all_to_all(self, rows: Tensor, counts: Sequence[int]) -> tuple[Tensor, list[int]]:
        """The rows themselves."""
        return rows, list(counts)

    def heartbeat(self, at: str) -> None:
        """Nobody waits for it."""

    def sum(self, values: Sequence[float]) -> list[float]:
        """The values themselves."""
        return list(values)
