"""What was expected of MFN, and whether it came: by figures alone.

"Above" is the mean AUC over the seeds. "Clearly above" is an interval of the difference of AUC over
users that does not contain 0; for it, the scores of the seeds are averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mfn.trials.results import Results
from study.causes import MFN, WITH_ATTENTION
from study.data_sets import LARGE_SHOP, MOVIELENS, ONLINE_RETAIL, SHOP
from study.purity import Purity
from study.run import Studied

THREE = (SHOP, MOVIELENS, ONLINE_RETAIL)
RIVALS = ("base", "mind", "comirec_dr", "comirec_sa", "transformer_rec")
"""Those of Table 1."""
LEAST_SAME, LARGEST_DIFFERENT = 0.65, 0.15


@dataclass(frozen=True)
class Verdict:
    """What was expected, what was found, and whether that is what was expected."""

    expected: str
    found: str
    came: bool


def verdicts(studied: Mapping[str, Studied]) -> list[Verdict]:
    """All expectations, each with what was found on the data sets that there are."""
    found = {name: one.found for name, one in studied.items()}
    told = [
        _above(
            "MFN is above Base, MIND, both ComiRecs and TransformerRec on three data sets, and "
            "clearly above all of them on at least two",
            found, RIVALS, THREE, least=3, least_clearly=2,
        ),
        _above(
            "MFN is above `mfn_without_combination` on at least two of three data sets",
            found, ["mfn_without_combination"], THREE, least=2,
        ),
        _above(
            "… and clearly above it on the large shop",
            found, ["mfn_without_combination"], [LARGE_SHOP], least=1, least_clearly=1,
        ),
        _above(
            "MFN is above `mfn_without_pretrain` on at least two of three data sets",
            found, ["mfn_without_pretrain"], THREE, least=2,
        ),
        _above(
            "… and clearly above it on the large shop",
            found, ["mfn_without_pretrain"], [LARGE_SHOP], least=1, least_clearly=1,
        ),
        _above("MFN is at least equal to DIN on both shops", found, ["din"], [SHOP, LARGE_SHOP], 2),
        _attention(found),
    ]  # fmt: skip
    if SHOP in studied and MFN in studied[SHOP].purities:
        told.append(_purity(studied[SHOP].purities[MFN]))
    return told


def _above(
    expected: str,
    found: Mapping[str, Results],
    others: Sequence[str],
    data_sets: Sequence[str],
    least: int,
    least_clearly: int = 0,
) -> Verdict:
    """MFN above all other models on at least so many of the data sets."""
    there = {name: found[name] for name in data_sets if name in found}

    def gain(of: Results, other: str) -> float:
        return of.of_models[MFN].auc_mean - of.of_models[other].auc_mean

    def on(holds: Callable[[Results, str], bool]) -> int:
        return sum(all(holds(of, other) for other in others) for of in there.values())

    above = on(lambda of, other: gain(of, other) >= 0)
    clearly = on(lambda of, other: of.difference(MFN, other).low > 0)
    nearest = {
        name: min(((gain(of, other), other) for other in others), key=lambda one: one[0])
        for name, of in there.items()
    }
    figures = ", ".join(
        f"{name} {100 * least_gain:+.2f}" + (f" (`{other}`)" if len(others) > 1 else "")
        for name, (least_gain, other) in nearest.items()
    )
    text = f"above on {above} of {len(there)}, clearly on {clearly}: {figures}"
    return Verdict(expected, text, above >= least and clearly >= least_clearly)


def _attention(found: Mapping[str, Results]) -> Verdict:
    """MFN with target attention is the best named model on every data set."""
    figures, came = [], 0
    there = [name for name in THREE if name in found]
    for name in there:
        aucs = {
            model: found[name].of_models[model].auc_mean
            for model in (*RIVALS, "din", MFN, WITH_ATTENTION)
        }
        best = max((model for model in aucs if model != WITH_ATTENTION), key=lambda m: aucs[m])
        difference = aucs[WITH_ATTENTION] - aucs[best]
        came += difference >= 0
        figures.append(f"{name} {100 * difference:+.2f} (`{best}`)")
    return Verdict(
        f"`{WITH_ATTENTION}` is at least equal to the best other model on three data sets",
        f"on {came} of {len(there)}: {', '.join(figures)}",
        came == len(THREE),
    )


def _purity(purity: Purity) -> Verdict:
    same, different = purity.start.same, purity.start.different
    return Verdict(
        f"On the shop, pretrained centers hold at least {LEAST_SAME:.2f} of the pairs with the "
        f"same true interest together, and at most {LARGEST_DIFFERENT:.2f} of the others",
        f"{_share(same)} and {_share(different)}",
        same is not None
        and different is not None
        and same >= LEAST_SAME
        and different <= LARGEST_DIFFERENT,
    )


def _share(share: float | None) -> str:
    return "no pairs" if share is None else f"{share:.3f}"
