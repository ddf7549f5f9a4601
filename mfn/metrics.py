"""The table of metrics: everything that is measured of a model, one entry for each metric.

The Spark aggregation, the columns of `evaluation/metrics`, the terminal and the page all read this
table. To add a metric that is a sum over candidates or over pairs of candidates, add an entry to
METRICS and a test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.types import DecimalType

CLIP = 1e-15
"""Scores are kept this far from 0 and 1 in the log loss, or one sure miss would be infinite."""

_COUNT = DecimalType(38, 0)
_LOSS = DecimalType(18, 15)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric: what it is, how Spark aggregates it, how people see it.

    Candidates are aggregated in two steps. Scores are cut into blocks (`mfn.evaluation.aggregate`);
    `of_block` aggregates the candidates of one block and slice, `value` the blocks of one slice.

    Attributes:
        name: the column of `evaluation/metrics`.
        title: what people read.
        unit: unit or range.
        comment: the column's comment, without the unit.
        explanation: what the number means, for the page.
        decimals: how many are shown.
        higher_is_better: whether a better model has the larger value.
        needs_probabilities: whether scores have to be probabilities; else their order is enough.
        of_block: an aggregate of candidates, from the columns `label`, `score`, `click` and
            `other` (1 or 0), and `clicks_up_to` and `others_up_to` (clicked and unclicked
            candidates of the block with the same score or a lower one).
        value: an aggregate of blocks, from the columns `clicks`, `others`, `others_below`
            (unclicked candidates of lower blocks), and this metric's name, which holds `of_block`.
    """

    name: str
    title: str
    unit: str
    comment: str
    explanation: str
    decimals: int
    higher_is_better: bool
    needs_probabilities: bool
    of_block: Callable[[], Column]
    value: Callable[[], Column]


def _twice_the_pairs_won_in_block() -> Column:
    """Twice, so that half a pair is a whole number.

    A click adds the others below it or tied, and those strictly below it: all pairs less those in
    which it is below or tied.
    """
    click = F.col("click") == 1
    won = F.when(click, F.col("others_up_to")).otherwise(-F.col("clicks_up_to"))
    return F.sum(won) + F.sum("click") * F.sum("other")


def _share_of_pairs_won() -> Column:
    across_blocks = 2 * F.col("clicks").cast(_COUNT) * F.col("others_below")
    won = F.sum(F.col("auc") + across_blocks).cast("double")
    clicks, others = F.sum("clicks"), F.sum("others")
    pairs = clicks.cast("double") * others.cast("double")
    return F.when((clicks > 0) & (others > 0), won / (2 * pairs))


AUC = Metric(
    name="auc",
    title="AUC",
    unit="0 to 1; 0.5 is chance",
    comment="exact area under the ROC curve over all candidates, ties count as half; null unless "
    "both labels occur",
    explanation="Take one clicked and one unclicked candidate of the test window at random: AUC is "
    "how often the model gives the clicked one the higher score; a tie counts as half. Guessing "
    "gives 0.5, a perfect order gives 1. It is exact, over all pairs, and looks only at the order "
    "of the scores.",
    decimals=4,
    higher_is_better=True,
    needs_probabilities=False,
    of_block=_twice_the_pairs_won_in_block,
    value=_share_of_pairs_won,
)
"""Mann and Whitney's U over the number of pairs, counted in whole numbers."""


def _loss_in_block() -> Column:
    """Cross entropy of the candidates; as decimals, so that no order of rows changes a digit."""
    p = F.least(F.greatest(F.col("score"), F.lit(CLIP)), F.lit(1 - CLIP))
    return F.sum((-F.when(F.col("label") == 1, F.log(p)).otherwise(F.log1p(-p))).cast(_LOSS))


def _mean_loss() -> Column:
    return F.sum("logloss").cast("double") / (F.sum("clicks") + F.sum("others"))


LOG_LOSS = Metric(
    name="logloss",
    title="log loss",
    unit="nats",
    comment="mean binary cross entropy of the candidates, scores clipped; null if scores are no "
    "probabilities, as those of popularity",
    explanation="How surprised the model is by the clicks, in nats per candidate. Unlike AUC it "
    "asks whether the probabilities are right, not only their order.",
    decimals=4,
    higher_is_better=False,
    needs_probabilities=True,
    of_block=_loss_in_block,
    value=_mean_loss,
)

METRICS = (AUC, LOG_LOSS)
"""Every metric, in the order in which people see them."""
