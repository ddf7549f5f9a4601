"""Several workers as Horovod's processes, started in Spark's executors.

This is the one module that imports Horovod.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TextIO, TypeVar
from urllib.parse import urlsplit

import torch
from pyspark import SparkContext
from torch import Tensor, nn

from mfn.engine.adam import coalesced
from mfn.engine.watchdog import Watchdog
from mfn.engine.workers import SingleWorker, Workers
from mfn.errors import JobFailed
from mfn.failure import in_a_line

Result = TypeVar("Result")


class HorovodWorkers(Workers):
    """One of several processes that Horovod connects; one that stalls is ended by a watchdog."""

    def __init__(self, stall_seconds: float) -> None:
        import horovod.torch as hvd

        hvd.init()
        self.hvd = hvd
        self.rank, self.size = hvd.rank(), hvd.size()
        self.watchdog = Watchdog(self.rank, stall_seconds)

    def broadcast(self, tensors: Mapping[str, Tensor]) -> None:
        """Broadcast from worker 0."""
        self.hvd.broadcast_parameters(dict(tensors), root_rank=0)

    def average_gradients(
        self,
        parameters: Sequence[nn.Parameter],
        weight: float,
        told: Sequence[float] = (),
        summed: Sequence[nn.Parameter] = (),
    ) -> list[float]:
        """Dense gradients and what is told travel as one vector, sparse ones as distinct rows."""
        start = time.perf_counter()
        for parameter in parameters:
            if parameter.grad is None:  # unused in this batch, but perhaps not in another worker's
                parameter.grad = torch.zeros_like(parameter)
        dense = [p for p in parameters if not _gradient(p).is_sparse]
        sparse = [p for p in parameters if _gradient(p).is_sparse]
        gathers = [self._gather(coalesced(_gradient(p)), place) for place, p in enumerate(sparse)]
        numbers = torch.tensor([weight, *told], dtype=torch.float32)
        vector = torch.cat([*(_gradient(p).reshape(-1) for p in dense), numbers])
        self._sends(vector)
        vector = self.hvd.allreduce(vector, op=self.hvd.Sum, name="dense")
        gradients, numbers = vector[: -len(numbers)], vector[-len(numbers) :]
        total = float(numbers[0])
        parts = torch.split(gradients / total, [p.numel() for p in dense])
        for parameter, part in zip(dense, parts, strict=True):
            parameter.grad = part.view_as(parameter)
        for parameter, (indices, values) in zip(sparse, gathers, strict=True):
            parameter.grad = torch.sparse_coo_tensor(
                self.hvd.synchronize(indices)[None],
                self.hvd.synchronize(values) / total,
                parameter.shape,
                check_invariants=False,
            ).coalesce()
        for parameter in summed:
            if parameter.grad is not None:
                parameter.grad = parameter.grad / total
        self.communication_seconds += time.perf_counter() - start
        return [float(number) for number in numbers]

    def _gather(self, gradient: Tensor, place: int) -> tuple[Any, Any]:
        rows, values = gradient.indices()[0], gradient.values()
        self._sends(rows, values)
        return (
            self.hvd.allgather_async(rows, name=f"rows.{place}"),
            self.hvd.allgather_async(values, name=f"values.{place}"),
        )

    def _sends(self, *tensors: Tensor) -> None:
        self.communication_bytes += sum(one.numel() * one.element_size() for one in tensors)

    def all_to_all(self, rows: Tensor, counts: Sequence[int]) -> tuple[Tensor, list[int]]:
        """One collective."""
        start = time.perf_counter()
        first = sum(counts[: self.rank])
        self._sends(rows[:first], rows[first + counts[self.rank] :])  # its own stay where they are
        splits = torch.tensor(counts, dtype=torch.int32)
        came, came_counts = self.hvd.alltoall(rows, splits=splits, name="rows")
        self.communication_seconds += time.perf_counter() - start
        return came, came_counts.tolist()

    def heartbeat(self, at: str) -> None:
        """Tell the watchdog."""
        self.watchdog.heartbeat(at)

    def sum(self, values: Sequence[float]) -> list[float]:
        """One collective."""
        vector = torch.tensor(list(values), dtype=torch.float64)
        total = self.hvd.allreduce(vector, op=self.hvd.Sum, name="sum")
        return [float(value) for value in total]


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        raise ValueError("a parameter without gradient has nothing to send")
    return parameter.grad


class WorkersFailed(JobFailed):
    """Workers could not begin, or one has ended before its work was done and has said why."""


def launch(
    work: Callable[[Workers], Result], num_workers: int, stall_seconds: float = 300.0
) -> Result:
    """Run `work` on so many workers and give worker 0's result.

    One worker runs here; several run in Spark's executors, one a slot, started by Horovod. There,
    one that comes no further for `stall_seconds` is ended.

    Raises:
        WorkersFailed: one of several has ended before its work was done, so that all have; or
            they have not all begun within 10 minutes.
    """
    if num_workers == 1:
        return work(SingleWorker())
    import cloudpickle
    import horovod.spark
    from horovod.runner.common.util.timeout import TimeoutException

    context = SparkContext.getOrCreate()
    shipped = _shipped(partial(_work_of_one, work, stall_seconds), _archives(context))
    errors = _WorkerOutput(sys.stderr)
    try:
        with _ends_of_sparks_job(errors.ends):
            results: list[bytes] = horovod.spark.run(
                shipped,
                num_proc=num_workers,
                use_gloo=True,
                executable=context.pythonExec,  # that of Spark's own tasks, not the driver's
                stdout=_WorkerOutput(sys.stdout),
                stderr=errors,
                verbose=0,
                prefix_output_with_timestamp=False,
            )
    except TimeoutException as error:
        raise WorkersFailed(
            f"expected {num_workers} tasks of Spark to begin at once, one for each worker, and "
            "they have not: are other jobs in these slots, or executors missing? Give Spark more "
            f"slots, or try again when they are free. Horovod says: {error}"
        ) from error
    except Exception as error:
        told = "; ".join(errors.ends) or "what they said stands above"
        raise WorkersFailed(
            f"one of {num_workers} workers has ended before its work was done, and the others with "
            f"it; {told}. Horovod says: {' '.join(str(error).split())}"
        ) from error
    result: Result = cloudpickle.loads(results[0])
    return result


@contextmanager
def _ends_of_sparks_job(ends: list[str]) -> Iterator[None]:
    """Add why Spark's job has failed to `ends`, in a line: executors without Horovod, say.

    Horovod runs that job in a thread, of which Python would write a screen of traceback instead.
    """
    before = threading.excepthook

    def hook(raised: threading.ExceptHookArgs) -> None:
        if raised.thread is None or not raised.thread.name.endswith("(run_spark)"):
            before(raised)
        elif raised.exc_value is not None:
            end = in_a_line(raised.exc_value)
            if "cancelled job group horovod" not in end:  # by Horovod, once a worker has ended
                ends.append(f"Spark says: {end}")

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


class _WorkerOutput:
    """What workers print, on the driver: worker 0's as it is, the others' with their number.

    Attributes:
        ends: of what workers have ended, as far as they or their watchdogs have said so.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.ends: list[str] = []

    def write(self, text: str) -> None:
        """Write lines that Horovod has marked with the worker that they came from."""
        # So begin the last words of `unpack` and of a watchdog.
        self.ends += re.findall(r"(?m)^\[\d+\]<stderr>:(worker \d+ has .*)$", text)
        self.stream.write(re.sub(r"\[0\]<std(out|err)>:", "", text))

    def flush(self) -> None:
        """Flush the driver's own stream."""
        self.stream.flush()


