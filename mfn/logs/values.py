r"""The product's form of a delivered value: the same for every source and every file format.

The readers hand over each field as text, as JSON writes it: a string without its quotes, a number,
true or false, an object or a list. These functions turn such a text into a name, a number, a list
or a map. They are the only place that says what counts as missing, and which values are equal:

- blanks around a value are dropped, also those that only Unicode knows;
- a whole number has no fraction: 7, 7.0 and "7" are one id;
- nothing but blanks, NaN and the infinities are missing;
- an object or a list is no name.

No shuffle.
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
_NO_NUMBER = r'"?[+-]?(?:NaN|nan|Infinity|inf)"?'
"""What Java and Python write for numbers that are none. Spark's JSON parser puts NaN in quotes."""
_WHOLE = r"(-?\d+)\.0+"
"""A whole number with a fraction; its first group is the number."""
_ELEMENT = r"-?\d[\d.eE+-]*|true|false|null"
_NESTED = rf'\{{(?:".*)?\}}|\[(?:["{{\[].*|(?:{_ELEMENT})(?:,.*)?)?\]'
"""An object or a list as JSON writes it, but not a title like "[new] lamp [red]"."""
JSON = {"allowSingleQuotes": "false", "allowNonNumericNumbers": "true"}
"""Options of Spark's JSON parser. NaN is no JSON, but Python writes it for missing numbers."""


def trimmed(delivered: Column) -> Column:
    """The text without blanks around it; null if nothing is left, or it is no number."""
    return F.nullif(F.regexp_replace(_text(delivered), f"^{_NO_NUMBER}$", ""), F.lit(""))


def nested(delivered: Column) -> Column:
    """Whether the text is an object or a list; null if there is no text."""
    return _text(delivered).rlike(f"^(?s:{_NESTED})$")


def name(delivered: Column) -> Column:
    """An id, a category or another name; null if it is missing, or an object or a list."""
    # One pattern, since each further use of the text would be another copy of its expression. What
    # is no name has no first group.
    pattern = f"^(?s:{_WHOLE}|{_NO_NUMBER}|{_NESTED})$"
    return F.nullif(F.regexp_replace(_text(delivered), pattern, "$1"), F.lit(""))


def number(delivered: Column) -> Column:
    """A number as double; null if it is missing or no number."""
    value = trimmed(delivered).try_cast("double")
    return F.when(F.abs(value) < float("inf"), value)  # Spark sorts NaN above infinity


def names(delivered: Column) -> Column:
    """A list of names, from a list or from one name; null if it is missing or an object."""
    each = F.transform(F.from_json(_text(delivered), "array<string>", JSON), name)
    one = F.nullif(F.array(name(delivered)), F.array(F.lit(None).cast("string")))
    return F.coalesce(F.filter(each, lambda found: found.isNotNull()), one)


def name_map(delivered: Column) -> Column:
    """A map of names, from an object; of a key that is given twice the last value counts.

    Null if it is missing or no object.
    """
    entries = F.map_entries(_parsed_map(delivered))
    return F.map_from_entries(
        F.transform(entries, lambda one: F.struct(one["key"], name(one["value"])))
    )


def keys_twice(delivered: Column) -> Column:
    """Whether an object has a key twice; null if it is no object."""
    keys = F.map_keys(_parsed_map(delivered))
    return F.size(keys) > F.size(F.array_distinct(keys))


def of_type(field: StructField) -> Column:
    """The value of a delivered field in the type that the schema gives it."""
    delivered = F.col(field.name)
    if isinstance(field.dataType, DoubleType):
        return number(delivered)
    if isinstance(field.dataType, ArrayType):
        return names(delivered)
    if isinstance(field.dataType, MapType):
        return name_map(delivered)
    return name(delivered)


def _text(delivered: Column) -> Column:
    return F.btrim(delivered, F.lit(BLANKS))


def _parsed_map(delivered: Column) -> Column:
    return F.from_json(trimmed(delivered), STRING_MAP.simpleString(), JSON)
