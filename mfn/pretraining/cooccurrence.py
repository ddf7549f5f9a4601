"""Vectors of the values of a field from how often they stand together in users' histories.

The positive pointwise mutual information (PPMI) of each two values, and its truncated singular
value decomposition, rows U √S (Levy and Goldberg, 2014).

Legend: V values of a field, D width of a field's vectors.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from pyspark.sql import SparkSession
from torch import Tensor

from mfn.indices import FIRST_INDEX
from mfn.pretraining.frozen import FieldVectors
from mfn.pretraining.histories import latest_histories
from mfn.pretraining.pairs import Pairs, informative_pairs
from mfn.settings import EmbeddingSettings
from mfn.splits.published import Splits


def from_histories(
    spark: SparkSession,
    splits: Splits,
    values: Mapping[str, Tensor],
    settings: EmbeddingSettings,
) -> dict[str, FieldVectors]:
    """Vectors of the values of some item fields, from the histories of the pretraining rows.

    A value was met if it stands beside another one in a history.

    Args:
        spark: the session.
        splits: the pretraining rows; of each user the latest history counts.
        values: by field, the values of each row of the item table, [I] or [I, X].
        settings: D, the rules of counting, and the seed of the decomposition.
    """
    if not values:
        return {}
    sizes = splits.features.sizes
    histories = latest_histories(spark, splits, "pretraining")
    arrays = {name: one.numpy() for name, one in values.items()}
    pairs = informative_pairs(histories, arrays, sizes, settings)
    return {name: factorised(of_field, settings) for name, of_field in pairs.items()}


def factorised(pairs: Pairs, settings: EmbeddingSettings) -> FieldVectors:
    """Vectors of a field's values, of rank D at most, and less than the number of values.

    With fewer neighbours kept than there are, a pair counts if one of its values kept it.
    """
    from scipy import sparse
    from sklearn.utils.extmath import randomized_svd  # here, because the import takes 2 s

    size = len(pairs.sums_V)
    matrix = sparse.csr_matrix((pairs.information_n, (pairs.a_n, pairs.b_n)), (size, size))
    matrix = matrix.maximum(matrix.T)
    matrix.sort_indices()
    vectors_VD = torch.zeros(size, settings.dimension)
    rank = min(settings.dimension, size - FIRST_INDEX - 1)
    if rank > 0 and matrix.nnz:
        left, singular, _ = randomized_svd(matrix, rank, random_state=settings.seed)
        vectors_VD[:, :rank] = torch.from_numpy(left * np.sqrt(singular))
    return FieldVectors(vectors_VD, torch.from_numpy(pairs.sums_V > 0))