def _archives(context: SparkContext) -> list[str]:
    """Where an executor may have what spark-submit was given as --py-files.

    In the folder that it began in, by their names, or, on this machine, where they were.
    """
    given = context.getConf().get("spark.submit.pyFiles", "") or ""
    paths = [urlsplit(one).path for one in given.split(",") if one]
    return [*(path.rpartition("/")[2] for path in paths), *paths]


def _shipped(work: Callable[[], Any], archives: Sequence[str]) -> Callable[[], bytes]:
    """Work as a function that a process can load which does not know this package yet.

    Spark makes archives of Python files known to its own tasks alone, which Horovod's processes
    are not. A function within a function travels whole, others as a name to be imported. The
    result travels as bytes, since it passes through a task of Spark's that needs nothing of it, and
    would wait 3 s for torch to know its classes.
    """
    import cloudpickle

    pickled = cloudpickle.dumps(work)

    def unpack() -> bytes:
        # Horovod says where the executor began.
        found = (os.path.join(os.environ["HOROVOD_SPARK_WORK_DIR"], path) for path in archives)
        sys.path[1:1] = [path for path in found if os.path.exists(path)]
        try:
            result: bytes = cloudpickle.dumps(cloudpickle.loads(pickled)())
        except Exception as error:
            kind = type(error).__name__
            if kind != "HorovodInternalError":  # else another has ended, and says why
                # Not by `in_a_line`: it may be this package that cannot be loaded.
                told = " ".join(f"{kind}: {error}".split())
                print(f"worker {os.environ['HOROVOD_RANK']} has failed: {told}", file=sys.stderr)
            raise
        return result

    return unpack


def _work_of_one(work: Callable[[Workers], Result], stall_seconds: float) -> Result | None:
    workers = HorovodWorkers(stall_seconds)
    result = work(workers)
    return result if workers.rank == 0 else None
