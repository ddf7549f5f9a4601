"""Entity vectors from text, compared with numpy, and the inputs that are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyspark.sql import SparkSession

from mfn import storage
from mfn.errors import DataRefused
from mfn.indices import FIRST_INDEX
from mfn.models import artifact
from mfn.models.batch import ENTITY
from mfn.models.embedding import FrozenEmbedding
from mfn.pretraining.embeddings import pretrain_embeddings
from mfn.pretraining.frozen import FieldVectors
from mfn.pretraining.published import current_frozen
from mfn.pretraining.word_vectors import from_file, from_titles
from mfn.schema import ITEM_ROWS
from mfn.settings import EmbeddingSettings, Settings
from mfn.splits.published import Splits
from tests.synthetic import SIZES, publish_splits, publish_vocabularies

WORDS = ["red", "green", "blue", "jam", "jar", "clock", "lamp"]
ROWS = {"pretraining": [60, 50], "pretraining_validation": [30], "train": [40], "test": [20]}


def write_vectors(path: Path, width: int, words: list[str] = WORDS) -> dict[str, np.ndarray]:
    """Write a file in GloVe's format; return its vectors by word."""
    random = np.random.default_rng(3)
    vectors = {word: random.normal(size=width).round(4) for word in words}
    lines = [" ".join([word, *map(str, vector)]) for word, vector in vectors.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return vectors


def read(
    spark: SparkSession, path: Path, keys: list[str], dimension: int = 4, std: float = 0.2
) -> FieldVectors:
    rows = [(key, FIRST_INDEX + place) for place, key in enumerate(keys)]
    entries = spark.createDataFrame(rows, "key string, index int")
    settings = EmbeddingSettings(dimension=dimension, initial_std=std)
    return from_file(spark, str(path), entries, FIRST_INDEX + len(keys), settings)


KEYS = ["red", "Blue", "nowhere", "jam jar", "clock-lamp nowhere", "green", "jar", "lamp"]


def test_a_file_with_the_embedding_s_dimension_keeps_the_distances_of_its_words(
    spark: SparkSession, tmp_path: Path
) -> None:
    """An entity of several words gets their mean; words that are not in the file are unknown."""
    given = write_vectors(tmp_path / "words.txt", width=4)
    found = read(spark, tmp_path / "words.txt", KEYS)
    assert found.known_V.tolist() == [False] * 3 + [key != "nowhere" for key in KEYS]
    expected = np.stack(
        [
            given["red"], given["blue"], (given["jam"] + given["jar"]) / 2,
            (given["clock"] + given["lamp"]) / 2, given["green"], given["jar"], given["lamp"],
        ]
    )  # fmt: skip
    vectors = found.vectors_VD[found.known_V].double().numpy()
    distances, expected_distances = (
        np.linalg.norm(one[:, None] - one[None], axis=2) for one in (vectors, expected)
    )
    ratio = distances[0, 1] / expected_distances[0, 1]
    assert distances == pytest.approx(expected_distances * ratio, rel=1e-5, abs=1e-6)
    assert found.vectors_VD[~found.known_V].abs().sum() == 0


def test_entities_of_any_script_get_the_vectors_of_their_words(
    spark: SparkSession, tmp_path: Path
) -> None:
    """A file's word of many characters is found whole, beside the pairs that titles consist of."""
    words = ["café", "t-shirt", "shirt", "红色", "围巾", "กุหลาบ", "लाल", "u"]
    write_vectors(tmp_path / "words.txt", 4, words)
    same = [("CAFE\u0301", "café"), ("红色手套", "红色"), ("กุหลาบ", "กุหลาบ"), ("लाल ऊनी", "लाल")]
    keys = [*(key for pair in same for key in pair), "T-Shirt", "shirt", "v u", "色围", "u"]
    found = read(spark, tmp_path / "words.txt", keys)
    vectors = found.vectors_VD[FIRST_INDEX:]
    assert found.known_V[FIRST_INDEX:].tolist() == [True] * 10 + [False] * 2 + [True]
    assert torch.equal(vectors[0:8:2], vectors[1:8:2])
    assert not torch.equal(vectors[8], vectors[9])


def test_a_wider_file_is_reduced_to_principal_components_with_the_configured_std(
    spark: SparkSession, tmp_path: Path
) -> None:
    given = write_vectors(tmp_path / "words.txt", width=6)
    found = read(spark, tmp_path / "words.txt", WORDS, dimension=4, std=0.3)
    vectors = found.vectors_VD[found.known_V].double()
    assert float(vectors.square().mean().sqrt()) == pytest.approx(0.3, rel=1e-5)
    assert vectors.mean(dim=0).abs().max() < 1e-6
    centred = np.stack(list(given.values())) - np.stack(list(given.values())).mean(axis=0)
    _, singular, _ = np.linalg.svd(centred)
    found_singular = torch.linalg.svdvals(vectors).numpy()
    assert found_singular / found_singular[0] == pytest.approx(singular[:4] / singular[0], rel=1e-5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("red 1 2 3\nblue 2 3 4\n", r"embeddings.dimension 4, got widths \[3\]"),
        ("red 1 2 3 4\nblue 1 2 3 4 5\n", r"got widths \[4, 5\] in 2 lines"),
        ("rot 1 2 3 4\n", r"got widths \[\] in 0 lines"),
        ("red 1 2 3 4\nblue 2 3 4 5\n", "words of at least 4 entities"),
        ("red 1 2 3 NaN\nblue 2 3 4 5\n", "expected finite numbers"),
    ],
)
def test_a_file_without_usable_vectors_is_refused(
    spark: SparkSession, tmp_path: Path, text: str, expected: str
) -> None:
    (tmp_path / "words.txt").write_text(text)
    with pytest.raises(DataRefused, match=expected):
        read(spark, tmp_path / "words.txt", KEYS)


