"""Whether MFN wins, and if not, what changing one of its parts does to it: words from figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mfn.evaluation.bootstrap import LEVEL, Interval
from mfn.trials.results import Results

MFN = "mfn"
WITH_ATTENTION, ATTENTION = "mfn_with_target_attention", "din"
"""MFN with DIN's attention beside its interests, and DIN alone: whether interests add to it."""
RIVALS = ("base", "mind", "comirec_dr", "comirec_sa", "transformer_rec", "din")
"""Models that are no form of MFN."""

ABLATIONS: Mapping[str, Mapping[str, str]] = {
    "E": {
        "mfn_with_random_embedding": "a random E",
        "mfn_with_glove": "vectors of words from GloVe",
    },
    "centers": {"mfn_without_pretrain": "centers trained with the task"},
    "interests": {"mfn_k1": "1 of them", "mfn_k4": "4 of them", "mfn_k16": "16 of them"},
    "temperature": {
        "mfn_soft": "a temperature of 4",
        "mfn_sharp": "a temperature of 1/4",
    },
    "level": {
        "mfn_without_fine_level": "the category level alone",
    },
    "aggregation": {
        "mfn_wide_attention": "attention units 128",
        "mfn_with_target_attention": "attention over single behaviours beside",
    },
    "branches": {
        "mfn_without_similarity": "combination alone",
        "mfn_without_combination": "similarity alone",
    },
}
"""Parts of MFN; variants in which that part is another, and what it is there. K is 8 in MFN."""


@dataclass(frozen=True)
class Effect:
    """What a variant's AUC is more than MFN's."""

    part: str
    variant: str
    change: str
    difference: Interval

    def __str__(self) -> str:
        return f"{self.part}: {self.change} ({self.variant}) {in_points(self.difference)}"


def unbeaten(found: Results) -> dict[str, Interval]:
    """Models that MFN is not surely above, with MFN's AUC less theirs."""
    there = {name: found.difference(MFN, name) for name in RIVALS if name in found.of_models}
    return {name: one for name, one in there.items() if not one.low > 0}


def effects(found: Results) -> list[Effect]:
    """What each variant does, the largest gain first."""
    all_of_them = [
        Effect(part, variant, change, found.difference(variant, MFN))
        for part, variants in ABLATIONS.items()
        for variant, change in variants.items()
        if variant in found.of_models
    ]
    return sorted(all_of_them, key=lambda one: -one.difference.value)


def cause(found: Results) -> str | None:
    """Why MFN does not win, as far as its variants tell; None where it does."""
    above = unbeaten(found)
    if not above:
        return None
    told = [f"MFN is not surely above {_list(f'{n} ({in_points(d)})' for n, d in above.items())}."]
    better: list[Effect] = []
    worse: list[Effect] = []
    neither: list[Effect] = []
    for one in effects(found):
        sure = one.difference.excludes_zero
        (neither if not sure else better if one.difference.value > 0 else worse).append(one)
    if better:
        told.append(f"It gains by changing {_list(map(str, better))}.")
    else:
        told.append("No change of a single part gains surely.")
    if worse:
        told.append(f"It loses by changing {_list(map(str, worse))}: these parts carry it.")
    if neither:
        told.append(f"Of no sure effect are {_list(map(str, neither))}.")
    if {WITH_ATTENTION, ATTENTION} <= found.drawn.keys():
        beside = found.difference(WITH_ATTENTION, ATTENTION)
        says = "surely" if beside.excludes_zero else "not surely"
        side = "above" if beside.value > 0 else "below"
        told.append(
            f"With attention over single behaviours beside its interests ({WITH_ATTENTION}) it is "
            f"{says} {side} {ATTENTION} ({in_points(beside)})."
        )
    return " ".join(told)


def gains_on_several(found: Mapping[str, Results]) -> dict[str, list[str]]:
    """Variants that ask for other defaults, with the data sets that they gain on.

    These gain on more than one, and surely lose on none. So many variants are tried that some
    would seem to gain by chance: here a gain must hold in an interval wide enough for all variants
    of a data set at once (Bonferroni).
    """
    gaining: dict[str, list[str]] = {}
    losing: set[str] = set()
    for data_set, one in found.items():
        tried = effects(one)
        for effect in tried:
            of_all = 1 - (1 - LEVEL) / len(tried)
            if one.difference(effect.variant, MFN, of_all).low > 0:
                gaining.setdefault(effect.variant, []).append(data_set)
            if effect.difference.high < 0:
                losing.add(effect.variant)
    return {
        variant: where
        for variant, where in gaining.items()
        if len(where) > 1 and variant not in losing
    }


def in_points(difference: Interval) -> str:
    """A difference of AUC in hundredths, with its interval."""
    value, low, high = (100 * one for one in (difference.value, difference.low, difference.high))
    return f"{value:+.2f} points of AUC, {low:+.2f} to {high:+.2f}"


def _list(parts: Iterable[str]) -> str:
    return "; ".join(parts)
