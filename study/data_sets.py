"""What the study compares, on which data and days, and how much of it a size takes.

Every data set has two run dates. Rates and epochs are chosen on the earlier one, whose test window
ends before that of the real one begins. All that is learnt before training lies in the same days
for both, or in earlier ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mfn.configuration import load_settings
from mfn.models.settings import NAMED_MODELS, MfnSettings, RankerSettings
from mfn.settings import CompareSettings, Settings
from mfn.trials.plan import Plan, Variant

CONF = Path(__file__).resolve().parent.parent / "conf"

SHOP, MOVIELENS, ONLINE_RETAIL = "shop", "movielens", "online_retail"

MODELS: Mapping[str, RankerSettings] = {
    **NAMED_MODELS,
    "mfn_k1": MfnSettings(interests=1),
    "mfn_k4": MfnSettings(interests=4),
    "mfn_k16": MfnSettings(interests=16),
    "mfn_soft": MfnSettings(),
    "mfn_sharp": MfnSettings(),
    "mfn_wide_attention": MfnSettings(attention_units=128),
}
"""All named models, and further variants of MFN."""

VARIANTS: Mapping[str, Variant] = {
    name: Variant("mfn", sharpness={"mfn_soft": 0.25, "mfn_sharp": 4.0}.get(name, 1.0))
    for name in MODELS
    if name not in NAMED_MODELS
}
"""These take MFN's rate and epochs; the soft one has a temperature of 4, the sharp one of 1/4."""

WITH_GLOVE = "mfn_with_glove"
"""MFN with vectors of entities from a file, where there is one."""


@dataclass(frozen=True)
class Days:
    """A run date and its lengths of windows, in days; those not given are the configuration's."""

    date: str
    lengths: Mapping[str, int] = field(default_factory=dict)

    def arguments(self) -> list[str]:
        """As a command line says it."""
        lengths = (t for name, days in self.lengths.items() for t in (f"--windows.{name}", days))
        return ["--date", self.date, *map(str, lengths)]


@dataclass(frozen=True)
class Size:
    """How much of everything the study takes.

    Attributes:
        root: where the data and all trainings lie.
        days: of each data set the real run date, and the earlier one.
        files: most files of training rows of 16; None for all.
        arguments: settings of every data set.
        shop: settings of the simulated shop.
    """

    root: str
    compare: CompareSettings
    days: Mapping[str, tuple[Days, Days]]
    files: int | None = None
    arguments: Sequence[str] = ()
    shop: Sequence[str] = ()


SHOP_DAYS = (Days("2026-03-08"), Days("2026-03-07"))

FULL = Size(
    "warehouse/study",
    CompareSettings(),
    {
        SHOP: SHOP_DAYS,
        MOVIELENS: (Days("1998-04-22"), Days("1998-03-23", {"training_days": 60})),
        ONLINE_RETAIL: (
            Days("2011-03-31", {"training_days": 59, "test_days": 31}),
            Days("2011-02-28", {"training_days": 46, "test_days": 13}),
        ),
    },
)
QUICK = Size(
    "warehouse/study-quick",
    CompareSettings(seeds=(1, 2), learning_rates=(3e-3,), max_epochs=1),
    {
        SHOP: SHOP_DAYS,
        MOVIELENS: (
            Days("1997-12-23", {"pretraining_days": 60, "training_days": 25, "test_days": 10}),
            Days("1997-12-13", {"pretraining_days": 60, "training_days": 17, "test_days": 8}),
        ),
        ONLINE_RETAIL: (
            Days("2011-01-23", {"training_days": 14, "test_days": 9}),
            Days("2011-01-14", {"training_days": 9, "test_days": 5}),
        ),
    },
    files=4,
    arguments=("--embeddings.max_epochs", "1"),
    shop=(
        *("--simulate.users", "600", "--simulate.items", "3000"),
        *("--simulate.requests_per_day", "1500", "--simulate.browsing_per_day", "4500"),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A data set: its configuration, and what differs for the study."""

    name: str
    title: str
    config: str
    arguments: Sequence[str]
    about: str
    word_vectors: str | None = None


@dataclass(frozen=True)
class DataSet:
    """A data set with the trainings that are planned on it."""

    source: Source
    plan: Plan = field(repr=False)

    @property
    def name(self) -> str:
        """Its key in all that is written."""
        return self.source.name


def sources(movielens: str, retail: str | None, glove: str | None, size: Size) -> list[Source]:
    """The data sets that there are: Online Retail only where its folder is given.

    Its descriptions are English, so that GloVe's vectors are tried on it.
    """
    found = [
        Source(
            SHOP,
            "The simulated shop",
            "demo.yaml",
            ["--simulate.days", "9", *size.shop],
            "Clicks are drawn from known probabilities, so the oracle's AUC is what could be "
            "reached.",
        ),
        Source(
            MOVIELENS,
            "MovieLens-100k",
            "movielens.yaml",
            ["--ingest.path", movielens],
            "A rating of 4 or more is a click; further candidates are drawn by popularity.",
        ),
    ]
    if retail is not None:
        # All of December, from which the later windows' histories come too. The shop is closed from
        # Christmas to New Year: of the twelve days to stop on, four have sales.
        lengths = {"history": 7, "pretraining": 24, "pretraining_validation": 12}
        windows = (t for name, days in lengths.items() for t in (f"--windows.{name}_days", days))
        found.append(
            Source(
                ONLINE_RETAIL,
                "Online Retail",
                "online_retail.yaml",
                ["--ingest.path", retail, *map(str, windows)],
                "What was bought is a click; further candidates are drawn by popularity.",
                word_vectors=glove,
            )
        )
    return found


def data_set(source: Source, size: Size) -> DataSet:
    """A data set with its plan."""
    models, variants = dict(MODELS), dict(VARIANTS)
    if source.word_vectors is not None:
        models[WITH_GLOVE] = NAMED_MODELS["mfn"]
        variants[WITH_GLOVE] = Variant("mfn", words=source.word_vectors)

    def settings(of_date: Days) -> Settings:
        arguments = ["--root", f"{size.root}/{source.name}", *source.arguments, *size.arguments]
        arguments += of_date.arguments()
        read = load_settings(str(CONF / source.config), arguments, environment={})
        return read.model_copy(update={"models": models, "compare": size.compare})

    real, earlier = map(settings, size.days[source.name])
    return DataSet(source, Plan(real, earlier, variants, size.files))
