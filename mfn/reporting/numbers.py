"""Formats of numbers for people."""

from __future__ import annotations

import math
from typing import TypeGuard

NOTHING = "–"
"""Shown instead of None and NaN."""


def decimals(value: float | None, places: int) -> str:
    """A number with `places` decimals."""
    return f"{value:,.{places}f}" if _is_there(value) else NOTHING


def thousands(value: float | None) -> str:
    """A whole number."""
    return decimals(value, 0)


def per_cent(value: float | None) -> str:
    """A gain or loss, given in per cent, with its sign."""
    if not _is_there(value):
        return NOTHING
    return f"{value:+,.2f} %" if round(value, 2) else "0.00 %"


def percentage(share: float | None) -> str:
    """A share from 0 to 1 in per cent."""
    return f"{100 * share:.1f} %" if _is_there(share) else NOTHING


def _is_there(value: float | None) -> TypeGuard[float]:
    return value is not None and not math.isnan(value)
