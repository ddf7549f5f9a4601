"""Entity vectors from text instead of clicks: from a file of word vectors, or from Word2Vec.

Legend: V entities of the vocabulary, D width of a field's embedding, W width of the file's vectors.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from pyspark.ml.feature import Word2Vec
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from torch import Tensor

from mfn.errors import DataRefused
from mfn.indices import FIRST_INDEX
from mfn.locations import for_spark
from mfn.logs.title_words import normal, tokens
from mfn.pretraining.frozen import FieldVectors
from mfn.settings import EmbeddingSettings


def from_file(
    spark: SparkSession, path: str, entries: DataFrame, size: int, settings: EmbeddingSettings
) -> FieldVectors:
    """Entity vectors from a file of word vectors, reduced to D principal components (PCA).

    A line of the file is a word and its W numbers, separated by spaces, as in GloVe's files
    (Pennington et al., 2014), in lower case. An entity gets the mean of those that it consists of
    (`mfn.logs.title_words`), and of the line for the whole entity, if the file has it.

    One shuffle, by word, unless the words of the vocabulary can be broadcast.

    Args:
        spark: the session.
        path: a file, or a folder of such files, that Spark can read.
        entries: columns key and index of the entities.
        size: V, the size of the vocabulary.
        settings: D and the standard deviation of the vectors.

    Raises:
        DataRefused: lines differ in length, W is less than D, a number is not finite, or the file
            has words of fewer than D entities.
    """
    # One row per word of an entity. The whole entity counts as one too: a file can have t-shirt, or
    # a Thai word of many characters.
    words = (
        entries.select("index", normal(F.col("key")).alias("whole"))
        .select(
            "index",
            F.explode(F.array_distinct(F.concat(F.array("whole"), tokens(F.col("whole"))))).alias(
                "word"
            ),
        )
        .where(F.col("word") != "")
    )
    # Lines of the file to (word, numbers); what is not a number becomes NaN and is refused below.
    parts = F.split("value", " ")
    lines = spark.read.text(for_spark(path)).select(
        F.get(parts, F.lit(0)).alias("word"),
        F.transform(
            F.slice(parts, 2, F.greatest(F.size(parts) - 1, F.lit(0))),
            lambda number: F.coalesce(number.try_cast("double"), F.lit(float("nan"))),
        ).alias("numbers"),
    )
    found = (
        words.join(lines, "word", how="inner")
        .select("index", "numbers")
        .orderBy("index", "numbers")
        .toPandas()
    )
    widths = sorted({len(numbers) for numbers in found["numbers"]})
    if len(widths) != 1 or widths[0] < settings.dimension:
        raise DataRefused(
            f"{path}: expected entity words with vectors of one width, at least "
            f"embeddings.dimension {settings.dimension}, got widths {widths} in {len(found)} "
            "lines; each line must be a word and its numbers, separated by spaces"
        )
    numbers_nW = np.array(found["numbers"].tolist())
    if not np.isfinite(numbers_nW).all():
        raise DataRefused(f"{path}: expected finite numbers after each word")
    # Mean of the word vectors of each entity, [V, W].
    entity_n = torch.from_numpy(found["index"].to_numpy(dtype=np.int64))
    total_VW = torch.zeros(size, widths[0], dtype=torch.double)
    total_VW.index_add_(0, entity_n, torch.from_numpy(numbers_nW))
    count_V = torch.bincount(entity_n, minlength=size)
    known_V = count_V > 0
    if int(known_V.sum()) < settings.dimension:
        raise DataRefused(
            f"{path}: expected words of at least {settings.dimension} entities "
            f"(embeddings.dimension), got {int(known_V.sum())}"
        )
    mean_VW = total_VW / count_V.clamp(min=1)[:, None]
    from sklearn.decomposition import PCA  # here, because the import takes 2 s

    components = PCA(settings.dimension, svd_solver="full")
    return _scaled(
        torch.from_numpy(components.fit_transform(mean_VW[known_V].numpy())), known_V, settings
    )


def from_titles(items: DataFrame, size: int, settings: EmbeddingSettings) -> FieldVectors:
    """Entity vectors by Spark's Word2Vec (Mikolov et al., 2013); an item's entities are a sentence.

    In one partition, so that the same catalogue gives the same vectors.

    Args:
        items: the item table.
        size: V, the size of the vocabulary.
        settings: D, the standard deviation of the vectors, and the seed.

    Raises:
        DataRefused: no item has an entity.
    """
    real = F.filter("entities", lambda index: index >= FIRST_INDEX)
    sentences = (
        items.select("item", "key", real.cast("array<string>").alias("words"))
        .where(F.size("words") > 0)
        # Versions of an item with the same words are one sentence.
        .groupBy("key", "words")
        .agg(F.min("item").alias("item"))
        .repartition(1)
        .sortWithinPartitions("item")
        .select("words")
    )
    if sentences.isEmpty():
        raise DataRefused(
            "embeddings.words: word2vec expects items with entities or titles, got none"
        )
    learnt = Word2Vec(
        vectorSize=settings.dimension, minCount=1, seed=settings.seed, maxIter=5, inputCol="words"
    ).fit(sentences)
    rows: Mapping[int, np.ndarray] = {
        int(row["word"]): row["vector"].toArray() for row in learnt.getVectors().collect()
    }
    known_V = torch.zeros(size, dtype=torch.bool)
    known_V[list(rows)] = True
    vectors = np.stack([rows[index] for index in sorted(rows)])
    return _scaled(torch.from_numpy(vectors), known_V, settings)


def _scaled(vectors: Tensor, known_V: Tensor, settings: EmbeddingSettings) -> FieldVectors:
    """Scale vectors to mean 0 and the standard deviation of all initial embeddings."""
    vectors = vectors - vectors.mean(dim=0)
    std = vectors.square().mean().sqrt().clamp(min=torch.finfo(vectors.dtype).tiny)
    vectors_VD = torch.zeros(len(known_V), vectors.shape[1])
    vectors_VD[known_V] = (vectors / std * settings.initial_std).float()
    return FieldVectors(vectors_VD, known_V)
