"""Whether MFN wins, and what changing one of its parts does: words from figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from mfn.evaluation.bootstrap import LEVEL, Interval
from mfn.trials.results import Results

MFN = "mfn"
WITH_ATTENTION, ATTENTION = "mfn_with_target_attention", "din"
"""MFN with DIN's attention in addition, and DIN: whether interests add to the attention."""
RIVALS = ("base", "mind", "comirec_dr", "comirec_sa", "transformer_rec", "din")
"""Models that are not variants of MFN."""

NOT_CLEAR = "no clear difference"

ABLATIONS: Mapping[str, Mapping[str, str]] = {
    "pretraining": {
        "mfn_with_random_centers": "centers start at random, tuned at the same rate",
        "mfn_with_random_embedding": "E random, and so the centers",
        "mfn_with_random_start": "the trainable vectors start at random",
        "mfn_without_pretrain": "nothing pretrained",
    },
    "E": {
        "mfn_with_ctr_e": "E from the click model",
        "mfn_with_both_e": "E from co-occurrence and from the click model, side by side",
        "mfn_with_glove": "word vectors from GloVe",
    },
    "paper": {"mfn_as_printed": "the paper's equations to the letter"},
    "departures from the paper": {
        "mfn_with_sums": "interests are sums of behaviours, not means (eq. 5)",
        "mfn_without_mass": "no mass of an interest in its attention (eq. 10)",
        "mfn_without_assignment": "the candidate's own centers are not in its attention (eq. 10)",
        "mfn_with_summed_readouts": "the head gets the sum of the branches' readouts (eq. 11)",
        "mfn_without_positions": "no positions in the self-attention (eq. 6)",
        "mfn_with_fixed_centers": "centers are not tuned in the main training",
        "mfn_with_q_per_user": "Alg. 1 takes q of eq. 1 for each user",
        "mfn_with_free_centers": "Alg. 1 does not hold the centers' length",
    },
    "length of centers": {
        "mfn_soft": "0.3 times as long as behaviours",
        "mfn_sharp": "3 times as long as behaviours",
    },
    "interests": {
        "mfn_k8": "8 similarity interests",
    },
    "levels": {
        "mfn_without_fine_level": "only the category level",
    },
    "branches": {
        "mfn_without_combination": "only similarity interests",
        "mfn_without_similarity": "only combination interests",
        "mfn_with_target_attention": "attention over single behaviours in addition",
    },
}
"""Parts of MFN; variants with another form of that part, and what it is."""


@dataclass(frozen=True)
class Effect:
    """The AUC of a variant minus that of MFN."""

    part: str
    variant: str
    change: str
    difference: Interval

    @property
    def verdict(self) -> str:
        """Whether the variant is better than MFN."""
        return verdict(self.difference)


def verdict(difference: Interval) -> str:
    """What an interval of a difference says: better, worse, or neither for sure."""
    if not difference.excludes_zero:
        return NOT_CLEAR
    return "better" if difference.value > 0 else "worse"


def unbeaten(found: Results) -> dict[str, Interval]:
    """Models that MFN is not clearly better than, with MFN's AUC minus theirs."""
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
    """Which models MFN is not better than, and what attention adds; None where MFN wins."""
    if not unbeaten(found):
        return None
    return " ".join(sentences(found, lambda name, one: f"`{name}` ({in_points(one)})"))


def sentences(found: Results, named: Callable[[str, Interval], str]) -> list[str]:
    """Two sentences: MFN beside its rivals, and what attention over single behaviours adds.

    Args:
        named: a rival, with MFN's difference from it, in words.
    """
    rivals = [name for name in RIVALS if name in found.of_models]
    differences = {name: found.difference(MFN, name) for name in rivals}
    parts = []
    for one, words in (
        ("better", "better than"),
        (NOT_CLEAR, "not clearly better or worse than"),
        ("worse", "worse than"),
    ):
        of_it = {name: of for name, of in differences.items() if verdict(of) == one}
        if of_it:
            models = (named(name, of) for name, of in of_it.items())
            parts.append(f"{words} {_list(models)}")
    told = [f"MFN is {'; '.join(parts)}."]
    if {WITH_ATTENTION, ATTENTION} <= found.of_models.keys():
        difference = found.difference(WITH_ATTENTION, ATTENTION)
        words = verdict(difference).replace(NOT_CLEAR, "not clearly better or worse")
        told.append(
            f"MFN with the attention of `{ATTENTION}` in addition (`{WITH_ATTENTION}`) is {words} "
            f"than `{ATTENTION}` ({in_points(difference)})."
        )
    return told


def gains_on_several(found: Mapping[str, Results]) -> dict[str, list[str]]:
    """Variants that are better on more than one data set and worse on none, with the data sets.

    There are many variants, so some would seem better by chance. Here a gain must hold in an
    interval that is wide enough for all variants of a data set at once (Bonferroni).
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
    """A difference of AUC in points of a hundredth, with its interval."""
    value, low, high = (100 * one for one in (difference.value, difference.low, difference.high))
    return f"{value:+.2f} points, {low:+.2f} to {high:+.2f}"


def _list(parts: Iterable[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last
