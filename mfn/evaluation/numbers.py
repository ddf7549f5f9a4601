"""How numbers are written for people."""

from __future__ import annotations

NOTHING = "–"
"""Stands where there is no number."""


def decimals(value: float | None, places: int) -> str:
    """A number with so many decimals."""
    return NOTHING if value is None else f"{value:,.{places}f}"


def thousands(value: float | None) -> str:
    """A whole number."""
    return decimals(value, 0)


def per_cent(value: float | None) -> str:
    """A gain or loss in per cent, with its sign."""
    if value is None:
        return NOTHING
    return f"{value:+,.2f} %" if round(value, 2) else "0.00 %"


def percentage(share: float | None) -> str:
    """A share as per cent of the whole."""
    return NOTHING if share is None else f"{100 * share:.1f} %"
