"""What E is worth, measured where it is made, without labels.

They are in the manifest of E under `measures`:

- `start_correlation`: by field, the correlation of the click model's vectors with the random
  numbers at which they started, over the values that it has met, from 0 (all is learnt) to 1
  (nothing is): `table` of the vectors themselves, at which all models start; `E` of the click
  model's part of E, if there is one.
- `covered`: by field, the share of the behaviours in the training rows whose item has a value that
  pretraining has met.
- `next_behaviour_auc`: by level, how often a user's next behaviour is nearer to her history in E
  than another user's next behaviour; .5 is chance; null with fewer than two such users.
- `next_behaviour_users`: the number of those users.

Legend: U users, N history steps, I rows of the item table, D width of a field's vectors, d width of
an item vector in E at a level.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

from mfn.indices import PADDING
from mfn.models.batch import ENTITY, Features
from mfn.models.embedding import FrozenEmbedding, ItemTable
from mfn.pretraining.click_model import ClickModel
from mfn.pretraining.frozen import encoder_of
from mfn.pretraining.histories import latest_histories, matrix, sample
from mfn.splits.published import Splits

MAX_USERS = 4096
"""Maximum number of users on whom E is measured."""
LEAST_AUC, LEAST_COVERED, MOST_CORRELATION = 0.55, 0.5, 0.9
"""Beyond these, a measure is warned about."""


@dataclass(frozen=True)
class NextBehaviours:
    """Of each user, item rows of the behaviours up to one, [U, N], and of that next one, [U]."""

    earlier_UN: Tensor
    next_U: Tensor


def next_behaviours(spark: SparkSession, splits: Splits, seed: int) -> NextBehaviours:
    """The next behaviours of users of the validation rows, at most MAX_USERS of them.

    It is the last behaviour on an item that is new to the user: not earlier in her history, nor in
    the history that pretraining has seen. So E cannot have learnt from it, and is not praised for
    repeats.

    Two shuffles by user, of the rows of either split; the join may add one.
    """
    seen = latest_histories(spark, splits, "pretraining").withColumnRenamed("history", "seen")
    found = (
        sample(latest_histories(spark, splits, "pretraining_validation"), MAX_USERS, seed)
        .join(seen, "user_id", how="left")
        .select(
            "user_id", "history", F.coalesce("seen", F.array().cast("array<int>")).alias("seen")
        )
        .toPandas()
        .sort_values("user_id")
    )
    steps = int(splits.manifest["history_length"])
    history_UN, seen_UN = (matrix(found[name], steps) for name in ("history", "seen"))
    return new_to_the_user(history_UN, seen_UN, splits.same_items())


def new_to_the_user(history_UN: Tensor, seen_UN: Tensor, same_item_I: Tensor) -> NextBehaviours:
    """The last behaviour of each history on an item that is neither before it nor in `seen_UN`.

    Users without such a behaviour, and those who have nothing before it, are left out.
    """
    item_UN, steps = same_item_I[history_UN], history_UN.shape[1]
    before_NN = torch.ones(steps, steps, dtype=torch.bool).tril(-1)
    repeated_UN = ((item_UN[:, :, None] == item_UN[:, None]) & before_NN).any(dim=2)
    seen_before_UN = (item_UN[:, :, None] == same_item_I[seen_UN][:, None]).any(dim=2)
    new_UN = (history_UN != PADDING) & ~repeated_UN & ~seen_before_UN
    step_N = torch.arange(steps)
    at_U = torch.where(new_UN, step_N, 0).amax(dim=1)
    users = at_U > 0
    at_U, history_UN = at_U[users], history_UN[users]
    next_U = history_UN.gather(1, at_U[:, None]).squeeze(1)
    return NextBehaviours(torch.where(step_N < at_U[:, None], history_UN, PADDING), next_U)


@torch.no_grad()
def next_behaviour_auc(
    features: Features, items: ItemTable, frozen: FrozenEmbedding, users: NextBehaviours
) -> dict[str, float | None]:
    """By level, how often a user's next behaviour is nearer to her history than another user's.

    Near is the cosine with the mean of the earlier behaviours' vectors. Equal ones count half.
    """
    if len(users.next_U) < 2:
        return {level.name: None for level in features.levels}
    encoder = encoder_of(features, items, frozen)
    both = torch.cat([users.earlier_UN, users.next_U[:, None]], dim=1)
    items_i, inverse = torch.unique(both, return_inverse=True)
    found: dict[str, float | None] = {}
    for level, vectors_id in encoder.frozen_vectors(items_i).items():
        # Padding is a zero vector; a mean's length does not change its cosine.
        earlier_Ud = embedding_bag(inverse[:, :-1], vectors_id, mode="sum")
        near_UU = normalize(earlier_Ud) @ normalize(vectors_id[inverse[:, -1]]).T
        own_U = near_UU.diagonal()[:, None]
        won = (near_UU < own_U).sum() + ((near_UU == own_U).sum() - len(near_UU)) / 2
        found[level] = float(won) / (len(near_UU) * (len(near_UU) - 1))
    return found


def start_correlation(click: ClickModel, of_E: Iterable[str]) -> dict[str, dict[str, float]]:
    """The correlation of the click model's vectors with their random start, by field.

    Args:
        click: the click model.
        of_E: the fields whose vectors in E, or a part of them, are the click model's.
    """

    def correlation(name: str, vectors_VD: Tensor) -> float:
        met_V = click.learnt(name).known_V
        if not met_V.any():
            return 1.0
        both = torch.stack([vectors_VD[met_V].flatten(), click.initial[name][met_V].flatten()])
        return float(torch.corrcoef(both)[0, 1].nan_to_num())

    return {
        "table": {name: correlation(name, vectors) for name, vectors in click.trained.items()},
        "E": {name: correlation(name, click.learnt(name).vectors_VD) for name in of_E},
    }


def coverage(
    items: ItemTable, features: Features, known_V: Tensor, behaviours_I: Tensor
) -> dict[str, float]:
    """For each item field, the share of behaviours whose item has a value that E knows.

    Args:
        items: the item table.
        features: the fields of the rows.
        known_V: mask of the known rows of a table of the item fields.
        behaviours_I: number of behaviours of each item.
    """
    known_I = {name: known_V[items.ids_IF[:, at]] for at, name in enumerate(items.id_fields)}
    if ENTITY in features.item_fields:
        real_IX = items.entities_IX >= 0
        known_I[ENTITY] = (known_V[items.entities_IX.clamp(min=0)] & real_IX).any(dim=1)
    total = max(int(behaviours_I.sum()), 1)
    return {name: int(behaviours_I[known_I[name]].sum()) / total for name in features.item_fields}


def warnings(measures: Mapping[str, Any]) -> list[str]:
    """What is bad about an E with these measures, and what to do about it."""
    found = [
        f"E knows {share:.0%} of the behaviours' {name}: raise windows.pretraining_days"
        for name, share in measures["covered"].items()
        if share < LEAST_COVERED
    ]
    found += [
        f"E at level {level}: a user's next behaviour is nearer to her history than another "
        f"user's in {auc:.0%} of cases, chance is 50%: try another embeddings.ids or "
        "embeddings.words, raise windows.pretraining_days, or leave the level out of the models"
        for level, auc in measures["next_behaviour_auc"].items()
        if auc is not None and auc < LEAST_AUC
    ]
    table = measures["start_correlation"]["table"]
    hardly = [name for name in measures["start_correlation"]["E"] if table[name] > MOST_CORRELATION]
    if hardly:
        found.append(
            "E is made of what the click model has learnt, which is little: correlation with its "
            f"random start {', '.join(f'{name} {table[name]:.2f}' for name in hardly)}; set "
            "embeddings.ids to cooccurrence, or raise windows.pretraining_days"
        )
    return found
