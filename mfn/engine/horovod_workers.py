"""Several workers as Horovod processes, which are started in Spark's executors.

This is the only module that imports Horovod.
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
    """One of several processes that Horovod connects; its watchdog kills it when it stalls."""

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
        values: Sequence[float] = (),
        summed: Sequence[nn.Parameter] = (),
    ) -> list[float]:
        """Send dense gradients and the values as one vector, sparse ones as distinct rows."""
        start = time.perf_counter()
        for parameter in parameters:
            if parameter.grad is None:  # unused in this batch, perhaps used on another worker
                parameter.grad = torch.zeros_like(parameter)
        dense = [p for p in parameters if not _gradient(p).is_sparse]
        sparse = [p for p in parameters if _gradient(p).is_sparse]
        # The sparse gradients are gathered in the background, meanwhile the dense ones are summed.
        gathers = [self._gather(coalesced(_gradient(p)), index) for index, p in enumerate(sparse)]
        numbers = torch.tensor([weight, *values], dtype=torch.float32)
        # All dense gradients, flat, then the weight and the values.
        vector = torch.cat([*(_gradient(p).reshape(-1) for p in dense), numbers])
        self._count_bytes(vector)
        vector = self.hvd.allreduce(vector, op=self.hvd.Sum, name="dense")
        gradients, numbers = vector[: -len(numbers)], vector[-len(numbers) :]
        total = float(numbers[0])
        parts = torch.split(gradients / total, [p.numel() for p in dense])
        for parameter, part in zip(dense, parts, strict=True):
            parameter.grad = part.view_as(parameter)
        # A row that several workers have sent comes several times; coalesce adds these up.
        for parameter, (rows, row_gradients) in zip(sparse, gathers, strict=True):
            parameter.grad = torch.sparse_coo_tensor(
                self.hvd.synchronize(rows)[None],
                self.hvd.synchronize(row_gradients) / total,
                parameter.shape,
                check_invariants=False,
            ).coalesce()
        for parameter in summed:
            if parameter.grad is not None:
                parameter.grad = parameter.grad / total
        self.communication_seconds += time.perf_counter() - start
        return [float(number) for number in numbers]

    def _gather(self, gradient: Tensor, index: int) -> tuple[Any, Any]:
        """Start to gather a sparse gradient from all workers; handles of its rows and values."""
        rows, values = gradient.indices()[0], gradient.values()
        self._count_bytes(rows, values)
        return (
            self.hvd.allgather_async(rows, name=f"rows.{index}"),
            self.hvd.allgather_async(values, name=f"values.{index}"),
        )

    def _count_bytes(self, *tensors: Tensor) -> None:
        self.communication_bytes += sum(one.numel() * one.element_size() for one in tensors)

    def all_to_all(self, rows: Tensor, counts: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Exchange the rows in one collective."""
        start = time.perf_counter()
        first = sum(counts[: self.rank])
        # Rows for this worker itself are not sent.
        self._count_bytes(rows[:first], rows[first + counts[self.rank] :])
        splits = torch.tensor(counts, dtype=torch.int32)
        received, received_counts = self.hvd.alltoall(rows, splits=splits, name="rows")
        self.communication_seconds += time.perf_counter() - start
        return received, received_counts.tolist()

    def heartbeat(self, at: str) -> None:
        """Report to the watchdog."""
        self.watchdog.heartbeat(at)

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sum in one collective."""
        vector = torch.tensor(list(values), dtype=torch.float64)
        total = self.hvd.allreduce(vector, op=self.hvd.Sum, name="sum")
        return [float(value) for value in total]


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        raise ValueError("expected a gradient to send, got a parameter without one")
    return parameter.grad


class WorkersFailed(JobFailed):
    """Workers could not start, or one failed before its work was done; the message says why."""


def launch(
    work: Callable[[Workers], Result], num_workers: int, stall_seconds: float = 300.0
) -> Result:
    """Run `work` on `num_workers` workers and return worker 0's result.

    One worker runs in this process. Several run in Spark's executors, one per slot, started by
    Horovod; there, a worker that makes no progress for `stall_seconds` is killed.

    Raises:
        WorkersFailed: one of several workers failed, so all were stopped; or not all of them
            started within 10 minutes.
    """
    if num_workers == 1:
        return work(SingleWorker())
    import cloudpickle
    import horovod.spark
    from horovod.runner.common.util.timeout import TimeoutException

    context = SparkContext.getOrCreate()
    shipped = _shippable(partial(_run_worker, work, stall_seconds), _archives(context))
    errors = _WorkerOutput(sys.stderr)
    try:
        with _spark_failures(errors.failures):
            results: list[bytes] = horovod.spark.run(
                shipped,
                num_proc=num_workers,
                use_gloo=True,
                executable=context.pythonExec,  # the Python of Spark's tasks, not the driver's
                stdout=_WorkerOutput(sys.stdout),
                stderr=errors,
                verbose=0,
                prefix_output_with_timestamp=False,
            )
    except TimeoutException as error:
        raise WorkersFailed(
            f"expected {num_workers} Spark tasks to start together, one for each worker, but not "
            "all of them started: do other jobs hold the slots, or are executors missing? Give "
            f"Spark more slots, or retry when they are free. Horovod says: {error}"
        ) from error
    except Exception as error:
        reasons = "; ".join(errors.failures) or "see the output of the workers above"
        raise WorkersFailed(
            f"one of {num_workers} workers failed before its work was done, so all were stopped; "
            f"{reasons}. Horovod says: {' '.join(str(error).split())}"
        ) from error
    result: Result = cloudpickle.loads(results[0])
    return result


@contextmanager
def _spark_failures(failures: list[str]) -> Iterator[None]:
    """Add to `failures`, in one line, why Spark's job failed: executors without Horovod, say.

    Horovod runs that job in a thread; without this, Python would print the thread's traceback.
    """
    previous_hook = threading.excepthook

    def hook(raised: threading.ExceptHookArgs) -> None:
        if raised.thread is None or not raised.thread.name.endswith("(run_spark)"):
            previous_hook(raised)
        elif raised.exc_value is not None:
            reason = in_a_line(raised.exc_value)
            # Horovod cancels the job once a worker has failed; that is not the reason.
            if "cancelled job group horovod" not in reason:
                failures.append(f"Spark says: {reason}")

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = previous_hook


class _WorkerOutput:
    """The workers' output on the driver: worker 0's as it is, others' with their number.

    Attributes:
        failures: why workers failed, as they or their watchdogs have printed it.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.failures: list[str] = []

    def write(self, text: str) -> None:
        """Write lines, which Horovod has marked with the number of their worker."""
        # The messages of `unpack` and of a watchdog start with "worker N has".
        self.failures += re.findall(r"(?m)^\[\d+\]<stderr>:(worker \d+ has .*)$", text)
        self.stream.write(re.sub(r"\[0\]<std(out|err)>:", "", text))

    def flush(self) -> None:
        """Flush the driver's own stream."""
        self.stream.flush()


