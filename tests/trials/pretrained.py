"""Two small run dates of splits, and an E and centers of every seed, made without Spark."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence

import torch

from mfn import storage
from mfn.models import artifact
from mfn.models.embedding import (
    ItemTable,
    Pretrained,
    TableStart,
    fields_of,
    freeze,
    offsets_of,
)
from mfn.pretraining.centers import wanted
from mfn.pretraining.published import key
from mfn.settings import CompareSettings, Settings
from mfn.splits.published import Splits
from mfn.trials.plan import (
    UNCHANGED,
    Changes,
    Choice,
    Plan,
    Variant,
    finals,
    possible_curves,
    pretrainings,
)
from mfn.trials.pretrain import share
from mfn.trials.trial import Trial
from tests.synthetic import publish_splits

SEEDS = (1, 2)
CHOICES = {"base": Choice(0.03, 1, 0.6, 0.6), "mfn": Choice(0.01, 2, 0.6, 0.6)}
ROWS = {"train": [120, 100], "test": [60, 40]}
EARLIER = datetime.timedelta(days=1)


def plan(
    real: Settings,
    learning_rates: tuple[float, ...] = (0.003, 0.03),
    options: Mapping[str, Sequence[Changes]] = UNCHANGED,
    variants: Mapping[str, Variant] = UNCHANGED,
) -> Plan:
    compare = {
        "seeds": SEEDS, "choosing_seeds": SEEDS, "learning_rates": learning_rates, "max_epochs": 2
    }  # fmt: skip
    real = real.model_copy(update={"compare": CompareSettings(**compare)})
    own = {name: Variant("mfn") for name in real.models if name == "mfn_sharp"}
    earlier = real.model_copy(update={"date": real.date - EARLIER})
    return Plan(real, earlier, options, variants={**own, **variants})


def publish(
    of: Plan, earlier: Mapping[str, int] | None = None, real: Mapping[str, int] | None = None
) -> None:
    """Publish splits of both dates, drawn from these seeds; E and centers are random numbers."""
    assert of.earlier is not None
    for settings, seeds in ((of.earlier, earlier), (of.real, real)):
        publish_splits(settings, ROWS, seeds)
    choices = {name: CHOICES.get(name, CHOICES["base"]) for name in of.tuned}
    trials: list[Trial] = [*possible_curves(of)]
    trials += [one for seeds in finals(of, choices).values() for one in seeds.values()]
    for date in (of.earlier.date, of.real.date):
        for settings in pretrainings([one for one in trials if one.settings.date == date]):
            share(of.real.root, settings.root)
            pretrain_at_random(settings, settings.train.seed)


def pretrain_at_random(settings: Settings, seed: int) -> None:
    splits = Splits.published(settings)
    features = splits.features
    items = ItemTable(features, splits.item_indices(), offsets_of(features.sizes))
    random = torch.Generator().manual_seed(seed)
    rows, width = sum(features.sizes.values()), settings.embeddings.dimension
    table = torch.randn(rows, width, generator=random)
    manifest = {"vocabularies": splits.manifest["vocabularies"]}
    with storage.publish(settings.layout.embeddings) as folder:
        learnt = torch.ones(rows).bool()
        start = TableStart(
            fields_of(table.clone(), features.sizes), fields_of(learnt.clone(), features.sizes)
        )
        frozen = freeze(features, items, table, learnt)
        artifact.write_pretrained(folder, Pretrained(frozen, start))
        storage.write_json(f"{folder}/{storage.MANIFEST}", manifest)
    centers = {
        key(level.name, one): torch.randn(
            one.interests, len(level.fields) * width, generator=random
        )
        for level in features.levels
        for one in wanted(settings)
    }
    with storage.publish(settings.layout.centers) as folder:
        artifact.write_tensors(folder, centers)
        storage.write_json(f"{folder}/{storage.MANIFEST}", manifest)
