"""Reserved indices and item fields that models, splits and tables share.

This module imports nothing, so that a model can be loaded without Spark.
"""

PADDING, MISSING, UNKNOWN = 0, 1, 2
"""Reserved indices of every vocabulary: padding, no value given, a value not in the vocabulary."""
FIRST_INDEX = 3
"""The index of the first value of a vocabulary."""

ITEM_FIELDS = ("item_id", "category", "shop", "brand", "price")
"""Item fields with one index each, in the order of the columns of the item table."""
