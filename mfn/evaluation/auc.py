"""Exact AUC and log loss of every model and slice at once, by Spark, without collecting scores.

AUC is the share of pairs (clicked, not clicked) in which the clicked candidate has the higher
score, a tie counting as half: Mann and Whitney's U over the number of pairs. Ordering all scores
of a model in one task would do, but does not scale. Scores are therefore cut into blocks by a
function that never falls as the score rises; pairs within a block are counted there, and pairs
across blocks from the blocks' totals.

`areas` takes two shuffles, whatever the number of models and slices: the candidates by (model,
block), and the blocks' totals, of which there are at most BLOCKS a model and slice. Slices are
unfolded after the first, so that a candidate crosses the network once. Pairs are counted in whole
numbers and losses added as decimals, so the order in which rows arrive does not change a digit.

`count_requests` takes two more: the candidates of a request have to meet for it to be counted
once, and then come the sums by model and slice. Both carry rows summed on the map side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import DecimalType

BLOCKS = 4096
"""Blocks of scores. Empty ones cost nothing; a power of two keeps the product below exact."""

CLIP = 1e-15
"""Scores are kept this far from 0 and 1 in the log loss, or one sure miss would be infinite."""

ALL = "all"
HISTORY_LENGTH = "history_length"

_COUNT = DecimalType(38, 0)
_LOSS = DecimalType(18, 15)
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


def areas(scored: DataFrame, slices: Sequence[Slice]) -> DataFrame:
    """Exact AUC and log loss of each model in each slice that holds any candidate.

    Args:
        scored: columns model, label (0 or 1), score (in [0, 1], not NaN) and those that the
            slices read; one row a candidate and model.
        slices: what to measure by; they may overlap.

    Returns:
        model, slice, slice_value, candidates, clicks, auc (null unless both labels occur) and
        logloss (mean, in nats, of scores clipped to [CLIP, 1 - CLIP]).
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
            F.col("label").cast("long").alias("click"),
            (1 - F.col("label")).cast("long").alias("other"),
            _loss(),
        )
    )
    # The default frame of an ordered window reaches to the current row and its ties.
    up_to = Window.partitionBy("block", "model", "code").orderBy("score")
    counted = spread.select(
        "*",
        F.sum("click").over(up_to).alias("clicks_up_to"),
        F.sum("other").over(up_to).alias("others_up_to"),
    )
    # Twice the pairs won, so that half a pair is a whole number. A click adds the others below it
    # or tied, and those strictly below it: all pairs less those in which it is below or tied.
    won = F.when(F.col("click") == 1, F.col("others_up_to")).otherwise(-F.col("clicks_up_to"))
    by_block = (
        counted.groupBy("block", "model", "code")
        .agg(
            F.sum("click").alias("clicks"),
            F.sum("other").alias("others"),
            F.sum("loss").alias("loss"),
            F.sum(won).alias("won"),
        )
        .withColumn("won", F.col("won") + F.col("clicks") * F.col("others"))
    )
    below = (
        Window.partitionBy("model", "code")
        .orderBy("block")
        .rowsBetween(Window.unboundedPreceding, -1)
    )
    others_below = F.coalesce(F.sum("others").over(below), F.lit(0)).cast(_COUNT)
    clicks, others = F.col("clicks"), F.col("others")
    pairs = clicks.cast("double") * others.cast("double")
    return (
        by_block.withColumn("won", F.col("won") + 2 * clicks.cast(_COUNT) * others_below)
        .groupBy("model", "code")
        .agg(
            F.sum("clicks").alias("clicks"),
            F.sum("others").alias("others"),
            F.sum("won").cast("double").alias("won"),
            F.sum("loss").cast("double").alias("loss"),
        )
        .select(
            "model",
            *_names(slices),
            (clicks + others).alias("candidates"),
            "clicks",
            F.when((clicks > 0) & (others > 0), F.col("won") / (2 * pairs)).alias("auc"),
            (F.col("loss") / (clicks + others)).alias("logloss"),
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


def _loss() -> Column:
    """Cross entropy of one candidate in nats."""
    p = F.least(F.greatest(F.col("score"), F.lit(CLIP)), F.lit(1 - CLIP))
    return (-F.when(F.col("label") == 1, F.log(p)).otherwise(F.log1p(-p))).cast(_LOSS).alias("loss")
