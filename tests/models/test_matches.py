"""Matches of candidates with the history, against plain loops; and which requests see them.

Legend: B requests, M candidates, N history steps.
"""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mfn.indices import FIRST_INDEX
from mfn.models.batch import ENTITY, Batch
from mfn.models.embedding import ItemTable, offsets_of
from mfn.models.matches import Matches, hidden
from mfn.models.ranker import Ranker
from mfn.models.settings import NAMED_MODELS, BaseSettings, MatchesSettings
from tests.models.rows import FEATURES, SIZES, D, batch, item_indices

FIELDS = ("item_id", "category", "shop", "brand", "price", "entity")


def matches(hidden_share: float = 0.0, seed: int = 1) -> Matches:
    items = ItemTable(FEATURES, item_indices(), offsets_of(SIZES))
    return Matches(MatchesSettings(enabled=True, hidden_share=hidden_share), items, seed)


def values(item: int, field: str) -> list[int]:
    """The values of an item in a field, without reserved indices."""
    given = item_indices()[field][item]
    return [int(v) for v in given.reshape(-1) if int(v) >= FIRST_INDEX]


def oracle(rows: Batch, b: int, m: int, field: str) -> tuple[float, float]:
    """The two numbers of a candidate and a field, one behaviour at a time."""
    candidate = values(int(rows.candidates_BM[b, m]), field)
    length = int(rows.history_length_B[b])
    count, last = 0, None
    for t in range(length):
        past = values(int(rows.history_BN[b, t]), field)
        shared = sum(one == other for one in candidate for other in past)
        count += shared
        last = t if shared else last
    recency = 0.0 if last is None else 1 / (1 + math.log1p(length - 1 - last))
    return math.log1p(count), recency


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 8))
def test_matches_are_counts_and_recency_by_field(seed: int, N: int) -> None:
    rows = batch(B=4, N=N, M=3, seed=seed)
    made = matches()
    assert set(made.fields) == set(FIELDS)
    found_BMx = made.eval()(rows)
    assert found_BMx.shape == (4, 3, made.width)
    for b, m in torch.nonzero(rows.candidate_mask_BM).tolist():
        expected = [x for field in made.fields for x in oracle(rows, b, m, field)]
        assert found_BMx[b, m].tolist() == pytest.approx(expected, abs=1e-6)


def test_missing_and_unknown_values_match_nothing() -> None:
    rows = batch(lengths=[3, 3, 3, 3, 3])
    indices = item_indices()
    for field in ("category", ENTITY):
        indices[field][:] = 2
    made = Matches(
        MatchesSettings(enabled=True), ItemTable(FEATURES, indices, offsets_of(SIZES)), 1
    )
    found = dict(zip(made.fields, made.eval()(rows).split(2, dim=2), strict=True))
    assert torch.all(found["category"] == 0)
    assert torch.all(found[ENTITY] == 0)
    assert torch.any(found["brand"] != 0)  # the control


def test_padding_and_the_rest_of_the_batch_change_no_match() -> None:
    rows, made = batch(lengths=[0, 1, 3, 6, 2]), matches(hidden_share=0.5)
    wide = dataclasses.replace(
        rows,
        history_BN=torch.nn.functional.pad(rows.history_BN, (0, 4)),
        candidates_BM=torch.nn.functional.pad(rows.candidates_BM, (0, 2)),
        labels_BM=torch.nn.functional.pad(rows.labels_BM, (0, 2)),
    )
    for module in (made.train(), made.eval()):
        assert torch.equal(module(wide)[:, : rows.candidates_BM.shape[1]], module(rows))
        alone = torch.cat([module(rows.select(slice(b, b + 1))) for b in range(len(rows))])
        assert torch.equal(alone, module(rows))


def many(B: int = 4000) -> Batch:
    return batch(B=B, lengths=[6] * B)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.8])
def test_this_share_of_the_training_requests_sees_no_matches_and_predictions_see_all(
    share: float,
) -> None:
    rows = many()
    made = matches(share)
    all_BMx, seen_BMx = made.eval()(rows), made.train()(rows)
    without_B = ~seen_BMx.flatten(1).any(dim=1)
    assert torch.equal(seen_BMx[~without_B], all_BMx[~without_B])
    has_some_B = all_BMx.flatten(1).any(dim=1)
    assert float(has_some_B.float().mean()) > 0.95
    hidden_share = float((without_B & has_some_B).float().sum() / has_some_B.float().sum())
    assert hidden_share == pytest.approx(share, abs=0.03)


def test_the_seed_decides_which_requests_see_no_matches() -> None:
    rows = many()
    one, same, other = (hidden(rows, 0.5, seed) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert float((one == other).float().mean()) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("name", sorted(NAMED_MODELS))
def test_every_model_can_see_matches(name: str) -> None:
    rows = batch(lengths=[2, 3, 1, 6, 2])

    def made(seen: MatchesSettings | None) -> Ranker:
        return Ranker(NAMED_MODELS[name], FEATURES, item_indices(), D, 0.2, 1, matches=seen)

    one, without = made(MatchesSettings(enabled=True)), made(None)
    assert one.matches is not None
    more = one.head.candidate.weight.shape[1] - without.head.candidate.weight.shape[1]
    assert more == one.matches.width == 2 * len(FIELDS)
    one.eval()
    before = one(rows)
    with torch.no_grad():
        one.head.candidate.weight[:, -more:] += 1.0
    assert not torch.allclose(one(rows), before)


def test_matches_are_off_unless_they_are_asked_for() -> None:
    model = Ranker(BaseSettings(), FEATURES, item_indices(), D, 0.2, 1, matches=MatchesSettings())
    assert model.matches is None
