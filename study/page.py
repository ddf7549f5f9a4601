"""docs/study.md with its plots, and docs/study.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mfn import storage
from mfn.models.settings import NAMED_MODELS
from mfn.reporting.numbers import NOTHING, decimals, per_cent, percentage, thousands
from mfn.trials.results import Result
from mfn.windows import Window
from study import charts
from study.causes import ABLATIONS, MFN, Effect, cause, effects, gains_on_several
from study.data_sets import ONLINE_RETAIL, Size
from study.run import Studied

HEADER = (
    "model", "AUC", "± over seeds", "GAUC", "log loss", "RelaImpr", "95 % interval", "parameters",
    "candidates/s", "rate", "epochs",
)  # fmt: skip


def write(studied: Mapping[str, Studied], size: Size, folder: Path) -> str:
    """Write the page, the plots and the JSON; return the page."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, one in studied.items():
        charts.gains(one.compared.found, folder / f"study-{name}.svg")
        charts.curves(one.compared.points, folder / f"study-{name}-choosing.svg")
    storage.replace_json(str(folder / "study.json"), as_json(studied))
    page = as_markdown(studied, size)
    storage.write_whole(str(folder / "study.md"), page)
    return page


def as_json(studied: Mapping[str, Studied]) -> dict[str, Any]:
    """The numbers of every model and data set, and the causes where MFN did not win."""
    causes = {name: cause(one.compared.found) for name, one in studied.items()}
    return {
        "data_sets": {
            name: {model: of.as_json() for model, of in one.compared.found.of_models.items()}
            for name, one in studied.items()
        },
        "causes": {name: text for name, text in causes.items() if text is not None},
    }


def as_markdown(studied: Mapping[str, Studied], size: Size) -> str:
    """The page: how it was made, then a section a data set, then what holds on several."""
    of_all = size.compare
    rates = ", ".join(f"{rate:g}" for rate in of_all.learning_rates)
    how = (
        "# Which model wins where\n\n"
        "This page is written by `make study`. All models read the same rows and features, start "
        "at the same E and have the same head.\n\n"
        f"The learning rate (one of {rates}) and the number of epochs (at most "
        f"{of_all.max_epochs}) are chosen for each model in the same way: by the best AUC on an "
        "earlier run date, whose test window ends before the test window of this page begins. Then "
        f"each model is trained on the whole training window with {len(of_all.seeds)} seeds, each "
        "with an E and centers of its own. The test window is read once.\n\n"
        "AUC, GAUC and log loss are means over the seeds. GAUC weighs the AUC of each user by the "
        "number of candidates; users with only clicked or only unclicked candidates are left out. "
        "RelaImpr compares the averaged scores of the seeds with those of `base`. So it can be "
        "negative although the mean AUC is above that of `base`. Its 95 % interval comes from "
        "1,000 draws of users (bootstrap), the same draws for all models. **Bold** means that the "
        "interval excludes 0. Candidates a second are those of training in one thread, while "
        "another training runs.\n"
    )
    if size.files is not None:
        how += (
            f"\n**This is the quick form**: small data, at most {size.files} of 16 files of the "
            "training rows. It shows what the tables look like. Its numbers mean nothing.\n"
        )
    parts = [how, _overview(studied), *(_section(name, one) for name, one in studied.items())]
    if ONLINE_RETAIL not in studied:
        parts.append(
            "## Online Retail\n\nLeft out: no folder was given. `make study RETAIL=<folder>` reads "
            "a folder with one file a day, as `scripts/split_online_retail.py` writes it.\n"
        )
    parts.append(_several(studied))
    return "\n".join(parts)


def _overview(studied: Mapping[str, Studied]) -> str:
    """AUC and RelaImpr of the named models on all data sets."""
    header = ["model"]
    for one in studied.values():
        header += [f"{one.title}: AUC", "RelaImpr"]
    rows = []
    for model in NAMED_MODELS:
        row = [model]
        for one in studied.values():
            of = one.compared.found.of_models[model]
            row += [decimals(of.auc_mean, 4), _gain(of)]
        rows.append(row)
    return f"## All data sets\n\n{_table(header, rows)}"


