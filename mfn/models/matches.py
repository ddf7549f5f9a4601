"""Matches: how often, and how long ago, the user acted on what shares a field with the candidate.

Zhou et al. (2018) and others leave this to attention. On real shops the plain counts say more than
any extractor, and no interest keeps them: a mean of behaviours does not know how many of them were
of one item.

Legend: B requests, M candidates, N history steps, F item fields, X entities of an item.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mfn.indices import FIRST_INDEX
from mfn.models.batch import ENTITY, Batch
from mfn.models.embedding import ItemTable
from mfn.models.settings import MatchesSettings

NUMBERS = 2
"""Numbers for each field: of the count, and of the time since the last match."""

PRIME = 2**31 - 1


class Matches(nn.Module):
    """Two numbers a field for each candidate; they have no parameters.

    Matches are quick to learn, and a model that sees all of them learns its interests late or not
    at all. So a share of the training requests does not see them. Which ones depends on the request
    and the seed alone: a training that resumes hides the same.
    """

    def __init__(self, settings: MatchesSettings, items: ItemTable, seed: int) -> None:
        super().__init__()
        self.hidden_share, self.seed = settings.hidden_share, seed
        self.items = items
        self.fields = [*items.id_fields, *([ENTITY] if items.entities_IX.shape[1] else [])]

    @property
    def width(self) -> int:
        """Numbers for each candidate, 2F."""
        return NUMBERS * len(self.fields)

    def forward(self, batch: Batch) -> Tensor:
        """[B, M, 2F]: for each field, log(1 + count) and 1 / (1 + log(1 + steps since the last)).

        Both are 0 where no behaviour matches, and for requests that do not see their matches. A
        behaviour counts once for each entity that it shares with the candidate. Reserved indices
        (padding, missing, unknown) match nothing.
        """
        mask_B1N = batch.history_mask_BN[:, None]
        length_B1 = batch.history_length_B[:, None]
        steps_N = torch.arange(mask_B1N.shape[2], device=mask_B1N.device)
        numbers = []
        for shared_BMN in self._shared(batch):
            shared_BMN = shared_BMN * mask_B1N
            last_BM = torch.where(shared_BMN > 0, steps_N, -1).amax(dim=2)
            since_BM = (length_B1 - 1 - last_BM).clamp(min=0)
            recency_BM = 1 / (1 + torch.log1p(since_BM.to(torch.get_default_dtype())))
            numbers.append(torch.log1p(shared_BMN.sum(dim=2).to(recency_BM.dtype)))
            numbers.append(torch.where(last_BM >= 0, recency_BM, 0))
        numbers_BMx = torch.stack(numbers, dim=2)
        if self.training and self.hidden_share:
            numbers_BMx = numbers_BMx * ~hidden(batch, self.hidden_share, self.seed)[:, None, None]
        return numbers_BMx

    def _shared(self, batch: Batch) -> list[Tensor]:
        """For each field, the number of values that a step shares with a candidate, [B, M, N]."""
        found = []
        for place, field in enumerate(self.items.id_fields):
            value_I = self.items.ids_IF[:, place]
            own_BM, past_BN = value_I[batch.candidates_BM], value_I[batch.history_BN]
            real_BM = self._known(own_BM, field)
            found.append((own_BM[:, :, None] == past_BN[:, None]) & real_BM[..., None])
        if ENTITY in self.fields:
            own_BMX = self.items.entities_IX[batch.candidates_BM]
            past_BNX = self.items.entities_IX[batch.history_BN]
            # A reserved index of the candidate becomes a number that no behaviour has.
            own_BMX = torch.where(self._known(own_BMX, ENTITY), own_BMX, -2)
            shared_BMN = own_BMX.new_zeros(
                (*own_BMX.shape[:2], past_BNX.shape[1]), dtype=torch.int16
            )
            # One pair of entities at a time, which is three times as fast as all at once.
            past = [past_BN[:, None].contiguous() for past_BN in past_BNX.unbind(dim=2)]
            for own_BM in own_BMX.unbind(dim=2):
                for past_B1N in past:
                    shared_BMN += own_BM[..., None] == past_B1N
            found.append(shared_BMN)
        return found

    def _known(self, rows: Tensor, field: str) -> Tensor:
        """Whether rows of the embedding table stand for a value, not for a reserved index."""
        return rows >= self.items.offsets[field] + FIRST_INDEX


def hidden(batch: Batch, share: float, seed: int) -> Tensor:
    """A pseudorandom share of the requests, [B], that depends on each request and the seed alone.

    A hash of the request's items, modulo a prime. Padding is 0 and adds nothing.
    """
    total_B = batch.history_length_B
    for at, items_Bx in enumerate((batch.history_BN, batch.candidates_BM), start=1):
        places_x = torch.arange(1, items_Bx.shape[1] + 1, device=items_Bx.device)
        weight_x = (places_x * 2_654_435_761 + at * 40_503) % PRIME
        total_B = (total_B + (items_Bx * weight_x % PRIME).sum(dim=1)) % PRIME
    # The square makes requests that one seed puts side by side fall apart with another.
    total_B = (total_B + seed * 69_621) % PRIME
    return (total_B.square() % PRIME * 48_271 % PRIME).double() / PRIME < share
