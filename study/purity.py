"""How well interest centers tell the true interests of the simulated shop apart.

A behaviour belongs to its nearest center. Of two behaviours of one user: how often do they meet at
a center if they serve the same interest of the user, and how often if they serve different ones?
Good centers have a high share for the same interest, and a low one for different interests.

Legend: B users, N history steps, e width of an item vector in E, K centers, I items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.dataset as ds
import torch
from torch import Tensor

from mfn.models.entropies import assignment
from mfn.models.ranker import Ranker
from mfn.pretraining.center_measures import PurityOfInterests, hardened, purity_of_interests
from mfn.settings import Settings
from mfn.simulator.shop import MATERIALS, catalogue, customers
from mfn.splits.published import Splits
from mfn.trials.trial import Final, rows_of_test

FINE = "fine"
"""The level at which interests differ: they are pairs of a colour and a material."""


@dataclass(frozen=True)
class Purity:
    """Means over the seeds, before the main training and after it."""

    start: PurityOfInterests
    tuned: PurityOfInterests


def purities(trials: Mapping[str, Mapping[int, Final]]) -> dict[str, Purity]:
    """By model, the purity of its centers at the fine level; only of models that have some there.

    Args:
        trials: finished trainings on a simulated shop, by model and seed.
    """
    found: dict[str, Purity] = {}
    histories: dict[str, tuple[Tensor, Tensor]] = {}
    for name, of_seeds in trials.items():
        measured = []
        for final in of_seeds.values():
            tuned = {key: one for key, one in final.centers().items() if f".{FINE}." in key}
            if tuned:
                folder = final.splits.folder
                if folder not in histories:
                    histories[folder] = _histories(final.settings)
                measured.append(_of_training(final.model(), tuned, *histories[folder]))
        if measured:
            starts, ends = zip(*measured, strict=True)
            found[name] = Purity(_mean(starts), _mean(ends))
    return found


@torch.no_grad()
def _of_training(
    model: Ranker, tuned: Mapping[str, Tensor], history_BN: Tensor, interest_BN: Tensor
) -> tuple[PurityOfInterests, PurityOfInterests]:
    """The purity with the model's initial centers, and with its tuned ones."""
    items_U, inverse_BN = torch.unique(history_BN, return_inverse=True)
    frozen_BNe = model.encoder.frozen_vectors(items_U)[FINE][inverse_BN]
    mask_BN = history_BN != 0
    parameters = dict(model.named_parameters())

    def purity(centers_Ke: Tensor) -> PurityOfInterests:
        nearest_BNK = hardened(assignment(frozen_BNe, centers_Ke, mask_BN))
        return purity_of_interests(nearest_BNK, mask_BN, interest_BN)

    ((name, tuned_Ke),) = tuned.items()
    return purity(parameters[name].detach()), purity(tuned_Ke)


def _mean(of_seeds: Sequence[PurityOfInterests]) -> PurityOfInterests:
    return PurityOfInterests(
        *(
            float(np.mean([np.nan if share is None else share for share in shares]))
            for shares in zip(*((one.same, one.different) for one in of_seeds), strict=True)
        )
    )


def _histories(settings: Settings) -> tuple[Tensor, Tensor]:
    """The history of each test user's first row, and the interest that each behaviour serves.

    Returns:
        item rows [B, N], and the number of the interest among the user's [B, N]; -1: none of them.
    """
    splits = Splits.published(settings)
    users: list[str] = []
    histories: list[list[int]] = []
    for rows in rows_of_test(splits.folder):
        users += rows.column("user_id").to_pylist()
        histories += rows.column("history").to_pylist()
    _, first = np.unique(users, return_index=True)
    history_BN = np.array([histories[row] for row in first])
    items = ds.dataset(f"{splits.folder}/items", format="parquet").to_table(["item", "key"])
    number_I = np.zeros(int(items["item"].to_numpy().max()) + 1, dtype=np.int64)
    number_I[items["item"].to_numpy()] = [_number(key) for key in items["key"].to_pylist()]
    shop, seed = settings.simulate, settings.simulate.seed
    known = catalogue(shop.items, seed).items(number_I[history_BN])
    pair_BN = known.colour * len(MATERIALS) + known.material
    who = customers(seed, np.array([_number(users[row]) for row in first]))
    pair_BJ = np.where(who.real_RJ, who.colours_RJ * len(MATERIALS) + who.materials_RJ, -1)
    is_BNJ = pair_BN[:, :, None] == pair_BJ[:, None]
    interest_BN = np.where(is_BNJ.any(axis=-1), is_BNJ.argmax(axis=-1), -1)
    return torch.from_numpy(history_BN), torch.from_numpy(interest_BN)


def _number(name: str | None) -> int:
    """The number in the id of an item or a customer of the shop; 0 for what has no such id."""
    digits = (name or "")[1:]
    return int(digits) if digits.isdigit() else 0
