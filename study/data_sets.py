"""Models, data sets and days of the study, and its two sizes, full and quick.

Every data set but one has two run dates. Rates, epochs and options are chosen on the earlier one.
Its test window ends before the test window of the real one starts. For both, pretraining uses the
same days, or earlier days. The large shop takes the choices of the shop.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mfn.configuration import load_settings
from mfn.models.settings import (
    NAMED_MODELS,
    ComiRecSASettings,
    DinSettings,
    MfnSettings,
    MindSettings,
    RankerSettings,
)
from mfn.settings import CompareSettings, Settings
from mfn.trials.plan import Changes, Plan, Variant

CONF = Path(__file__).resolve().parent.parent / "conf"

SHOP, MOVIELENS, ONLINE_RETAIL, LARGE_SHOP = "shop", "movielens", "online_retail", "large_shop"

# Models that are tuned themselves, and what else than rate and epochs is tried for each of them.

WITHOUT_PRODUCT: Changes = {"model.product": False}
WITH_RANDOM_START: Changes = {"model.start_at_pretrained": False}
INTERESTS: Sequence[Changes] = ({"model.interests": 8}, {"model.interests": 16})

OPTIONS: Mapping[str, Sequence[Changes]] = {
    "base": (WITHOUT_PRODUCT, WITH_RANDOM_START),
    "mind": (*INTERESTS, {"model.positions": True}, WITHOUT_PRODUCT, WITH_RANDOM_START),
    "comirec_dr": (*INTERESTS, WITHOUT_PRODUCT, WITH_RANDOM_START),
    "comirec_sa": (*INTERESTS, WITHOUT_PRODUCT, WITH_RANDOM_START),
    "transformer_rec": (WITHOUT_PRODUCT, WITH_RANDOM_START),
    "din": ({"model.target_positions": True}, WITHOUT_PRODUCT, WITH_RANDOM_START),
    "mfn": ({"model.similarity_interests": 16},),
}
OPTIONS_OF: Mapping[str, str] = dict.fromkeys(
    ("mfn_without_combination", "mfn_without_pretrain"), "mfn"
)
"""Models with a rate and epochs of their own that take the options of MFN."""
TUNED = {*OPTIONS, *OPTIONS_OF}

# Models that take the choice of another one.

STARTED_AT_RANDOM = "mfn_with_random_start"
WITH_GLOVE = "mfn_with_glove"
"""MFN with entity vectors from a file of word vectors; trained only if a file is given."""

OF_MFN: Mapping[str, RankerSettings] = {
    STARTED_AT_RANDOM: MfnSettings(start_at_pretrained=False),
    "mfn_k8": MfnSettings(similarity_interests=8),
    "mfn_with_sums": MfnSettings(similarity_scale="sum"),
    "mfn_without_mass": MfnSettings(mass_in_attention=False),
    "mfn_without_assignment": MfnSettings(assignment_in_attention=False),
    "mfn_with_summed_readouts": MfnSettings(readouts="sum"),
    "mfn_without_positions": MfnSettings(positions=False),
    "mfn_with_fixed_centers": MfnSettings(centers_rate=0),
    "mfn_with_q_per_user": MfnSettings(centers_marginal="user"),
    "mfn_with_free_centers": MfnSettings(centers_norm=None),
    "mfn_soft": MfnSettings(centers_norm=0.3),
    "mfn_sharp": MfnSettings(centers_norm=3.0),
}
"""MFN with another value of one of its settings."""

MATCHES: Changes = {"matches.enabled": True, "matches.hidden_share": 0.5}
ALL_MATCHES: Changes = {"matches.enabled": True, "matches.hidden_share": 0.0}
WITH_MATCHES: Mapping[str, tuple[RankerSettings, Variant]] = {
    "base_with_matches": (NAMED_MODELS["base"], Variant("base", MATCHES)),
    "mind_with_matches": (MindSettings(), Variant("mind", MATCHES)),
    "comirec_sa_with_matches": (ComiRecSASettings(), Variant("comirec_sa", MATCHES)),
    "din_with_matches": (DinSettings(), Variant("din", MATCHES)),
    "mfn_with_matches": (MfnSettings(), Variant("mfn", MATCHES)),
    "mfn_with_all_matches": (MfnSettings(), Variant("mfn", ALL_MATCHES)),
}  # fmt: skip
"""Models that also see a candidate's matches; half of the training requests don't, or all do."""

SEEDS = 2
"""Number of trainings of each model that is not tuned itself, to save time."""

OTHER_E: Mapping[str, Changes] = {
    "mfn_with_ctr_e": {"embeddings.ids": "ctr", "embeddings.words": "ctr"},
    "mfn_with_both_e": {"embeddings.ids": "both"},
}

MODELS: Mapping[str, RankerSettings] = {
    **NAMED_MODELS,
    **OF_MFN,
    **{name: MfnSettings() for name in OTHER_E},
    **{name: settings for name, (settings, _) in WITH_MATCHES.items()},
}
"""All named models, and variants of them."""

VARIANTS: Mapping[str, Variant] = {
    **{name: Variant("mfn", seeds=SEEDS) for name in (*NAMED_MODELS, *OF_MFN) if name not in TUNED},
    **{name: Variant("mfn", changes, SEEDS) for name, changes in OTHER_E.items()},
    **{name: replace(variant, seeds=SEEDS) for name, (_, variant) in WITH_MATCHES.items()},
}

BY_STEP = ("mfn", "mfn_with_random_centers", STARTED_AT_RANDOM, "mfn_without_pretrain")
"""Models whose AUC is measured several times an epoch: what each part of pretraining is worth."""

OF_REAL_LOGS = (
    *NAMED_MODELS, "mfn_with_ctr_e", "base_with_matches", "mind_with_matches",
    "comirec_sa_with_matches", "din_with_matches", "mfn_with_matches",
)  # fmt: skip
"""Models of MovieLens and Online Retail: to save time, most variants are of the shop alone."""
OF_LARGE_SHOP = (
    "base", "comirec_sa", "din", "mfn", "mfn_without_combination", "mfn_without_pretrain",
)  # fmt: skip


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
        large: settings of the comparison on the large shop, which reads no earlier date.
        days: real and earlier run date of each data set; only the real one of the large shop.
        files: maximum of training files, of 16; None for all.
        arguments: settings of every data set, as command line arguments.
        shop, large_shop: settings of the simulated shops, as command line arguments.
        by_step: the data sets on which AUC is measured several times an epoch.
    """

    root: str
    compare: CompareSettings
    large: CompareSettings
    days: Mapping[str, Sequence[Days]]
    files: int | None = None
    arguments: Sequence[str] = ()
    shop: Sequence[str] = ()
    large_shop: Sequence[str] = ()
    by_step: Collection[str] = (SHOP,)


