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
class Size:
    """How much of everything the study takes.

    Attributes:
        root: where the data and all trainings lie.
        files: most files of training rows of 16; None for all.
        arguments: settings of every data set.
        shop: settings of the simulated shop.
    """

    root: str
    compare: CompareSettings
    files: int | None = None
    arguments: Sequence[str] = ()
    shop: Sequence[str] = ()


FULL = Size("warehouse/study", CompareSettings())
QUICK = Size(
    "warehouse/study-quick",
    CompareSettings(seeds=(1, 2), learning_rates=(3e-3,), most_epochs=2),
    files=4,
    arguments=("--embeddings.epochs", "1"),
    shop=(
        *("--simulate.users", "600", "--simulate.items", "3000"),
        *("--simulate.requests_per_day", "1500", "--simulate.browsing_per_day", "4500"),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A data set: its configuration, and what differs for the study, of both dates and of each."""

    name: str
    title: str
    config: str
    both: Sequence[str]
    real: Sequence[str]
    earlier: Sequence[str]
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
            both=["--simulate.days", "9", *size.shop],
            real=["--date", "2026-03-08"],
            earlier=["--date", "2026-03-07"],
            about="Clicks are drawn from known probabilities, so the oracle's AUC is what could be "
            "reached. 4 days of pretraining, 3 of training, 1 of test; the earlier date is the "
            "day before.",
        ),
        Source(
            MOVIELENS,
            "MovieLens-100k",
            "movielens.yaml",
            both=["--ingest.path", movielens],
            real=["--date", "1998-04-22"],
            earlier=["--date", "1998-03-23", "--windows.training_days", "60"],
            about="A rating of 4 or more is a click; further candidates are drawn by popularity. "
            "Pretraining until 23 December 1997, training until 23 March 1998, test until 22 "
            "April; for the earlier date training until 21 February, test until 23 March.",
        ),
    ]
    if retail is not None:
        windows = ["--windows.history_days", "7", "--windows.pretraining_days", "24"]
        # The shop is closed from Christmas to New Year: of these twelve days four have sales.
        windows += ["--windows.pretraining_validation_days", "12"]
        found.append(
            Source(
                ONLINE_RETAIL,
                "Online Retail",
                "online_retail.yaml",
                both=["--ingest.path", retail, *windows],
                real=_windows("2011-03-31", training_days=59, test_days=31),
                earlier=_windows("2011-02-28", training_days=46, test_days=13),
                about="What was bought is a click; further candidates are drawn by popularity. "
                "December 2010 for histories and pretraining, January and February 2011 for "
                "training, March for the test; for the earlier date training until 15 February, "
                "test until 28 February.",
                word_vectors=glove,
            )
        )
    return found


def _windows(date: str, training_days: int, test_days: int) -> list[str]:
    lengths = {"training_days": training_days, "test_days": test_days}
    return ["--date", date, *(t for n, d in lengths.items() for t in (f"--windows.{n}", str(d)))]


def data_set(source: Source, size: Size) -> DataSet:
    """A data set with its plan."""
    models, variants = dict(MODELS), dict(VARIANTS)
    if source.word_vectors is not None:
        models[WITH_GLOVE] = NAMED_MODELS["mfn"]
        variants[WITH_GLOVE] = Variant("mfn", words=source.word_vectors)

    def settings(of_date: Sequence[str]) -> Settings:
        arguments = ["--root", f"{size.root}/{source.name}", *source.both, *size.arguments]
        read = load_settings(str(CONF / source.config), [*arguments, *of_date], environment={})
        return read.model_copy(update={"models": models, "compare": size.compare})

    return DataSet(
        source,
        Plan(
            real=settings(source.real),
            earlier=settings(source.earlier),
            variants=variants,
            files=size.files,
        ),
    )
