"""Reserved indices and item fields: what models, splits and tables agree on.

This module imports nothing, so that a model can be read without Spark.
"""

PADDING, MISSING, UNKNOWN = 0, 1, 2
"""Reserved indices of every vocabulary: padding, no value given, and a value never indexed."""
FIRST_INDEX = 3
"""The index of the first value of a vocabulary."""

ITEM_FIELDS = ("item_id", "category", "shop", "brand", "price")
"""Item fields with one index each, in the order of the columns of the item table."""
