"""Candidates that nobody chose, for data sets that tell only what was chosen.

**The law.** Beside each chosen item of a request `each` unseen items are drawn, without
replacement, among the items that anybody chose before the request's day, by their popularity on
those earlier days. What the request itself holds, and what its user chose before it or at the
same moment, is never drawn. It is the same law in every window, and it looks at nothing after the
request: what its user chooses later, a reader of the log could not have known, so it may well be
drawn. On the first day nothing is popular yet and nothing is drawn; on the next ones there may be
fewer unseen items than are asked for.

**How.** A choice taken evenly among all earlier ones is an item taken by its popularity. So choices
are numbered, day by day; a request takes as many numbers below those of its day as it needs, with
some to spare for the items that are not unseen; and a plain join tells which items those are.
Numbers are hashes of the seed, the user, the moment and the draw, and do not depend on how Spark
cuts the data.

Five shuffles: by day to number the choices, by moment to make the requests, by number to look the
choices up, by user and item to leave out what is seen, by request to keep what is asked for.
"""

from __future__ import annotations

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

SPARE = 8
"""Draws for each item that is asked for. On MovieLens-100k, where some users have rated half of
what there is, 4 leave some 70 of 396,340 places empty, and 8 leave 2."""


def draw(chosen: DataFrame, each: int, seed: int, beside: str | None = None) -> DataFrame:
    """Unseen items for every request.

    Args:
        chosen: a row a choice: `dt` (the day), `user_id`, `moment` (a whole number that grows
            with time, and lies in the day), `item_id`, each such row once. The choices of one user
            at one moment are a request.
        each: items drawn for each one chosen.
        seed: of what is drawn.
        beside: the boolean column that says beside which choices items are drawn; None: all.

    Returns:
        `dt`, `user_id`, `moment`, `item_id`; of a request each item once.
    """
    request = ["dt", "user_id", "moment"]
    asked = F.count("*") if beside is None else F.count_if(beside)
    by_day = chosen.groupBy("dt").agg(F.count("*").alias("choices"))
    # A row a day, in one partition: their number is the calendar's, not the data's.
    earlier_days = Window.orderBy("dt").rowsBetween(Window.unboundedPreceding, -1)
    days = by_day.select(
        "dt", F.coalesce(F.sum("choices").over(earlier_days), F.lit(0)).alias("earlier")
    )
    days = F.broadcast(days)
    in_day = Window.partitionBy("dt").orderBy("moment", "user_id", "item_id")
    numbered = (
        chosen.withColumn("place", F.row_number().over(in_day))
        .join(days, "dt", how="inner")
        .select((F.col("earlier") + F.col("place") - 1).alias("number"), "item_id")
    )
    places = F.sequence(F.lit(1), (F.col("wanted") * SPARE).cast("int"))
    draws = (
        chosen.groupBy(*request)
        .agg((asked * each).alias("wanted"))
        .join(days, "dt", how="inner")
        .where((F.col("earlier") > 0) & (F.col("wanted") > 0))
        .select(*request, "wanted", "earlier", F.explode(places).alias("draw"))
        .withColumn(
            "number",
            F.pmod(F.xxhash64(F.lit(seed), "user_id", "moment", "draw"), F.col("earlier")),
        )
    )
    seen = chosen.groupBy("user_id", "item_id").agg(F.min("moment").alias("since"))
    unseen = (
        draws.join(numbered, "number", how="inner")
        .join(seen, ["user_id", "item_id"], how="left")
        .where(F.col("since").isNull() | (F.col("since") > F.col("moment")))
        .groupBy(*request, "wanted", "item_id")
        .agg(F.min("draw").alias("draw"))
    )
    order = Window.partitionBy(*request).orderBy("draw")
    return (
        unseen.withColumn("place", F.row_number().over(order))
        .where(F.col("place") <= F.col("wanted"))
        .select(*request, "item_id")
    )