def _section(name: str, one: Studied) -> str:
    counts = one.counts
    numbers = ", ".join(
        f"{thousands(counts[f'{split} candidates'])} candidates "
        f"in {thousands(counts[f'{split} rows'])} rows for {what}"
        for split, what in (("pretraining", "pretraining"), ("train", "training"), ("test", "test"))
    )
    listed = sorted(one.compared.found.of_models.values(), key=lambda of: -of.auc_mean)
    named = [of for of in listed if of.model in NAMED_MODELS]
    header = [*HEADER, *([] if one.oracle is None else ["share of the oracle's"])]
    rows = [_row(of, one) for of in named]
    if one.oracle is not None:
        rest = [NOTHING] * (len(HEADER) - 2)
        rows.append(["*oracle*", decimals(one.oracle, 4), *rest, percentage(1.0)])
    left_out = one.compared.found.of_models[MFN].users_left_out
    days = (
        f"Pretraining: {_days(one.days.pretraining)}; the days after it until "
        f"{one.days.pretraining_validation[1]} decide when it stops. Training: "
        f"{_days(one.days.train)}. Test: {_days(one.days.test)}. Learning rate and epochs are "
        f"chosen with training {_days(one.earlier_days.train)} and test "
        f"{_days(one.earlier_days.test)}."
    )
    parts = [f"## {one.title}\n\n{one.about} {days} {numbers}.\n", _table(header, rows)]
    parts.append(
        f"Users left out of GAUC: {thousands(left_out)} of {thousands(counts['users'])}.\n"
    )
    parts.append(f"![RelaImpr of every model](study-{name}.svg)\n")
    text = cause(one.compared.found)
    parts.append(
        "**MFN wins**: it is better than every other model.\n"
        if text is None
        else f"**MFN does not win.** {text}\n"
    )
    parts.append(f"### {one.title}: MFN with one part changed\n")
    parts.append(
        _table(
            ("part", "variant", "what it has", "AUC minus MFN's, in points", "than MFN"),
            [
                [effect.part, effect.variant, effect.change, _points(effect), effect.verdict]
                for part in ABLATIONS
                for effect in effects(one.compared.found)
                if effect.part == part
            ],
        )
    )
    parts.append(f"![AUC on the earlier date, by epochs](study-{name}-choosing.svg)\n")
    return "\n".join(parts)


def _points(effect: Effect) -> str:
    one = effect.difference
    return f"{100 * one.value:+.2f} ({100 * one.low:+.2f} to {100 * one.high:+.2f})"


def _days(window: Window) -> str:
    first, last = window
    return f"{first} to {last}" if first < last else str(first)


def _row(of: Result, one: Studied) -> list[str]:
    gain = of.relaimpr
    row = [
        of.model,
        decimals(of.auc_mean, 4),
        decimals(of.auc_std, 4),
        decimals(of.gauc_mean, 4),
        decimals(of.logloss_mean, 4),
        _gain(of),
        f"{per_cent(gain.low)} to {per_cent(gain.high)}",
        thousands(of.parameters),
        thousands(of.candidates_per_second),
        f"{of.learning_rate:g}",
        str(of.epochs),
    ]
    if one.oracle is not None:
        row.append(percentage((of.auc_mean - 0.5) / (one.oracle - 0.5)))
    return row


def _gain(of: Result) -> str:
    """RelaImpr, in bold where its interval excludes 0."""
    text = per_cent(of.relaimpr.value)
    return f"**{text}**" if of.relaimpr.excludes_zero else text


def _several(studied: Mapping[str, Studied]) -> str:
    gaining = gains_on_several({name: one.compared.found for name, one in studied.items()})
    rule = (
        "MFN's defaults would change if a variant were better on more than one data set, in an "
        "interval wide enough for all variants at once (Bonferroni), and worse on none. "
    )
    text = "No variant is: the defaults stay."
    if gaining:
        listed = "; ".join(
            f"`{variant}` ({', '.join(where)})" for variant, where in gaining.items()
        )
        own = [f"`{variant}`" for variant in gaining if variant in NAMED_MODELS]
        text = f"These are: {listed}."
        if own:
            text += (
                f" {', '.join(own)} is no setting of MFN but a model with its own name: train it "
                "where the single behaviours say much."
            )
    return f"## What holds on more than one data set\n\n{rule}{text}\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    words = {"variant", "what it has", "than MFN"}
    rule = ["---", *("---" if name in words else "---:" for name in header[1:])]
    lines = [header, rule, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
