r"""The product's form of a delivered value: the same for every source and every file format.

The readers hand over each field as text, as JSON writes it and without blanks around it: a string
without its quotes, a number, true or false, an object or a list. These functions turn such a text
into a name, a number, a list or a map. They are the only place that says what counts as missing,
and which values are equal:

- a whole number has no fraction: 7, 7.0 and "7" are one id;
- blanks alone, NaN and the infinities are missing;
- an object or a list is no name.

Most texts need no pattern: their last character shows it. Pass columns, not expressions, since each
function uses its argument several times. No shuffle.
"""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DoubleType, MapType, StructField

from mfn.schema import STRING_MAP

BLANKS = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007"
    "\u2008\u2009\u200a\u200b\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
)
"""Unicode's white space, and the blanks without width."""
NO_NUMBERS = ("NaN", "nan", "Infinity", "-Infinity", "inf", "-inf")
"""What Java and Python write for numbers that are none."""
NO_VALUES = ("", *NO_NUMBERS, *(f'"{one}"' for one in NO_NUMBERS))
"""Texts that mean that a value is missing. Spark's JSON parser puts quotes around a bare NaN."""
_WHOLE = r"^-?\d+\.0+$"
_ELEMENT = r"-?\d[\d.eE+-]*|true|false|null"
_NESTED = rf'^(?s:\{{(?:".*)?\}}|\[(?:["{{\[].*|(?:{_ELEMENT})(?:,.*)?)?\])$'
"""An object or a list as JSON writes it, but not a title like "[new] lamp [red]"."""
JSON = {"allowSingleQuotes": "false", "allowNonNumericNumbers": "true"}
"""Options of Spark's JSON parser. NaN is no JSON, but Python writes it for missing numbers."""


def trim(text: Column) -> Column:
    """The text without blanks around it, as all other functions take it."""
    return F.btrim(text, F.lit(BLANKS))


def given(text: Column) -> Column:
    """Whether there is a value."""
    return text.isNotNull() & ~text.isin(*NO_VALUES)


def nested(text: Column) -> Column:
    """Whether the text is an object or a list."""
    brackets = text.endswith("]") | text.endswith("}")
    return F.coalesce(brackets & text.rlike(_NESTED), F.lit(False))


def name(text: Column) -> Column:
    """An id, a category or another name; null if it is missing, or an object or a list."""
    whole = text.endswith("0") & text.rlike(_WHOLE)
    return F.when(whole, F.substring_index(text, ".", 1)).when(given(text) & ~nested(text), text)


def number(text: Column) -> Column:
    """A number as double; null if it is missing or no number."""
    value = F.when(given(text), text.try_cast("double"))
    return F.when(F.abs(value) < float("inf"), value)  # Spark sorts NaN above infinity


def names(text: Column) -> Column:
    """A list of names, from a list or from one name; null if it is missing or an object."""
    each = F.transform(
        F.transform(F.from_json(text, "array<string>", JSON), trim), lambda one: name(one)
    )
    one = F.when(name(text).isNotNull(), F.array(name(text)))
    return F.coalesce(F.filter(each, lambda found: found.isNotNull()), one)


def parsed_map(text: Column) -> Column:
    """An object as a map of texts, in which a key may stand twice; null if it is no object."""
    return F.from_json(text, STRING_MAP.simpleString(), JSON)


def name_map(parsed: Column) -> Column:
    """A map of names from `parsed_map`; of a key that is given twice the last value counts."""
    # In two steps, since `name` uses its argument several times.
    trimmed = F.transform_values(with_keys_once(parsed), lambda _, value: trim(value))
    return F.transform_values(trimmed, lambda _, value: name(value))


def with_keys_once(parsed: Column) -> Column:
    """A map from `parsed_map`, with the last value of a key that is given twice."""
    # To build a map anew takes time, and the session's policy is that the last one wins.
    return F.when(keys_twice(parsed), F.map_from_entries(F.map_entries(parsed))).otherwise(parsed)


def keys_twice(parsed: Column) -> Column:
    """Whether a map from `parsed_map` has a key twice."""
    keys = F.map_keys(parsed)
    return F.coalesce(F.size(keys) > F.size(F.array_distinct(keys)), F.lit(False))


def known(field: StructField) -> Column:
    """Whether `of_type` gives a value; for lists and maps without making it."""
    text = F.col(field.name)
    if isinstance(field.dataType, ArrayType):
        return F.from_json(text, "array<string>", JSON).isNotNull() | name(text).isNotNull()
    if isinstance(field.dataType, MapType):
        return parsed_map(text).isNotNull()
    return of_type(field).isNotNull()


def of_type(field: StructField) -> Column:
    """The value of a delivered field in the type that the schema gives it."""
    text = F.col(field.name)
    if isinstance(field.dataType, DoubleType):
        return number(text)
    if isinstance(field.dataType, ArrayType):
        return names(text)
    if isinstance(field.dataType, MapType):
        return name_map(parsed_map(text))
    return name(text)
