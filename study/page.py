"""docs/study.md with its plots, and docs/study.json."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mfn import storage
from mfn.evaluation.bootstrap import Interval
from mfn.models.settings import NAMED_MODELS
from mfn.reporting.numbers import NOTHING, decimals, per_cent, percentage, thousands
from mfn.trials.plan import Changes, Choice
from mfn.trials.results import Result
from mfn.windows import Window
from study import charts
from study.causes import ABLATIONS, MFN, RIVALS, cause, gains_on_several, sentences
from study.data_sets import MATCHES, ONLINE_RETAIL, SEEDS, SHOP, WITH_MATCHES, Size
from study.expectations import verdicts
from study.purity import Purity
from study.run import Studied

HEADER = (
    "model", "AUC", "± over seeds", "GAUC", "log loss", "RelaImpr", "95 % interval", "parameters",
    "candidates/s", "rate", "epochs",
)  # fmt: skip
WORDS = {
    "model", "variant", "what it has", "expected", "found", "came", "part", "option", "data set",
    "models", "pretraining", "training", "test", "chosen with",
}  # fmt: skip
"""Columns of text; numbers are aligned to the right."""


def write(studied: Mapping[str, Studied], size: Size, folder: Path) -> str:
    """Write the page, the plots and the JSON; return the page."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, one in studied.items():
        charts.gains(one.found, folder / f"study-{name}.svg")
        if one.points:
            charts.curves(one.points, folder / f"study-{name}-choosing.svg")
        if one.steps:
            charts.steps(one.steps, folder / f"study-{name}-steps.svg")
    storage.replace_json(str(folder / "study.json"), as_json(studied))
    page = as_markdown(studied, size)
    storage.write_whole(str(folder / "study.md"), page)
    return page


def as_json(studied: Mapping[str, Studied]) -> dict[str, Any]:
    """The numbers of every model and data set, the choices, and what became of expectations.

    `causes` has an entry for each data set on which MFN is not clearly better than all others.
    """
    causes = {name: cause(one.found) for name, one in studied.items()}
    return {
        "data_sets": {
            name: {model: of.as_json() for model, of in one.found.of_models.items()}
            for name, one in studied.items()
        },
        "causes": {name: text for name, text in causes.items() if text is not None},
        "choices": {
            name: {model: _finite(asdict(choice)) for model, choice in one.choices.items()}
            for name, one in studied.items()
        },
        "expectations": [asdict(one) for one in verdicts(studied)],
        "purity": {
            name: {model: _finite(asdict(of)) for model, of in one.purities.items()}
            for name, one in studied.items()
            if one.purities
        },
    }


def _finite(value: Any) -> Any:
    """The value with null for NaN."""
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_markdown(studied: Mapping[str, Studied], size: Size) -> str:
    """The page: what was found, a section a data set, why, and how it was made."""
    parts = [
        _introduction(size),
        _overview(studied),
        _expectations(studied),
        _differences(studied),
        *(_section(name, one) for name, one in studied.items()),
    ]
    if ONLINE_RETAIL not in studied:
        parts.append(
            "## Online Retail\n\nLeft out: no folder was given. `make study RETAIL=<folder>` reads "
            "a folder with one file a day, as `scripts/split_online_retail.py` writes it.\n"
        )
    parts += [
        _causes(studied),
        _pretraining(studied),
        _matches(studied),
        _choices(studied, size),
        _data(studied),
    ]
    return "\n".join(parts)


def _introduction(size: Size) -> str:
    seeds = len(size.compare.seeds)
    text = (
        "# Which model wins where\n\n"
        "This page is written by `make study`. All models read the same rows and features, and "
        "have the same head. Learning rate, epochs and options of each model are "
        "[chosen by one rule](#how-the-settings-were-chosen) on an earlier date. Then each model "
        f"is trained with {seeds} seeds, each with an E and centers of its own, and the test "
        "window is read once. Models that take the choice of another one, and all models on the "
        f"large shop, are trained with {SEEDS} seeds; they are compared with the same "
        "seeds of the other model.\n\n"
        "AUC, GAUC and log loss are means over the seeds. GAUC weighs the AUC of each user by the "
        "number of candidates; users with only clicked or only unclicked candidates are left out. "
        "RelaImpr and all differences compare the averaged scores of the seeds, so they can "
        "disagree with the mean AUC. Their 95 % intervals come from 1,000 draws of users "
        "(bootstrap), the same draws for all models. **Bold** means that the interval excludes 0. "
        "A point is 0.01 of AUC. Candidates a second are those of training in one thread, while "
        "another training runs.\n"
    )
    if size.files is not None:
        text += (
            f"\n**This is the quick form**: small data, at most {size.files} of 16 files of the "
            "training rows. It shows what the tables look like. Its numbers mean nothing.\n"
        )
    return text


# What was found.


