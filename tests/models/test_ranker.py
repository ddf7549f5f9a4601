"""The whole model: what a step costs, what E does, which levels and fields there are."""

from __future__ import annotations

import dataclasses
import time

import pytest
import torch

from mfn.engine.adam import Adam
from mfn.models.batch import Features
from mfn.models.embedding import RandomItems
from mfn.models.ranker import Ranker
from mfn.models.settings import (
    NAMED_MODELS,
    BaseSettings,
    MfnSettings,
    MfnWithoutFineLevelSettings,
    MfnWithRandomCentersSettings,
    MfnWithRandomEmbeddingSettings,
)
from tests.models.rows import (
    FEATURES,
    ITEMS,
    SIZES,
    D,
    batch,
    frozen,
    gradients,
    item_indices,
    made,
)


@pytest.fixture(params=sorted(NAMED_MODELS))
def model(request: pytest.FixtureRequest) -> Ranker:
    return made(NAMED_MODELS[request.param]).double()


def test_embedding_gradient_holds_distinct_touched_rows_alone(model: Ranker) -> None:
    rows = batch()
    model.loss(rows).backward()
    gradient = model.embedding.weight.grad
    assert gradient is not None
    assert gradient.is_sparse
    touched = gradient._indices()[0]
    assert len(touched.unique()) == len(touched) < len(model.embedding.weight)


def test_a_step_costs_the_same_whatever_the_vocabulary_is_long() -> None:
    def step_seconds(size: int) -> float:
        features = dataclasses.replace(FEATURES, sizes={**SIZES, "item_id": size})
        model = Ranker(BaseSettings(), features, item_indices(), D, 0.2, 1)
        optimizer = Adam([], [model.embedding.weight], 0.01)
        rows = batch(B=32, N=20, M=10)
        times = []
        for _ in range(15):
            start = time.perf_counter()
            optimizer.zero_grad()
            model.loss(rows).backward()
            optimizer.step()
            times.append(time.perf_counter() - start)
        return min(times)

    # A dense gradient or optimizer would make the long table's step some hundred times as slow.
    assert step_seconds(1_000_000) < 5 * step_seconds(1_000)


def test_pretrained_parts_are_frozen_and_in_no_optimizer() -> None:
    model = made(MfnSettings())
    trained = set(dict(model.named_parameters()))
    kept = set(model.state_dict()) - trained
    assert {name.rsplit(".", 1)[1] for name in kept} == {
        "weight_VD", "mean_FD", "std_F",
    }  # fmt: skip


@pytest.mark.parametrize("starts", [True, False])
def test_trainable_embedding_starts_at_the_frozen_one_where_that_was_learnt(starts: bool) -> None:
    model = made(BaseSettings(start_at_pretrained=starts))
    at = model.embedding.offsets["category"]
    same = model.embedding.weight[at : at + SIZES["category"]] == frozen().vectors["category"]
    assert bool(same[3:].all()) is starts
    assert not same[:3].any()


def test_unknown_and_unlearnt_values_have_an_average_frozen_vector() -> None:
    model = made(MfnSettings())
    assert model.encoder.frozen is not None
    learnt = frozen()
    learnt.learnt["category"][7] = False
    model.encoder.frozen.load(learnt)
    place = FEATURES.item_fields.index("category")
    at = model.embedding.offsets["category"]
    weight_VD, mean_D = model.encoder.frozen.weight_VD, model.encoder.frozen.mean_FD[place]
    for index, average in ((1, True), (2, True), (7, True), (5, False)):
        part_D = weight_VD[None, at + index]
        standard = model.encoder.frozen.standardise("category", part_D, torch.tensor([True]))
        assert bool(torch.allclose(standard, torch.zeros(1, D))) is average, index
    assert torch.isfinite(mean_D).all()


def test_a_model_does_without_fields_that_do_not_vary() -> None:
    few = Features(("item_id", "category"), (), (), {"item_id": 30, "category": 9}, 12)
    rows = dataclasses.replace(
        batch(),
        user_fields_BP=torch.zeros(5, 0, dtype=torch.long),
        context_fields_BS=torch.zeros(5, 0, dtype=torch.long),
    )
    model = made(MfnSettings(), few)
    assert torch.isfinite(model(rows)).all()
    only_fine = Features(("item_id",), (), (), {"item_id": 30}, 12)
    assert [level.name for level in made(BaseSettings(), only_fine).levels] == ["fine"]
    with pytest.raises(ValueError, match=r"levels: expected one of \['fine'\], .* \['category'\]"):
        made(MfnWithoutFineLevelSettings(), only_fine)


def test_without_the_fine_level_interests_know_the_category_level_alone() -> None:
    rows = batch(lengths=[3, 3, 3, 3, 3])
    model = made(MfnWithoutFineLevelSettings())
    assert list(model.interests) == ["category"]
    twin = 1  # another item of the same category and brand
    ids_IF, place = model.encoder.items.ids_IF, model.encoder.items.id_fields.index("item_id")
    ids_IF[twin] = ids_IF[int(rows.history_BN[0, 0])]
    ids_IF[twin, place] = model.embedding.offsets["item_id"] + 29

    def change(history: bool) -> float:
        columns = {"history_BN" if history else "candidates_BM": torch.full((5, 4), twin)}
        original = int(rows.history_BN[0, 0])
        control = {name: torch.full((5, 4), original) for name in columns}
        one, other = (dataclasses.replace(rows, **items) for items in (columns, control))
        return float((model(one) - model(other)).detach().abs().max())

    assert change(history=True) == 0
    assert change(history=False) > 0  # of a candidate the head sees all fields


def test_the_auxiliary_loss_is_added_to_every_candidate_and_teaches_centers() -> None:
    plain, helped = (
        made(MfnWithRandomCentersSettings(auxiliary_weight=weight)).double()
        for weight in (0.0, 2.0)
    )
    rows = batch()
    embedded = helped.look_up(rows)
    L_E = sum(one.auxiliary_loss(embedded.history[level]) for level, one in helped.extractors())
    expected = plain.loss(rows) + L_E * int(rows.candidate_count_B.sum())
    assert torch.all(torch.as_tensor(L_E) != 0)
    torch.testing.assert_close(helped.loss(rows), expected)
    one, other = gradients(plain, [rows]), gradients(helped, [rows])
    changed = {name for name in one if not torch.allclose(one[name], other[name])}
    assert {name.rsplit(".", 1)[1] for name in changed} == {"centers_Ke"}
    assert len(changed) == 2


def test_a_random_frozen_embedding_is_no_pretrained_one_and_standardised_as_one_is() -> None:
    model = made(MfnWithRandomEmbeddingSettings(start_at_pretrained=False))
    assert isinstance(model.encoder.frozen, RandomItems)
    drawn_VD = model.encoder.frozen.weight_VD.clone()
    model.encoder.frozen.load(frozen())
    assert torch.equal(model.encoder.frozen.weight_VD, drawn_VD)
    # Neither is it the trainable embedding as that was drawn.
    trainable_VD = model.embedding.weight.detach()[: len(drawn_VD)]
    both = torch.stack([drawn_VD.flatten(), trainable_VD.flatten()])
    assert abs(float(torch.corrcoef(both)[0, 1])) < 0.2
    for level, vectors_Ud in model.encoder.frozen_vectors(torch.arange(3, ITEMS)).items():
        for part_UD in (vectors_Ud * vectors_Ud.shape[1] ** 0.25).split(D, dim=1):
            assert float(part_UD.square().mean()) == pytest.approx(1, rel=1e-4), level