SHOP_DAYS = (Days("2026-03-08"), Days("2026-03-07"))

COMPARE = CompareSettings(learning_rates=(3e-3, 5e-3, 9e-3), max_epochs=2)
QUICK_COMPARE = CompareSettings(
    seeds=(1, 2), choosing_seeds=(1,), learning_rates=(3e-3,), max_epochs=1
)
FULL = Size(
    "warehouse/study",
    COMPARE,
    COMPARE.model_copy(update={"seeds": (1, 2), "max_epochs": 1}),
    {
        SHOP: SHOP_DAYS,
        LARGE_SHOP: SHOP_DAYS[:1],
        MOVIELENS: (Days("1998-04-22"), Days("1998-03-23", {"training_days": 60})),
        ONLINE_RETAIL: (
            Days("2011-03-31", {"training_days": 59, "test_days": 31}),
            Days("2011-02-28", {"training_days": 46, "test_days": 13}),
        ),
    },
    large_shop=(
        *("--simulate.users", "40000"),
        *("--simulate.requests_per_day", "100000", "--simulate.browsing_per_day", "300000"),
    ),
)
QUICK = Size(
    "warehouse/study-quick",
    QUICK_COMPARE,
    QUICK_COMPARE,
    {
        SHOP: SHOP_DAYS,
        LARGE_SHOP: SHOP_DAYS[:1],
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
    arguments=("--embeddings.max_epochs", "1", "--centers.max_steps", "50"),
    shop=(
        *("--simulate.users", "600", "--simulate.items", "3000"),
        *("--simulate.requests_per_day", "1500", "--simulate.browsing_per_day", "4500"),
    ),
    large_shop=(
        *("--simulate.users", "1200", "--simulate.items", "3000"),
        *("--simulate.requests_per_day", "3000", "--simulate.browsing_per_day", "9000"),
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
        choices_of: the data set whose choices it takes; None: it has its own.
        models: names of its models; None: all.
    """

    name: str
    title: str
    config: str
    arguments: Sequence[str]
    about: str
    word_vectors: str | None = None
    choices_of: str | None = None
    models: Sequence[str] | None = None


@dataclass(frozen=True)
class DataSet:
    """A data set with the plan of its trainings.

    Attributes:
        by_step: names of the models whose AUC is measured several times an epoch.
    """

    source: Source
    plan: Plan = field(repr=False)
    by_step: Sequence[str] = ()

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
            models=OF_REAL_LOGS,
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
                models=OF_REAL_LOGS,
            )
        )
    found.append(
        Source(
            LARGE_SHOP,
            "The simulated shop at ten times the users",
            "demo.yaml",
            ["--simulate.days", "9", *size.large_shop],
            "The same shop with ten times the users, requests and other behaviours. A smaller set "
            "of models is trained here, each for at most "
            f"{size.large.max_epochs} epoch, with {len(size.large.seeds)} seeds. Nothing is "
            "chosen: learning rates and options are those of the shop.",
            choices_of=SHOP,
            models=OF_LARGE_SHOP,
        )
    )
    return found


def data_set(source: Source, size: Size) -> DataSet:
    """A data set with its plan."""
    models = {name: MODELS[name] for name in source.models or MODELS}
    variants = {name: one for name, one in VARIANTS.items() if name in models}
    if source.word_vectors is not None:
        models[WITH_GLOVE] = NAMED_MODELS["mfn"]
        variants[WITH_GLOVE] = Variant("mfn", {"embeddings.words": source.word_vectors}, SEEDS)
    compare = size.compare if source.choices_of is None else size.large

    def settings(of_date: Days) -> Settings:
        # Table 1 is compared without matches; only variants have them.
        arguments = ["--root", f"{size.root}/{source.name}", "--matches.enabled", "false"]
        # The demo's smaller batches are for two workers; here there is one.
        arguments += ["--train.batch_requests", "128"]
        # Two pretrainings run at the same time.
        arguments += ["--embeddings.threads", "1", *source.arguments, *size.arguments]
        arguments += of_date.arguments()
        loaded = load_settings(str(CONF / source.config), arguments, environment={})
        return loaded.model_copy(update={"models": models, "compare": compare})

    real, *earlier = map(settings, size.days[source.name])
    plan = Plan(
        real,
        earlier[0] if earlier else None,
        {name: one for name, one in OPTIONS.items() if name in models},
        {name: one for name, one in OPTIONS_OF.items() if name in models},
        variants,
        size.files,
    )
    return DataSet(source, plan, BY_STEP if source.name in size.by_step else ())