def _overview(studied: Mapping[str, Studied]) -> str:
    """AUC and RelaImpr of the named models on all data sets."""
    header = ["model"]
    for one in studied.values():
        header += [f"{one.title}: AUC", "RelaImpr"]
    rows = []
    for model in NAMED_MODELS:
        row = [model]
        for one in studied.values():
            of = one.found.of_models.get(model)
            row += [NOTHING] * 2 if of is None else [decimals(of.auc_mean, 4), _gain(of)]
        rows.append(row)
    return f"## All data sets\n\n{_table(header, rows)}"


def _expectations(studied: Mapping[str, Studied]) -> str:
    rows = [[one.expected, one.found, "yes" if one.came else "**no**"] for one in verdicts(studied)]
    return (
        "## What was expected, and what came\n\n"
        "The paper lets expect these. Differences are those of mean AUC in points; where there "
        "are several other models, the nearest one is named.\n\n"
        + _table(("expected", "found", "came"), rows)
    )


def _differences(studied: Mapping[str, Studied]) -> str:
    others = [*RIVALS, "mfn_without_combination", "mfn_without_pretrain", "mfn_as_printed"]
    rows = [
        [other, *(_difference(one, MFN, other) for one in studied.values())] for other in others
    ]
    header = ("model", *(one.title for one in studied.values()))
    return (
        "## MFN minus each other model\n\nDifference of AUC in points, with its interval.\n\n"
        + _table(header, rows)
    )


def _section(name: str, one: Studied) -> str:
    listed = sorted(one.found.of_models.values(), key=lambda of: -of.auc_mean)
    named = [of for of in listed if of.model in NAMED_MODELS]
    header = [*HEADER, *([] if one.oracle is None else ["share of the oracle's"])]
    rows = [_row(of, one) for of in named]
    if one.oracle is not None:
        rest = [NOTHING] * (len(HEADER) - 2)
        rows.append(["*oracle*", decimals(one.oracle, 4), *rest, percentage(1.0)])
    told = " ".join(sentences(one.found, lambda model, _: f"`{model}`"))
    wins = "**MFN wins.** " if cause(one.found) is None else "**MFN does not win.** "
    return "\n".join(
        [
            f"## {one.title}\n\n{one.about}\n",
            _table(header, rows),
            f"{wins}{told}\n",
            f"![RelaImpr of every model](study-{name}.svg)\n",
        ]
    )


# Why.


def _causes(studied: Mapping[str, Studied]) -> str:
    rows = [
        [part, variant, words, *(_difference(one, variant, MFN) for one in studied.values())]
        for part, variants in ABLATIONS.items()
        for variant, words in variants.items()
        if any(variant in one.found.of_models for one in studied.values())
    ]
    header = ("part", "variant", "what it has", *(one.title for one in studied.values()))
    return (
        "## MFN with one part changed\n\n"
        "AUC of the variant minus that of MFN, in points. Each variant takes MFN's learning rate, "
        "epochs and options, but for those models that are tuned themselves.\n\n"
        f"{_table(header, rows)}\n{_several(studied)}"
    )


def _several(studied: Mapping[str, Studied]) -> str:
    gaining = gains_on_several({name: one.found for name, one in studied.items()})
    rule = (
        "MFN's defaults would change if a variant were better on more than one data set, in an "
        "interval wide enough for all variants at once (Bonferroni), and worse on none. "
    )
    if not gaining:
        return f"{rule}No variant is: the defaults stay.\n"
    listed = "; ".join(f"`{variant}` ({', '.join(where)})" for variant, where in gaining.items())
    return f"{rule}These are: {listed}.\n"


def _pretraining(studied: Mapping[str, Studied]) -> str:
    """What each part of pretraining does, over the training and to the centers."""
    parts = [
        "## What pretraining does\n\n"
        "What it is worth at the end of the training is in the table above. This is how AUC on the "
        "earlier date grows during the training, as a mean of the seeds that choose, at one "
        "learning rate.\n"
    ]
    parts += [
        f"![AUC during the training on {one.title}](study-{name}-steps.svg)\n"
        for name, one in studied.items()
        if one.steps
    ]
    rows = [
        [one.title, model, *_shares(of)]
        for one in studied.values()
        for model, of in one.purities.items()
    ]
    if rows:
        parts.append(
            "In the simulated shop the true interests are known. Of two behaviours of one user, "
            "these shares have the same nearest center (fine level): where both serve the same "
            "interest, and where they serve different ones; before the main training and after "
            "it.\n"
        )
        header = ("data set", "model", "same, before", "different, before", "same, after",
                  "different, after")  # fmt: skip
        parts.append(_table(header, rows))
    return "\n".join(parts)


def _shares(of: Purity) -> list[str]:
    shares = (of.start.same, of.start.different, of.tuned.same, of.tuned.different)
    return [NOTHING if share is None else decimals(share, 3) for share in shares]