def _archives(context: SparkContext) -> list[str]:
    """Paths at which an executor may find the files of spark-submit's --py-files.

    They are in its working folder, by name; on this machine, also at their own paths.
    """
    given = context.getConf().get("spark.submit.pyFiles", "") or ""
    paths = [urlsplit(one).path for one in given.split(",") if one]
    return [*(path.rpartition("/")[2] for path in paths), *paths]


def _shippable(work: Callable[[], Any], archives: Sequence[str]) -> Callable[[], bytes]:
    """Work as a function that a process can load even if it cannot import this package yet.

    Spark puts archives of Python files on the path of its own tasks only, and Horovod's processes
    are not its tasks. cloudpickle sends a nested function by value, other functions by name. The
    result is sent as bytes, because it passes through a Spark task that does not use it: to
    unpickle it there, the task would have to import torch, which takes 3 s.
    """
    import cloudpickle

    pickled = cloudpickle.dumps(work)

    def unpack() -> bytes:
        # Horovod sets this variable to the executor's working folder.
        paths = (os.path.join(os.environ["HOROVOD_SPARK_WORK_DIR"], path) for path in archives)
        sys.path[1:1] = [path for path in paths if os.path.exists(path)]
        try:
            result: bytes = cloudpickle.dumps(cloudpickle.loads(pickled)())
        except Exception as error:
            kind = type(error).__name__
            if kind != "HorovodInternalError":  # otherwise another worker failed and prints why
                # Without `in_a_line`: perhaps this package itself cannot be imported.
                reason = " ".join(f"{kind}: {error}".split())
                print(f"worker {os.environ['HOROVOD_RANK']} has failed: {reason}", file=sys.stderr)
            raise
        return result

    return unpack


def _run_worker(work: Callable[[Workers], Result], stall_seconds: float) -> Result | None:
    workers = HorovodWorkers(stall_seconds)
    result = work(workers)
    return result if workers.rank == 0 else None
