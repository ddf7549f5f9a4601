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
from study.causes import ABLATIONS, MFN, cause, effects, gains_on_several, in_points
from study.data_sets import ONLINE_RETAIL, Size
from study.run import Studied

HEADER = (
    "model", "AUC", "± of seeds", "GAUC", "log loss", "RelaImpr", "95 % interval", "parameters",
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
        "Made by `make study`. Every model reads the same rows and features, starts at the same E "
        "and ends in the same head. The learning rate (one of "
        f"{rates}) and the number of epochs (at most {of_all.max_epochs}) are chosen for each "
        "model in the same way: on an earlier run date, whose test window ends before that of the "
        "real one begins, the best AUC of a curve for each rate. Then each is trained anew on the "
        f"whole training window, with {len(of_all.seeds)} seeds, each with an E and centers of its "
        "own, and the test window is read once.\n\n"
        "AUC, GAUC and log loss are means over the seeds, ± their spread; GAUC weighs a user by "
        "the candidates that he was shown and leaves out users with clicked candidates alone, or "
        "none. RelaImpr is that of the seeds' mean scores beside those of Base, with an interval "
        "from 1,000 draws of users, the same for both (bootstrap). **Bold** is what is surely "
        "above Base or, with a minus, below it: the interval excludes 0. Candidates a second are "
        "those of training in one thread, two trainings at a time.\n"
    )
    if size.files is not None:
        how += (
            f"\n**This is the quick form**: small data, at most {size.files} of 16 files of the "
            "training rows. Its numbers show the tables, and decide nothing.\n"
        )
    parts = [how, *(_section(name, one) for name, one in studied.items())]
    if ONLINE_RETAIL not in studied:
        parts.append(
            "## Online Retail\n\nLeft out: no folder was given. `make study RETAIL=<folder>` reads "
            "one of files by day, as scripts/split_online_retail.py makes it.\n"
        )
    parts.append(_several(studied))
    return "\n".join(parts)


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
        f"Pretraining {_days(one.days.pretraining)}, stopped on what follows until "
        f"{one.days.pretraining_validation[1]}; training {_days(one.days.train)}, test "
        f"{_days(one.days.test)}. To choose: training {_days(one.earlier_days.train)}, test "
        f"{_days(one.earlier_days.test)}."
    )
    told = [f"## {one.title}\n\n{one.about} {days} {numbers}.\n", _table(header, rows)]
    told.append(f"Users left out of GAUC: {thousands(left_out)} of {thousands(counts['users'])}.\n")
    told.append(f"![RelaImpr of every model](study-{name}.svg)\n")
    text = cause(one.compared.found)
    told.append(
        "**MFN wins**: it is surely above every other model.\n"
        if text is None
        else f"**MFN does not win.** {text}\n"
    )
    told.append(f"### {one.title}: MFN with one part changed\n")
    told.append(
        _table(
            ("part", "variant", "what it is there", "AUC less MFN's"),
            [
                [effect.part, effect.variant, effect.change, in_points(effect.difference)]
                for part in ABLATIONS
                for effect in effects(one.compared.found)
                if effect.part == part
            ],
        )
    )
    told.append(f"![AUC of the earlier date while choosing](study-{name}-choosing.svg)\n")
    return "\n".join(told)


def _days(window: Window) -> str:
    first, last = window
    return f"{first} to {last}" if first < last else str(first)


def _row(of: Result, one: Studied) -> list[str]:
    gain = of.relaimpr
    text = per_cent(gain.value)
    row = [
        of.model,
        decimals(of.auc_mean, 4),
        decimals(of.auc_std, 4),
        decimals(of.gauc_mean, 4),
        decimals(of.logloss_mean, 4),
        f"**{text}**" if gain.excludes_zero else text,
        f"{per_cent(gain.low)} to {per_cent(gain.high)}",
        thousands(of.parameters),
        thousands(of.candidates_per_second),
        f"{of.learning_rate:g}",
        str(of.epochs),
    ]
    if one.oracle is not None:
        row.append(percentage((of.auc_mean - 0.5) / (one.oracle - 0.5)))
    return row


def _several(studied: Mapping[str, Studied]) -> str:
    gaining = gains_on_several({name: one.compared.found for name, one in studied.items()})
    rule = (
        "A part of MFN is changed for all where a variant gains on more than one data set, in an "
        "interval wide enough for all variants at once (Bonferroni), and surely loses on none. "
    )
    text = "No variant does: the defaults stay."
    if gaining:
        listed = "; ".join(f"{variant} ({', '.join(where)})" for variant, where in gaining.items())
        own = [f"`{variant}`" for variant in gaining if variant in NAMED_MODELS]
        text = f"These do: {listed}."
        if own:
            text += (
                f" {', '.join(own)} is no setting of MFN's but a model by a name of its own, "
                "beside the paper's; train it where single behaviours tell much."
            )
    return f"## What holds on more than one data set\n\n{rule}{text}\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in header[1:])]
    lines = [header, rule, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
