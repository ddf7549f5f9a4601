"""Whether MFN wins, and if not, what changing one of its parts does to it: words from figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mfn.evaluation.bootstrap import Interval
from mfn.trials.results import Results

MFN = "mfn"
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
    return " ".join(told)


def gains_on_several(found: Mapping[str, Results]) -> dict[str, list[str]]:
    """Variants that are surely above MFN on more than one data set, with these."""
    gaining: dict[str, list[str]] = {}
    for data_set, one in found.items():
        for effect in effects(one):
            if effect.difference.low > 0:
                gaining.setdefault(effect.variant, []).append(data_set)
    return {variant: where for variant, where in gaining.items() if len(where) > 1}


def in_points(difference: Interval) -> str:
    """A difference of AUC in hundredths, with its interval."""
    value, low, high = (100 * one for one in (difference.value, difference.low, difference.high))
    return f"{value:+.2f} points of AUC, {low:+.2f} to {high:+.2f}"


def _list(parts: Iterable[str]) -> str:
    return "; ".join(parts)
