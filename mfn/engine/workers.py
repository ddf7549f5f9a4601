"""The interface of the workers that train together, and its implementation for a single worker.

Training code uses only `Workers`. Several workers are Horovod processes
(`mfn.engine.horovod_workers`). One worker needs neither Horovod nor Spark.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from torch import Tensor, nn


class Workers(ABC):
    """This worker, and its collectives with the other workers.

    Attributes:
        rank: number of this worker, from 0; worker 0 shows progress and writes artifacts.
        size: number of workers.
        communication_seconds: time that this worker has spent in collectives.
        communication_bytes: bytes that it has sent in the collectives of its steps.
    """

    rank: int
    size: int
    communication_seconds: float = 0.0
    communication_bytes: int = 0

    @abstractmethod
    def broadcast(self, tensors: Mapping[str, Tensor]) -> None:
        """Set these tensors on every worker to their values on worker 0."""

    @abstractmethod
    def average_gradients(
        self,
        parameters: Sequence[nn.Parameter],
        weight: float,
        values: Sequence[float] = (),
        summed: Sequence[nn.Parameter] = (),
    ) -> list[float]:
        """Set each gradient to its sum over all workers, divided by the sum of their weights.

        Sparse gradients stay sparse.

        Args:
            parameters: their gradients are those of a loss summed over candidates.
            weight: number of candidates in that sum; it may be 0, but not on all workers.
            values: statistics of the step, sent together with the gradients.
            summed: parameters whose gradients are already sums over all workers.

        Returns:
            the sum of the weights over all workers, then the sum of each of the values.
        """

    @abstractmethod
    def all_to_all(self, rows: Tensor, counts: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Send the first `counts[0]` rows to worker 0, the next `counts[1]` to worker 1, etc.

        Returns:
            the received rows, those of worker 0 first, and the number of rows from each worker.
        """

    @abstractmethod
    def heartbeat(self, at: str) -> None:
        """Report the current step to the watchdog."""

    @abstractmethod
    def sum(self, values: Sequence[float]) -> list[float]:
        """Sum of each value over all workers."""


class SingleWorker(Workers):
    """One worker, in this process."""

    rank, size = 0, 1

    def broadcast(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing to do."""

    def average_gradients(
        self,
        parameters: Sequence[nn.Parameter],
        weight: float,
        values: Sequence[float] = (),
        summed: Sequence[nn.Parameter] = (),
    ) -> list[float]:
        """Divide by the weight."""
        for parameter in [*parameters, *summed]:
            if parameter.grad is not None:
                parameter.grad = parameter.grad / weight
        return [float(weight), *map(float, values)]

    def all_to_all(self, rows: Tensor, counts: Sequence[int]) -> tuple[Tensor, list[int]]:
        """The rows themselves."""
        return rows, list(counts)

    def heartbeat(self, at: str) -> None:
        """Nothing to do."""

    def sum(self, values: Sequence[float]) -> list[float]:
        """The values themselves."""
        return list(values)
