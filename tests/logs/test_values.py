"""A value has one form, whatever source and file format it comes from."""

from __future__ import annotations

from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DoubleType, StringType, StructField

from mfn.logs import values
from mfn.schema import STRING_MAP

NAMES = {
    "7": "7",
    "7.0": "7",
    "-7.00": "-7",
    "7.5": "7.5",
    "70": "70",
    "1.0.0": "1.0.0",
    " 7 ": "7",
    "\u00a0\u3000a b\u200b\ufeff": "a b",
    "": None,
    "\u2003\t": None,
    "NaN": None,
    "nan": None,
    "Infinity": None,
    "-inf": None,
    "Nan": "Nan",  # also a person's name
    "[1, 2]": None,
    '{"a": 1}': None,
    "[new] lamp [red]": "[new] lamp [red]",
    "{ ": "{",
    "true": "true",
    "\u7ea2\u8272": "\u7ea2\u8272",
}
NUMBERS = {
    "19.99": 19.99,
    " 7 ": 7.0,
    "1e3": 1000.0,
    "-0.5": -0.5,
    "NaN": None,
    "Infinity": None,
    "1e999": None,
    "on request": None,
    "19,99": None,
    "": None,
}
LISTS = {
    '["red", "cotton"]': ["red", "cotton"],
    '["red", null, " ", 7.0, ["nested"]]': ["red", "7"],
    "[]": [],
    "red": ["red"],
    "[new] lamp": ["[new] lamp"],
    '{"red": 1}': None,
    "": None,
}
MAPS = {
    '{"age": 30.0, "city": " Oslo ", "none": null}': {"age": "30", "city": "Oslo", "none": None},
    '{"age": "30", "age": "31"}': {"age": "31"},
    "{}": {},
    "[1]": None,
    "phone": None,
    "": None,
}


TYPES = {
    "name": StringType(),
    "number": DoubleType(),
    "names": ArrayType(StringType()),
    "map": STRING_MAP,
}


@pytest.fixture(scope="module")
def found(spark: SparkSession) -> dict[str, dict[str, Any]]:
    """The form of each text as each type, in one pass."""
    texts = sorted({*NAMES, *NUMBERS, *LISTS, *MAPS})
    text = F.col("text")
    parsed = values.parsed_map(text)
    columns = {
        "name": values.name(text),
        "number": values.number(text),
        "names": values.names(text),
        "map": values.name_map(parsed),
        "twice": values.keys_twice(parsed),
        **{f"{kind} known": values.known(StructField("text", of)) for kind, of in TYPES.items()},
    }
    rows = (
        spark.createDataFrame([(one,) for one in [*texts, None]], "text string")
        .select("text", values.trim(text).alias("trimmed"))
        .withColumnsRenamed({"text": "delivered", "trimmed": "text"})
        .select("delivered", *(column.alias(name) for name, column in columns.items()))
    )
    return {row["delivered"]: row.asDict() for row in rows.collect()}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        *(("name", pair) for pair in NAMES.items()),
        *(("number", pair) for pair in NUMBERS.items()),
        *(("names", pair) for pair in LISTS.items()),
        *(("map", pair) for pair in MAPS.items()),
    ],
)
def test_a_text_has_this_value(
    found: dict[str, dict[str, Any]], kind: str, expected: tuple[str, Any]
) -> None:
    text, value = expected
    assert found[text][kind] == value


def test_nothing_is_nothing(found: dict[Any, dict[str, Any]]) -> None:
    of_none = found[None]
    assert [of_none[kind] for kind in ("name", "number", "names", "map")] == [None] * 4
    assert not of_none["twice"]


@pytest.mark.parametrize("kind", TYPES)
def test_a_value_is_known_if_there_is_one(found: dict[str, dict[str, Any]], kind: str) -> None:
    there = {text: row[kind] is not None for text, row in found.items()}
    assert {text: row[f"{kind} known"] for text, row in found.items()} == there
    assert set(there.values()) == {True, False}


def test_blanks_are_cut_at_both_ends_and_only_there(spark: SparkSession) -> None:
    words = ["x", "é", "~!", "\x7f", "x y", "見", "\x00", ""]
    cases = {
        f"{before}{word}{after}"
        for word in words
        for blank in values.BLANKS
        for before in ("", blank)
        for after in ("", blank, blank * 2)
    }
    rows = spark.createDataFrame([(one,) for one in sorted(cases)], "text string")
    trimmed = rows.select("text", values.trim(F.col("text")).alias("trimmed")).collect()
    assert {row["text"]: row["trimmed"] for row in trimmed} == {
        one: one.strip(values.BLANKS) for one in cases
    }


def test_a_key_that_is_given_twice_is_seen(found: dict[str, dict[str, Any]]) -> None:
    twice = {text for text in MAPS if found[text]["twice"]}
    assert twice == {'{"age": "30", "age": "31"}'}