def test_words_that_share_titles_get_close_vectors_and_reruns_give_equal_ones(
    spark: SparkSession,
) -> None:
    """Each title uses words of one of two groups; index 13 is in no title."""
    random = np.random.default_rng(5)
    titles = [
        random.choice(range(3 + 5 * (n % 2), 8 + 5 * (n % 2)), 4, replace=False).tolist()
        for n in range(400)
    ]
    rows = [
        (n, f"i{n}", None, *[3] * (len(ITEM_ROWS) - 4), [*words, 0])
        for n, words in enumerate(titles)
    ]
    items = spark.createDataFrame(rows, ITEM_ROWS)
    settings = EmbeddingSettings(dimension=6)
    found = from_titles(items, 14, settings)
    assert found.known_V.tolist() == [False] * 3 + [True] * 10 + [False]
    distances = torch.cdist(found.vectors_VD[3:13], found.vectors_VD[3:13])
    within = (distances[:5, :5].sum() + distances[5:, 5:].sum()) / 40
    assert float(within) < 0.75 * float(distances[:5, 5:].mean())
    assert torch.equal(from_titles(items, 14, settings).vectors_VD, found.vectors_VD)


def test_word2vec_without_any_entities_is_refused(spark: SparkSession) -> None:
    rows = [(3, "i", None, *[3] * (len(ITEM_ROWS) - 4), [1, 0])]
    with pytest.raises(DataRefused, match="items with entities or titles, got none"):
        from_titles(spark.createDataFrame(rows, ITEM_ROWS), 4, EmbeddingSettings())


@pytest.fixture
def day(spark: SparkSession, make_settings: Callable[..., Settings], tmp_path: Path) -> Settings:
    """Splits with the entities entity3, entity4, …; the file has half of them."""
    settings = make_settings(embeddings={"max_epochs": 1, "dimension": 4})
    publish_splits(settings, ROWS)
    publish_vocabularies(spark, settings)
    write_vectors(tmp_path / "words.txt", 5, [f"entity{n}" for n in range(FIRST_INDEX, 12)])
    return settings


def frozen_of(
    spark: SparkSession, day: Settings, **changes: str
) -> tuple[FrozenEmbedding, dict[str, Any]]:
    chosen = day.model_copy(update={"embeddings": day.embeddings.model_copy(update=changes)})
    pretrain_embeddings(spark, chosen)
    folder = current_frozen(chosen, Splits.published(chosen))
    manifest: dict[str, Any] = storage.read_json(f"{folder}/{storage.MANIFEST}")
    return artifact.read_pretrained(folder).frozen, manifest


def test_only_entity_vectors_come_from_text(
    spark: SparkSession, day: Settings, tmp_path: Path
) -> None:
    """The control takes them from the click model; coverage is of the training rows' behaviours."""
    of_clicks, _ = frozen_of(spark, day, ids="ctr", words="ctr")
    of_file, manifest = frozen_of(spark, day, ids="ctr", words=str(tmp_path / "words.txt"))
    of_titles, _ = frozen_of(spark, day, ids="ctr", words="word2vec")
    for name, vectors in of_clicks.vectors.items():
        for other in (of_file, of_titles):
            assert torch.equal(vectors, other.vectors[name]) == (name != ENTITY), name
    in_file = [FIRST_INDEX <= n < 12 for n in range(SIZES[ENTITY])]
    assert of_file.learnt[ENTITY].tolist() == in_file
    assert manifest["known"][ENTITY] == sum(in_file)
    splits = Splits.published(day)
    items = splits.item_indices()
    behaviours = [
        item
        for row in spark.read.parquet(f"{splits.folder}/train").select("history").collect()
        for item in row["history"]
        if item
    ]
    # Every item id was met here, so that E has no vector of neighbours.
    covered = manifest["measures"]["covered"]
    for name, share in covered.items():
        known = sum(
            any(
                int(of_file.learnt[name][index]) for index in items[name][item].reshape(-1) if index
            )
            for item in behaviours
        )
        assert share == pytest.approx(known / len(behaviours)), name
    assert 0 < covered[ENTITY] < 1


def test_a_missing_file_of_words_is_refused_with_its_name(
    spark: SparkSession, day: Settings
) -> None:
    with pytest.raises(
        DataRefused, match=r"embeddings.words: .* got /no/such, which does not exist"
    ):
        frozen_of(spark, day, words="/no/such")