def _matches(studied: Mapping[str, Studied]) -> str:
    where = [
        one for one in studied.values() if any(name in one.found.of_models for name in WITH_MATCHES)
    ]
    rows = [
        [
            name,
            f"{variant.changes['matches.hidden_share']:.0%}",
            *(_with(one, name, variant.tuned_as) for one in where),
        ]
        for name, (_, variant) in WITH_MATCHES.items()
    ]
    titles = [one.title for one in where]
    return (
        "## Matches\n\n"
        "These models also see how often, and how long ago, the user acted on what shares the "
        "candidate's item, category, shop, brand, price or words (`matches.enabled`). A share of "
        "the training requests does not see it (`matches.hidden_share`); by default "
        f"{MATCHES['matches.hidden_share']:.0%}. Each cell has the AUC, and the difference from "
        "the same model without matches, in points.\n\n"
        + _table(("model", "hidden", *titles), rows)
    )


def _with(one: Studied, name: str, without: str) -> str:
    if name not in one.found.of_models:
        return NOTHING
    auc = decimals(one.found.of_models[name].auc_mean, 4)
    return f"{auc}, {_points(one.found.difference(name, without))}"


# How it was made.


def _choices(studied: Mapping[str, Studied], size: Size) -> str:
    own = size.compare
    rates = ", ".join(f"{rate:g}" for rate in own.learning_rates)
    parts = [
        "## How the settings were chosen\n\n"
        "By one rule for all models, on the earlier date, by the mean AUC over seeds "
        f"({', '.join(map(str, own.choosing_seeds))}). First the learning rate (one of {rates}) "
        f"and the number of epochs (at most {own.max_epochs}). Then the options of the model, one "
        "after the other, at this rate; an option is kept (**bold**) if it is better, and the "
        "next one is tried on top of it. The number behind an option is what it changes, in "
        "points.\n"
    ]
    where = {name: one for name, one in studied.items() if one.points}
    models = dict.fromkeys(model for one in where.values() for model in one.choices)
    header = ("model", *(f"{one.title}: rate, epochs, options" for one in where.values()))
    rows = [
        [model, *(_choice(one.choices.get(model)) for one in where.values())] for model in models
    ]
    parts.append(_table(header, rows))
    parts += [
        f"![AUC on the earlier date of {one.title}, by epochs](study-{name}-choosing.svg)\n"
        for name, one in where.items()
    ]
    return "\n".join(parts)


def _choice(choice: Choice | None) -> str:
    if choice is None:
        return NOTHING
    told, best = [], choice.default_auc
    for one in choice.tried:
        gain = f"{option(one.changes)} {_failed_or(100 * (one.auc - best))}"
        told.append(f"**{gain}**" if one.kept else gain)
        best = one.auc if one.kept else best
    return "; ".join([f"{choice.learning_rate:g}, {choice.epochs}", *told])


def _failed_or(points: float) -> str:
    return f"{points:+.2f}" if math.isfinite(points) else "failed"


def option(changes: Changes) -> str:
    """An option in a few words: names of settings without their section, and values."""
    return ", ".join(
        f"`{name.partition('.')[2]}` {str(value).lower()}" for name, value in changes.items()
    )


def _data(studied: Mapping[str, Studied]) -> str:
    rows = []
    for one in studied.values():
        counts, earlier = one.counts, one.earlier_days
        windows = (
            f"{_days(window)}: {thousands(counts[f'{split} candidates'])} candidates in "
            f"{thousands(counts[f'{split} rows'])} rows"
            for split, window in (
                ("pretraining", one.days.pretraining),
                ("train", one.days.train),
                ("test", one.days.test),
            )
        )
        chosen = (
            f"the choices of {_in_a_sentence(_title(studied, SHOP))}"
            if earlier is None
            else f"training {_days(earlier.train)}, test {_days(earlier.test)}"
        )
        left_out = one.found.of_models[MFN].users_left_out
        users = f"{thousands(counts['users'])} ({thousands(left_out)})"
        rows.append([one.title, *windows, chosen, users])
    header = ("data set", "pretraining", "training", "test", "chosen with",
              "test users (left out of GAUC)")  # fmt: skip
    return f"## The data\n\n{_table(header, rows)}"


def _title(studied: Mapping[str, Studied], name: str) -> str:
    return studied[name].title if name in studied else name


def _in_a_sentence(title: str) -> str:
    return title.replace("The ", "the ", 1)


# Cells.


def _difference(one: Studied, model: str, other: str) -> str:
    """AUC of a model minus that of another one, in points; in bold if its interval excludes 0."""
    if model not in one.found.of_models or other not in one.found.of_models:
        return NOTHING
    return _points(one.found.difference(model, other))


def _points(difference: Interval) -> str:
    value, low, high = (100 * one for one in (difference.value, difference.low, difference.high))
    text = f"{value:+.2f}"
    return f"{f'**{text}**' if difference.excludes_zero else text} ({low:+.2f} to {high:+.2f})"


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


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def aligned(name: str) -> str:
        return "---" if name in WORDS or name.endswith("options") else "---:"

    lines = [header, [aligned(name) for name in header], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
