"""Every metric of every model and slice at once, by Spark, without collecting scores.

AUC needs the order of all scores of a model. Ordering them in one task does not scale, so scores
are cut into blocks by a function that never falls as the score rises: pairs of candidates within a
block are counted there, and pairs across blocks from the totals of the blocks. Metrics that need no
order are sums, and use the same two steps (`mfn.metrics`).

`aggregate` takes two shuffles, whatever the number of models, slices and metrics: the candidates by
(model, block), and the totals of the blocks, at most BLOCKS for each model and slice. Slices are
unfolded after the first shuffle, so that a candidate crosses the network once. Pairs are counted in
whole numbers and losses added as decimals, so the order in which rows arrive changes no digit.

`count_requests` takes two more: the candidates of a request have to meet so that the request counts
once, and then come the sums by model and slice. Both carry rows that are summed on the map side.
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
"""Blocks of scores. Empty ones cost nothing; a power of two keeps the product below exact."""

ALL = "all"
HISTORY_LENGTH = "history_length"

_COUNT = DecimalType(38, 0)
_FINGERPRINT = DecimalType(19, 0)


@dataclass(frozen=True)
class Slice:
    """A part of the candidates: slice and slice_value of the tables, and the SQL of who is in."""

    name: str
    value: str
    holds: str


def slices(history_edges: Sequence[int]) -> list[Slice]:
    """All candidates, and the buckets of history_length, shortest first.

    Args:
        history_edges: rising lower ends of the buckets after the first, which starts at 0; the
            last has no upper end. (1, 10, 50) gives 0, 1-9, 10-49 and 50+.
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
    """Every metric of each model in each slice that holds any candidate.

    Args:
        scored: columns model, label (0 or 1), score (in [0, 1], not NaN) and those that the
            slices read; one row for each candidate and model.
        slices: what to measure by; they may overlap.
        metrics: what to measure.

    Returns:
        model, slice, slice_value, candidates, clicks, and a column for each metric.
    """
    # The square root gives small scores, which most click rates are, as much room as large ones.
    # Correctly rounded, it never falls; nor do the product with a power of two and the floor.
    block = F.floor(F.sqrt("score") * BLOCKS).cast("int")
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
    # The default frame of an ordered window reaches to the current row and its ties.
    up_to = Window.partitionBy("block", "model", "code").orderBy("score")
    counted = spread.select(
        "*",
        F.sum("click").over(up_to).alias("clicks_up_to"),
        F.sum("other").over(up_to).alias("others_up_to"),
    )
    by_block = counted.groupBy("block", "model", "code").agg(
        F.sum("click").alias("clicks"),
        F.sum("other").alias("others"),
        *(metric.of_block().alias(metric.name) for metric in metrics),
    )
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
    """How many requests and candidates each model scored in each slice, and whether well.

    Args:
        scored: columns model, request_id, item_id, label, score and those that the slices read;
            one row a candidate and model.
        slices: what to count by; they may overlap.

    Returns:
        model, slice, slice_value, requests, candidates, fingerprint (of requests, items and
        labels; it does not depend on the order of rows), bad_scores (null, NaN or outside [0, 1])
        and bad_labels (neither 0 nor 1).
    """
    # NaN is larger than any number in Spark, so it is not between 0 and 1.
    good_score = F.coalesce(F.col("score").between(0, 1), F.lit(False))
    good_label = F.coalesce(F.col("label").isin(0, 1), F.lit(False))
    sums = [
        F.sum(name).alias(name)
        for name in ("candidates", "fingerprint", "bad_scores", "bad_labels")
    ]
    return (
        scored.select(
            "model",
            "request_id",
            _codes(slices),
            F.lit(1).alias("candidates"),
            F.xxhash64("request_id", "item_id", "label").cast(_FINGERPRINT).alias("fingerprint"),
            (~good_score).cast("int").alias("bad_scores"),
            (~good_label).cast("int").alias("bad_labels"),
        )
        .groupBy("model", "code", "request_id")
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
    """A row for each slice that holds the candidate; a number sorts faster than two names."""
    codes = [F.when(F.expr(one.holds), F.lit(code)) for code, one in enumerate(slices)]
    return F.explode(F.array_compact(F.array(*codes))).alias("code")


def _names(slices: Sequence[Slice]) -> list[Column]:
    def pick(values: Sequence[str]) -> Column:
        return F.get(F.array(*[F.lit(value) for value in values]), F.col("code"))

    return [
        pick([one.name for one in slices]).alias("slice"),
        pick([one.value for one in slices]).alias("slice_value"),
    ]
