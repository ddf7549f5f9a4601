"""Models, data sets and days of the study, and its two sizes, full and quick.

Every data set has two run dates. Learning rates and epochs are chosen on the earlier one. Its test
window ends before the test window of the real one starts. For both, pretraining uses the same days,
or earlier days.
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
    "mfn_k8": MfnSettings(similarity_interests=8),
    "mfn_k16": MfnSettings(similarity_interests=16),
    "mfn_k64": MfnSettings(similarity_interests=64),
    "mfn_soft": MfnSettings(centers_norm=0.3),
    "mfn_sharp": MfnSettings(centers_norm=3.0),
    "mfn_wide_attention": MfnSettings(attention_units=128),
}
"""All named models, and variants of MFN."""

VARIANTS: Mapping[str, Variant] = {
    name: Variant("mfn") for name in MODELS if name not in NAMED_MODELS
}
"""Variants use MFN's learning rate and epochs."""

WITH_GLOVE = "mfn_with_glove"
"""MFN with entity vectors from a file of word vectors; trained only if a file is given."""


@dataclass(frozen=True)
class Days:
    """A run date and lengths of windows in days; other lengths are those of the configuration."""

    date: str
    lengths: Mapping[str, int] = field(default_factory=dict)

    def arguments(self) -> list[str]:
        """The same as command line arguments."""
        lengths = (t for name, days in self.lengths.items() for t in (f"--windows.{name}", days))
        return ["--date", self.date, *map(str, lengths)]


@dataclass(frozen=True)
class Size:
    """Size of the study.

    Attributes:
        root: folder of the data and of all trainings.
        compare: settings of the comparison.
        days: real and earlier run date of each data set.
        files: maximum of training files, of 16; None for all.
        arguments: settings of every data set, as command line arguments.
        shop: settings of the simulated shop, as command line arguments.
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
    """A data set: its configuration, and other settings for the study.

    Attributes:
        name: its key in the results.
        config: file in conf/.
        arguments: settings, as command line arguments.
        about: sentences for the page.
        word_vectors: file of word vectors, if there is one.
    """

    name: str
    title: str
    config: str
    arguments: Sequence[str]
    about: str
    word_vectors: str | None = None


@dataclass(frozen=True)
class DataSet:
    """A data set with the plan of its trainings."""

    source: Source
    plan: Plan = field(repr=False)

    @property
    def name(self) -> str:
        """Its key in the results."""
        return self.source.name


def sources(movielens: str, retail: str | None, glove: str | None, size: Size) -> list[Source]:
    """The data sets of the study; Online Retail only if its folder is given.

    Its item descriptions are English, so GloVe word vectors are used with it.
    """
    found = [
        Source(
            SHOP,
            "The simulated shop",
            "demo.yaml",
            ["--simulate.days", "9", *size.shop],
            "Clicks are drawn from known probabilities, so the oracle's AUC is the best possible "
            "AUC.",
        ),
        Source(
            MOVIELENS,
            "MovieLens-100k",
            "movielens.yaml",
            ["--ingest.path", movielens],
            "A rating of 4 or more is a click; other candidates are drawn by popularity.",
        ),
    ]
    if retail is not None:
        # History and pretraining cover December; later windows take histories from it too. The
        # shop is closed from Christmas to New Year, so only four of the twelve days of
        # pretraining's validation, which decide when it stops, have sales.
        lengths = {"history": 7, "pretraining": 24, "pretraining_validation": 12}
        windows = (t for name, days in lengths.items() for t in (f"--windows.{name}_days", days))
        found.append(
            Source(
                ONLINE_RETAIL,
                "Online Retail",
                "online_retail.yaml",
                ["--ingest.path", retail, *map(str, windows)],
                "A purchase is a click; other candidates are drawn by popularity.",
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
        loaded = load_settings(str(CONF / source.config), arguments, environment={})
        return loaded.model_copy(update={"models": models, "compare": size.compare})

    real, earlier = map(settings, size.days[source.name])
    return DataSet(source, Plan(real, earlier, variants, size.files))
