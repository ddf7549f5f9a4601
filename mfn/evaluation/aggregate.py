"""All metrics of all models and slices in one Spark aggregation, without collecting scores.

AUC needs the order of all scores of a model. One task cannot sort them all for large data. So
scores are cut into blocks by a monotonic function of the score. Pairs of candidates within a block
are counted in that block. Pairs across blocks follow from the totals of the blocks. Metrics that
need no order are sums and use the same two steps (`mfn.metrics`).

`aggregate` takes two shuffles for any number of models, slices and metrics: the candidates by
(model, block), then the totals of the blocks, at most BLOCKS for each model and slice. Candidates
are copied into their slices after the first shuffle, so each crosses the network once. Pairs are
counted in integers and losses are summed as decimals, so the result does not depend on the order
of rows.

`count_requests` takes two more shuffles: by request, so that each request counts once, and then by
model and slice. Both shuffle only rows that were summed on the map side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import DecimalType

from mfn.metrics import METRICS, Metric

BLOCKS = 4096
"""Number of blocks. Empty blocks cost nothing. With a power of two, `sqrt(score) * BLOCKS` is
exact."""

ALL = "all"
HISTORY_LENGTH = "history_length"

_COUNT = DecimalType(38, 0)
_FINGERPRINT = DecimalType(19, 0)


@dataclass(frozen=True)
class Slice:
    """A subset of the candidates.

    Attributes:
        name: column `slice` of the tables.
        value: column `slice_value` of the tables.
        holds: SQL condition that selects its candidates.
    """

    name: str
    value: str
    holds: str


def slices(history_edges: Sequence[int]) -> list[Slice]:
    """The slice of all candidates, then the buckets of history_length, shortest first.

    Args:
        history_edges: lower ends of all buckets but the first, ascending. The first bucket starts
            at 0 and the last has no upper end: (1, 10, 50) gives 0, 1-9, 10-49 and 50+.
    """
    parts = [Slice(ALL, ALL, "true")]
    for first, end in pairwise([0, *history_edges]):
        name = str(first) if first == end - 1 else f"{first}-{end - 1}"
        holds = f"history_length BETWEEN {first} AND {end - 1}"
        parts.append(Slice(HISTORY_LENGTH, name, holds))
    last = history_edges[-1]
    return [*parts, Slice(HISTORY_LENGTH, f"{last}+", f"history_length >= {last}")]


def aggregate(
    scored: DataFrame, slices: Sequence[Slice], metrics: Sequence[Metric] = METRICS
) -> DataFrame:
    """Compute all metrics of each model in each slice that has candidates.

    Args:
        scored: one row per candidate and model, with the columns model, label (0 or 1), score
            (in [0, 1], not NaN) and the columns that the slices read.
        slices: subsets to measure; they may overlap.
        metrics: metrics to compute.

    Returns:
        model, slice, slice_value, candidates, clicks, and one column per metric.
    """
    # Most click probabilities are small. The square root spreads small scores over more blocks.
    # It is correctly rounded, so it is monotonic, as are the product with a power of two and floor.
    block = F.floor(F.sqrt("score") * BLOCKS).cast("int")
    # First shuffle: one row per candidate and slice, all rows of a (model, block) in one partition.
    spread = (
        scored.withColumn("block", block)
        .repartition("model", "block")
        .select(
            "model",
            "block",
            _codes(slices),
            "score",
            "label",
            F.col("label").cast("long").alias("click"),
            (1 - F.col("label")).cast("long").alias("other"),
        )
    )
    # An ordered window's default frame ends with the current row and its ties.
    up_to = Window.partitionBy("block", "model", "code").orderBy("score")
    counted = spread.select(
        "*",
        F.sum("click").over(up_to).alias("clicks_up_to"),
        F.sum("other").over(up_to).alias("others_up_to"),
    )
    # Still within a partition: one row per block, model and slice.
    by_block = counted.groupBy("block", "model", "code").agg(
        F.sum("click").alias("clicks"),
        F.sum("other").alias("others"),
        *(metric.of_block().alias(metric.name) for metric in metrics),
    )
    # Second shuffle: all blocks of a model and slice. Each block adds up the blocks below it.
    below = (
        Window.partitionBy("model", "code")
        .orderBy("block")
        .rowsBetween(Window.unboundedPreceding, -1)
    )
    others_below = F.coalesce(F.sum("others").over(below), F.lit(0)).cast(_COUNT)
    clicks, others = F.sum("clicks"), F.sum("others")
    return (
        by_block.withColumn("others_below", others_below)
        .groupBy("model", "code")
        .agg(
            (clicks + others).alias("candidates"),
            clicks.alias("total_clicks"),
            *(metric.value().alias(metric.name) for metric in metrics),
        )
        .select(
            "model",
            *_names(slices),
            "candidates",
            F.col("total_clicks").alias("clicks"),
            *(metric.name for metric in metrics),
        )
    )


def count_requests(scored: DataFrame, slices: Sequence[Slice]) -> DataFrame:
    """Count requests, candidates and invalid values of each model in each slice.

    Args:
        scored: one row per candidate and model, with the columns model, user_id, request_id,
            request_time, item_id, label, score and the columns that the slices read. A request is
            one user, request id and time.
        slices: subsets to count; they may overlap.

    Returns:
        model, slice, slice_value, requests, candidates, fingerprint (of users, request ids, item
        ids and labels; independent of the order of rows), bad_scores (null, NaN or outside [0, 1])
        and bad_labels (neither 0 nor 1).
    """
    # Spark sorts NaN above all numbers, so NaN is not between 0 and 1.
    good_score = F.coalesce(F.col("score").between(0, 1), F.lit(False))
    good_label = F.coalesce(F.col("label").isin(0, 1), F.lit(False))
    sums = [
        F.sum(name).alias(name)
        for name in ("candidates", "fingerprint", "bad_scores", "bad_labels")
    ]
    request = ("user_id", "request_id", "request_time")
    return (
        scored.select(
            "model",
            *request,
            _codes(slices),
            F.lit(1).alias("candidates"),
            F.xxhash64("user_id", "request_id", "item_id", "label")
            .cast(_FINGERPRINT)
            .alias("fingerprint"),
            (~good_score).cast("int").alias("bad_scores"),
            (~good_label).cast("int").alias("bad_labels"),
        )
        .groupBy("model", "code", *request)
        .agg(*sums)
        .groupBy("model", "code")
        .agg(F.count("*").alias("requests"), *sums)
        .select(
            "model",
            *_names(slices),
            "requests",
            "candidates",
            "fingerprint",
            "bad_scores",
            "bad_labels",
        )
    )


def _codes(slices: Sequence[Slice]) -> Column:
    """One row per slice of a candidate. A slice is a number here: it sorts faster than names."""
    codes = [F.when(F.expr(one.holds), F.lit(code)) for code, one in enumerate(slices)]
    return F.explode(F.array_compact(F.array(*codes))).alias("code")


def _names(slices: Sequence[Slice]) -> list[Column]:
    """Columns slice and slice_value from the column code."""

    def pick(values: Sequence[str]) -> Column:
        return F.get(F.array(*[F.lit(value) for value in values]), F.col("code"))

    return [
        pick([one.name for one in slices]).alias("slice"),
        pick([one.value for one in slices]).alias("slice_value"),
    ]
